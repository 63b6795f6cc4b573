//! CPU code: the plain loops, and the tiled products over the micro-kernel.

use super::finish::{Finish, finish};
use super::micro::{Kernel, Weight};
use super::widened::{self, HalfWeight};
#[cfg(target_arch = "x86_64")]
use super::{micro_avx512::Avx512, pairs};
use super::{product, sums};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath;

/// Rows of one task of a plain loop.
const BLOCK: usize = 16;

pub(super) fn gemm(c: &mut Call<'_>) {
    let (x, w) = (c.f32(0), c.f32(1));
    plain(c, x, w);
}

pub(super) fn gemm_bf16(c: &mut Call<'_>) {
    let (x, w) = (c.bf16(0), c.bf16(1));
    plain(c, x, w);
}

fn plain<T: Copy + Sync>(c: &mut Call<'_>, x: Mat<'_, T>, w: Mat<'_, T>)
where
    f32: From<T>,
{
    let (bias, y, slope) = (c.f32_opt(2), c.f32_mut(3), c.f32_mut_opt(4));
    c.pool.rows((y.split(), slope.map(MatMut::split)), BLOCK, &mut [], |first, (mut y, mut slope), _| {
        for row in 0..y.rows {
            for (k, y) in y.row(row).iter_mut().enumerate() {
                let products = x.row(first + row).iter().zip(w.row(k)).map(|(x, w)| f32::from(*x) * f32::from(*w));
                *y = products.fold(bias.map_or(0.0, |b| b.data[k]), |sum, p| sum + p);
            }
        }
        let all = 0..y.rows;
        finish::<vmath::Portable>(&mut y, &mut slope, None, first, all);
    });
}

pub(super) fn gemm_dx(c: &mut Call<'_>) {
    let (dy, w, dx, slope) = (c.f32(0), c.f32(1), c.f32_mut(2), c.f32_opt(3));
    c.pool.rows(dx.split(), BLOCK, &mut [], |first, mut dx, _| {
        for row in 0..dx.rows {
            let dx = dx.row(row);
            dx.fill(0.0);
            for (k, dy) in dy.row(first + row).iter().enumerate() {
                dx.iter_mut().zip(w.row(k)).for_each(|(dx, w)| *dx += dy * w);
            }
        }
        let all = 0..dx.rows;
        finish::<vmath::Portable>(&mut dx, &mut None, slope, first, all);
    });
}

pub(super) fn gemm_dw(c: &mut Call<'_>) {
    let (dy, x, dw) = (c.f32(0), c.f32(1), c.f32_mut(2));
    c.pool.rows(dw.split(), BLOCK, &mut [], |first, dw, _| outer(dy, x, first, dw));
}

/// Rows `first..` of `dyᵀ x`, one row of x after the other.
pub(in crate::ops) fn outer(dy: Mat<'_, f32>, x: Mat<'_, f32>, first: usize, mut dw: MatMut<'_, f32>) {
    for row in 0..dw.rows {
        dw.row(row).fill(0.0);
    }
    for r in 0..x.rows {
        for row in 0..dw.rows {
            let dy = dy.row(r)[first + row];
            dw.row(row).iter_mut().zip(x.row(r)).for_each(|(dw, x)| *dw += dy * x);
        }
    }
}

pub(super) fn bias_dw(c: &mut Call<'_>) {
    let inner = c.dims.scalar(0) as usize;
    let (dy, db) = (c.f32(0), c.f32_mut(1));
    sums::plain(dy, inner, db.data);
}

pub(super) fn bias_dw_blocks(c: &mut Call<'_>) {
    let inner = c.dims.scalar(0) as usize;
    let (dy, db) = (c.f32(0), c.f32_mut(1));
    sums::blocks(c.pool, c.shared, dy, inner, db.data);
}

pub(super) fn gemm_pack<K: Kernel>(c: &mut Call<'_>) {
    let (rows, w, bias) = (c.dims.size('r'), dense(c.f32(1)), c.f32_opt(2).map(dense));
    product::pack_forward::<K>(c, rows, w, bias);
}

pub(super) fn gemm_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (x, w, bias, y) = (c.f32(0), dense(c.f32(1)), c.f32_opt(2).map(dense), c.f32_mut(3));
    let after = Finish { gelu: c.f32_mut_opt(4), slope: None };
    product::forward::<K>(c, x, w, bias, y, after);
}

pub(super) fn gemm_widened_pack<K: Kernel>(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: None }, c.f32_opt(2).map(dense));
    widened::pack::<K>(c, w, bias);
}

pub(super) fn gemm_widened<K: Kernel>(c: &mut Call<'_>) {
    let (x, bias, y) = (c.bf16(0), c.f32_opt(2).map(dense), c.f32_mut(3));
    let after = Finish { gelu: c.f32_mut_opt(4), slope: None };
    widened::forward::<K>(c, x, bias, y, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn gemm_pairs_pack(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: None }, c.f32_opt(2).map(dense));
    pairs::pack(c, w, bias);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn gemm_pairs(c: &mut Call<'_>) {
    let (x, y) = (c.bf16(0), c.f32_mut(3));
    let after = Finish { gelu: c.f32_mut_opt(4), slope: None };
    pairs::forward(c, x, y, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn gemm_by_rows_pack(c: &mut Call<'_>) {
    if pairs::few_rows(c.dims) { gemm_pairs_pack(c) } else { gemm_widened_pack::<Avx512>(c) }
}

#[cfg(target_arch = "x86_64")]
pub(super) fn gemm_by_rows(c: &mut Call<'_>) {
    if pairs::few_rows(c.dims) { gemm_pairs(c) } else { gemm_widened::<Avx512>(c) }
}

pub(super) fn gemm_dx_pack<K: Kernel>(c: &mut Call<'_>) {
    let (rows, w) = (c.dims.size('r'), dense(c.f32(1)));
    product::pack_back::<K>(c, rows, w);
}

pub(super) fn gemm_dx_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, w, dx) = (c.f32(0), dense(c.f32(1)), c.f32_mut(2));
    let after = Finish { gelu: None, slope: c.f32_opt(3) };
    product::back::<K>(c, dy, w, dx, after);
}

pub(super) fn gemm_dw_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, x, dw) = (c.f32(0), c.f32(1), c.f32_mut(2));
    product::outer::<K>(c, dy, x, dw, None, |_, _, _, _| ());
}

fn dense(w: Mat<'_, f32>) -> Weight<'_> {
    Weight { w, mask: None }
}
