//! f64 references.

use super::Draw;
use crate::reference::Reference;

pub(super) fn dropout(r: &mut Reference) {
    let (x, add, draw) = (r.f(0), r.f(1), Draw::new(&r.u(2), r.dims.scalar_f32(0), r.dims.scalar(1)));
    let y = dropped(&x, draw);
    r.put_f(3, if add.is_empty() { y } else { y.iter().zip(&add).map(|(y, a)| a + y).collect() });
}

pub(super) fn dropout_dx(r: &mut Reference) {
    let (dy, draw) = (r.f(0), Draw::new(&r.u(1), r.dims.scalar_f32(0), r.dims.scalar(1)));
    r.put_f(2, dropped(&dy, draw));
}

fn dropped(x: &[f64], draw: Draw) -> Vec<f64> {
    let scale = f64::from(draw.scale());
    x.iter().enumerate().map(|(e, x)| if draw.keeps(e as u64) { x * scale } else { 0.0 }).collect()
}
