//! CPU code: the plain loops, and the tiled products over the micro-kernel.

use super::finish::{Finish, finish};
use super::micro::{Kernel, Weight};
use super::{gradient, product, sums};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath;

/// Rows of one task of a plain loop.
const BLOCK: usize = 16;

pub(super) fn gemm(c: &mut Call<'_>) {
    let (x, w) = (c.f32(0), c.f32(1));
    plain(c, x, w);
}

pub(super) fn plain<T: Copy + Sync>(c: &mut Call<'_>, x: Mat<'_, T>, w: Mat<'_, T>)
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
    let (dy, w) = (c.f32(0), c.f32(1));
    plain_dx(c, dy, w);
}

pub(super) fn plain_dx<T: Copy + Sync>(c: &mut Call<'_>, dy: Mat<'_, T>, w: Mat<'_, T>)
where
    f32: From<T>,
{
    let (dx, slope) = (c.f32_mut(2), c.f32_opt(3));
    c.pool.rows(dx.split(), BLOCK, &mut [], |first, mut dx, _| {
        for row in 0..dx.rows {
            let dx = dx.row(row);
            dx.fill(0.0);
            for (k, dy) in dy.row(first + row).iter().enumerate() {
                let dy = f32::from(*dy);
                dx.iter_mut().zip(w.row(k)).for_each(|(dx, w)| *dx += dy * f32::from(*w));
            }
        }
        let all = 0..dx.rows;
        finish::<vmath::Portable>(&mut dx, &mut None, slope, first, all);
    });
}

pub(super) fn gemm_dw(c: &mut Call<'_>) {
    let (dy, x) = (c.f32(0), c.f32(1));
    plain_dw(c, dy, x);
}

pub(super) fn plain_dw<T: Copy + Sync>(c: &mut Call<'_>, dy: Mat<'_, T>, x: Mat<'_, T>)
where
    f32: From<T>,
{
    let dw = c.f32_mut(2);
    c.pool.rows(dw.split(), BLOCK, &mut [], |first, dw, _| outer(dy, x, first, dw));
}

/// Rows `first..` of `dyᵀ x`, one row of x after the other.
pub(in crate::ops) fn outer<T: Copy>(dy: Mat<'_, T>, x: Mat<'_, T>, first: usize, mut dw: MatMut<'_, f32>)
where
    f32: From<T>,
{
    for row in 0..dw.rows {
        dw.row(row).fill(0.0);
    }
    for r in 0..x.rows {
        for row in 0..dw.rows {
            let dy = f32::from(dy.row(r)[first + row]);
            dw.row(row).iter_mut().zip(x.row(r)).for_each(|(dw, x)| *dw += dy * f32::from(*x));
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
    let after = after_forward(c);
    product::forward::<K>(c, x, w, bias, y, after);
}

/// GELU, if its slope is wanted.
pub(super) fn after_forward<'a>(c: &mut Call<'a>) -> Finish<'a> {
    Finish { gelu: c.f32_mut_opt(4), slope: None }
}

pub(super) fn after_back<'a>(c: &mut Call<'a>) -> Finish<'a> {
    Finish { gelu: None, slope: c.f32_opt(3) }
}

pub(super) fn gemm_dx_pack<K: Kernel>(c: &mut Call<'_>) {
    let (rows, w) = (c.dims.size('r'), dense(c.f32(1)));
    product::pack_back::<K>(c, rows, w);
}

pub(super) fn gemm_dx_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, w, dx) = (c.f32(0), dense(c.f32(1)), c.f32_mut(2));
    let after = after_back(c);
    product::back::<K>(c, dy, w, dx, after);
}

pub(super) fn gemm_dw_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, x, dw) = (c.f32(0), c.f32(1), c.f32_mut(2));
    gradient::outer::<K>(c, dy, x, dw, None, |_, _, _, _| ());
}

pub(super) fn dense(w: Mat<'_, f32>) -> Weight<'_> {
    Weight { w, mask: None }
}
