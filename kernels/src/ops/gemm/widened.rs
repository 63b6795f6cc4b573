//! Products of bf16 and their gradients on the f32 tiles, for CPUs without products of bf16 pairs.
//!
//! A bf16 is the upper half of an f32, so widening is a shift and exact. A weight is widened where it is prepared, in
//! front of the f32 panels; other factors in every call. Cleared bits of a mask are zero from then on.

use super::finish::Finish;
use super::micro::{Kernel, Weight};
use super::{gradient, product};
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat, MatMut};
use crate::par::Pool;
use half::bf16;
use std::ops::Range;

/// Rows widened in one task.
const BLOCK: usize = 32;

/// A bf16 weight of which only the elements with set bits exist.
#[derive(Clone, Copy)]
pub(crate) struct HalfWeight<'a> {
    pub(crate) w: Mat<'a, bf16>,
    /// Absent: every element exists.
    pub(crate) mask: Option<BitMat<'a>>,
}

/// Elements that [`pack`] fills: panels, or the widened weight where the f32 product has none.
pub(crate) fn len<K: Kernel>(d: &Dims) -> usize {
    match product::forward_without_panels(d.size('r'), d.size('o')) {
        true => d.size('o') * d.size('i'),
        false => product::forward_len::<K>(d),
    }
}

/// Room for the wide weight, then for the wide x.
pub(crate) fn scratch(d: &Dims) -> Scratch {
    Scratch { shared: d.size('r').max(d.size('o')) * d.size('i'), worker: 0 }
}

/// Makes what [`forward`] needs of the weight.
pub(crate) fn pack<K: Kernel>(c: &mut Call<'_>, w: HalfWeight<'_>, bias: Option<Weight<'_>>) {
    let rows = c.dims.size('r');
    if product::forward_without_panels(rows, w.w.rows) {
        wide(c.pool, w, &mut std::mem::take(&mut c.prepared));
        return;
    }
    let w = wide(c.pool, w, &mut std::mem::take(&mut c.shared));
    product::pack_forward::<K>(c, rows, Weight { w, mask: None }, bias);
}

/// `y = x wᵀ + bias`; after [`pack`].
pub(crate) fn forward<K: Kernel>(
    c: &mut Call<'_>,
    x: Mat<'_, bf16>,
    bias: Option<Weight<'_>>,
    y: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    let w = prepared(c, product::forward_without_panels(x.rows, y.cols), y.cols, x.cols);
    let x = wide(c.pool, HalfWeight { w: x, mask: None }, &mut std::mem::take(&mut c.shared));
    product::forward::<K>(c, x, w, bias, y, after);
}

/// Elements that [`pack_back`] fills.
pub(crate) fn back_len<K: Kernel>(d: &Dims) -> usize {
    match product::back_without_panels::<K>(d.size('r')) {
        true => d.size('o') * d.size('i'),
        false => product::back_len::<K>(d),
    }
}

/// Room for the wide weight, then for the wide dy.
pub(crate) fn back_scratch(d: &Dims) -> Scratch {
    Scratch { shared: d.size('r').max(d.size('i')) * d.size('o'), worker: 0 }
}

/// Makes what [`back`] needs of the weight.
pub(crate) fn pack_back<K: Kernel>(c: &mut Call<'_>, w: HalfWeight<'_>) {
    let rows = c.dims.size('r');
    if product::back_without_panels::<K>(rows) {
        wide(c.pool, w, &mut std::mem::take(&mut c.prepared));
        return;
    }
    let w = wide(c.pool, w, &mut std::mem::take(&mut c.shared));
    product::pack_back::<K>(c, rows, Weight { w, mask: None });
}

/// `dx = dy w`; after [`pack_back`].
pub(crate) fn back<K: Kernel>(c: &mut Call<'_>, dy: Mat<'_, bf16>, dx: MatMut<'_, f32>, after: Finish<'_>) {
    let w = prepared(c, product::back_without_panels::<K>(dy.rows), dy.cols, dx.cols);
    let dy = wide(c.pool, HalfWeight { w: dy, mask: None }, &mut std::mem::take(&mut c.shared));
    product::back::<K>(c, dy, w, dx, after);
}

/// Room for the wide dy and x, and the workspace of the f32 product.
pub(crate) fn outer_scratch<K: Kernel>(d: &Dims) -> Scratch {
    let tiles = gradient::outer_scratch::<K>(d);
    Scratch { shared: tiles.shared + d.size('r') * (d.size('o') + d.size('i')), ..tiles }
}

/// `g = dyᵀ x` in the first output, then the epilogue of [`gradient::outer`]; `room` is for the wide dy and x.
pub(crate) fn outer<K: Kernel>(
    c: &mut Call<'_>,
    dy: Mat<'_, bf16>,
    x: Mat<'_, bf16>,
    mut room: &mut [f32],
    (dw, ds): (MatMut<'_, f32>, Option<MatMut<'_, f32>>),
    epilogue: impl Fn(usize, Range<usize>, &mut [f32], Option<&mut [f32]>) + Sync,
) {
    let dy = wide(c.pool, HalfWeight { w: dy, mask: None }, &mut room);
    let x = wide(c.pool, HalfWeight { w: x, mask: None }, &mut room);
    gradient::outer::<K>(c, dy, x, dw, ds, epilogue);
}

/// The weight as the f32 product wants it: what was prepared, or nothing where panels alone are read.
fn prepared<'a>(c: &mut Call<'a>, whole: bool, rows: usize, cols: usize) -> Weight<'a> {
    let w = match whole {
        true => Mat::dense(&std::mem::take(&mut c.prepared)[..rows * cols], rows, cols),
        false => Mat { data: &[], rows, cols, ld: cols },
    };
    Weight { w, mask: None }
}

/// Takes a matrix off the front of a workspace: the elements with set bits as f32 without gaps, zeros elsewhere.
pub(crate) fn wide<'a>(pool: &Pool, from: HalfWeight<'_>, room: &mut &'a mut [f32]) -> Mat<'a, f32> {
    let (rows, cols) = (from.w.rows, from.w.cols);
    let (to, rest) = std::mem::take(room).split_at_mut(rows * cols);
    *room = rest;
    pool.rows(MatMut::dense(to, rows, cols).split(), BLOCK, &mut [], |first, mut to, _| {
        for row in 0..to.rows {
            let values = from.w.row(first + row).iter().map(|v| f32::from_bits(u32::from(v.to_bits()) << 16));
            let to = to.row(row);
            to.iter_mut().zip(values).for_each(|(to, v)| *to = v);
            if let Some(mask) = &from.mask {
                let kept = |j: usize| mask.get(first + row, j);
                to.iter_mut().enumerate().filter(|(j, _)| !kept(*j)).for_each(|(_, v)| *v = 0.0);
            }
        }
    });
    Mat::dense(to, rows, cols)
}
