//! Products of bf16 on the f32 tiles, for CPUs without products of bf16 pairs.
//!
//! A bf16 is the upper half of an f32, so widening is a shift and exact. The weight is widened where it is prepared, in
//! front of the f32 panels; x in every call. Cleared bits of a mask are zero from then on.

use super::finish::Finish;
use super::micro::{Kernel, Weight};
use super::product;
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat, MatMut};
use half::bf16;

/// Rows widened in one task.
const BLOCK: usize = 32;

/// A bf16 weight of which only the elements with set bits exist.
#[derive(Clone, Copy)]
pub(crate) struct HalfWeight<'a> {
    pub(crate) w: Mat<'a, bf16>,
    /// Absent: every element exists.
    pub(crate) mask: Option<BitMat<'a>>,
}

/// Elements that [`pack`] fills: panels, or the widened weight where the f32 product reads it in place.
pub(crate) fn len<K: Kernel>(d: &Dims) -> usize {
    match product::forward_in_place(d.size('r'), d.size('o')) {
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
    let (rows, o, i) = (c.dims.size('r'), w.w.rows, w.w.cols);
    if product::forward_in_place(rows, o) {
        let wide = &mut std::mem::take(&mut c.prepared)[..o * i];
        return widen(c, w, wide);
    }
    let wide = &mut std::mem::take(&mut c.shared)[..o * i];
    widen(c, w, wide);
    product::pack_forward::<K>(c, rows, Weight { w: Mat::dense(wide, o, i), mask: None }, bias);
}

/// `y = x wᵀ + bias` for a weight of `o` rows; after [`pack`].
pub(crate) fn forward<K: Kernel>(
    c: &mut Call<'_>,
    x: Mat<'_, bf16>,
    bias: Option<Weight<'_>>,
    y: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    let (r, i, o) = (x.rows, x.cols, y.cols);
    let wide = &mut std::mem::take(&mut c.shared)[..r * i];
    widen(c, HalfWeight { w: x, mask: None }, wide);
    let w = match product::forward_in_place(r, o) {
        true => Mat::dense(&std::mem::take(&mut c.prepared)[..o * i], o, i),
        // Panels alone are read.
        false => Mat { data: &[], rows: o, cols: i, ld: i },
    };
    product::forward::<K>(c, Mat::dense(wide, r, i), Weight { w, mask: None }, bias, y, after);
}

/// Writes the elements with set bits as f32 without gaps, zeros elsewhere.
fn widen(c: &Call<'_>, from: HalfWeight<'_>, to: &mut [f32]) {
    let (rows, cols) = (from.w.rows, from.w.cols);
    c.pool.rows(MatMut::dense(to, rows, cols).split(), BLOCK, &mut [], |first, mut to, _| {
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
}
