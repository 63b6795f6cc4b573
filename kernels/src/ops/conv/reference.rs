//! f64 references: the definition, one loop per index.

use super::Geometry;
use crate::reference::{Reference, Value};

/// Calls `f(at_y, at_w, at_x)` for every product of the convolution: indices into `y` or `dy`, `w` and `x` or `dx`.
fn every_product(g: Geometry, n: usize, mut f: impl FnMut(usize, usize, usize)) {
    for (image, o) in (0..n).flat_map(|image| (0..g.outputs).map(move |o| (image, o))) {
        for oy in 0..g.out_h {
            for ox in 0..g.out_w {
                let at_y = ((image * g.outputs + o) * g.out_h + oy) * g.out_w + ox;
                for c in 0..g.channels {
                    for ky in 0..g.kernel_h {
                        for kx in 0..g.kernel_w {
                            let at_w = ((o * g.channels + c) * g.kernel_h + ky) * g.kernel_w + kx;
                            let (y, x) = (oy * g.stride + ky, ox * g.stride + kx);
                            f(at_y, at_w, ((image * g.channels + c) * g.height + y) * g.width + x);
                        }
                    }
                }
            }
        }
    }
}

/// Images as floats; bytes are fractions of 255.
fn images(r: &Reference, at: usize) -> Vec<f64> {
    match &r.args[at] {
        Value::U(v) => v.iter().map(|v| f64::from(*v) / 255.0).collect(),
        _ => r.f(at),
    }
}

/// `values ⊙ mask`; an absent mask keeps all.
fn masked(r: &Reference, values: &[f64], mask: usize) -> Vec<f64> {
    match r.has(mask) {
        true => values.iter().zip(r.u(mask)).map(|(v, bit)| if bit == 1 { *v } else { 0.0 }).collect(),
        false => values.to_vec(),
    }
}

pub(super) fn conv(r: &mut Reference) {
    let (g, n) = (Geometry::new(&r.dims), r.dims.size('n'));
    let (x, w, bias) = (images(r, 0), masked(r, &r.f(1), 2), masked(r, &r.f(3), 4));
    let mut y: Vec<f64> = (0..n * g.outputs * g.pixels())
        .map(|at| if bias.is_empty() { 0.0 } else { bias[at / g.pixels() % g.outputs] })
        .collect();
    every_product(g, n, |at_y, at_w, at_x| y[at_y] += x[at_x] * w[at_w]);
    r.put_f(5, y);
}

pub(super) fn conv_dx(r: &mut Reference) {
    let (g, n) = (Geometry::new(&r.dims), r.dims.size('n'));
    let (dy, w) = (r.f(0), masked(r, &r.f(1), 2));
    let mut dx = vec![0.0; n * g.image()];
    every_product(g, n, |at_y, at_w, at_x| dx[at_x] += dy[at_y] * w[at_w]);
    r.put_f(3, dx);
}

pub(super) fn conv_dw(r: &mut Reference) {
    let (g, n) = (Geometry::new(&r.dims), r.dims.size('n'));
    let (dy, x, w, score) = (r.f(0), images(r, 1), r.f(2), r.f(4));
    let mut grad = vec![0.0; w.len()];
    every_product(g, n, |at_y, at_w, at_x| grad[at_w] += dy[at_y] * x[at_x]);
    r.put_f(6, masked(r, &grad, 3));
    // Without a score there is nothing to pass a gradient to.
    let sign = |at: usize| match score.get(at) {
        Some(s) if *s > 0.0 => 1.0,
        Some(s) if *s < 0.0 => -1.0,
        _ => 0.0,
    };
    let ds: Vec<f64> = (0..w.len()).map(|at| if sign(at) == 0.0 { 0.0 } else { grad[at] * w[at] * sign(at) }).collect();
    r.put_f(7, masked(r, &ds, 5));
}
