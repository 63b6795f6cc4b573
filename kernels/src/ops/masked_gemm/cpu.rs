//! CPU code: the plain loops, and the tiled products with bits applied while the weight is packed.

use crate::operand::{BitMat, Call, Mat, MatMut};
use crate::ops::gemm::finish::{Finish, finish};
use crate::ops::gemm::micro::{Kernel, Weight, masked_value, sign};
use crate::ops::gemm::{cpu::outer, gradient, product, sums};
use crate::ops::vmath;

/// Rows of one task of a plain loop.
const BLOCK: usize = 16;

pub(super) fn masked_gemm(c: &mut Call<'_>) {
    let (x, w) = (c.f32(0), c.f32(1));
    plain(c, x, w);
}

pub(super) fn plain<T: Copy + Sync>(c: &mut Call<'_>, x: Mat<'_, T>, w: Mat<'_, T>)
where
    f32: From<T>,
{
    let mask = c.bits(2);
    let (bias, y, slope) = (masked_bias(c, 3, 4), c.f32_mut(5), c.f32_mut_opt(6));
    c.pool.rows((y.split(), slope.map(MatMut::split)), BLOCK, &mut [], |first, (mut y, mut slope), _| {
        for row in 0..y.rows {
            let x = x.row(first + row);
            for (k, y) in y.row(row).iter_mut().enumerate() {
                let (start, w) = (bias.map_or(0.0, |b| masked_value(&b, k)), w.row(k));
                *y = mask.ones(k).fold(start, |sum, j| sum + f32::from(x[j]) * f32::from(w[j]));
            }
        }
        let all = 0..y.rows;
        finish::<vmath::Portable>(&mut y, &mut slope, None, first, all);
    });
}

pub(super) fn masked_gemm_dx(c: &mut Call<'_>) {
    let (dy, w) = (c.f32(0), c.f32(1));
    plain_dx(c, dy, w);
}

pub(super) fn plain_dx<T: Copy + Sync>(c: &mut Call<'_>, dy: Mat<'_, T>, w: Mat<'_, T>)
where
    f32: From<T>,
{
    let (mask, dx, slope) = (c.bits(2), c.f32_mut(3), c.f32_opt(4));
    c.pool.rows(dx.split(), BLOCK, &mut [], |first, mut dx, _| {
        for row in 0..dx.rows {
            let dx = dx.row(row);
            dx.fill(0.0);
            for (k, dy) in dy.row(first + row).iter().enumerate() {
                for (j, (dx, w)) in dx.iter_mut().zip(w.row(k)).enumerate() {
                    if mask.get(k, j) {
                        *dx += f32::from(*dy) * f32::from(*w);
                    }
                }
            }
        }
        let all = 0..dx.rows;
        finish::<vmath::Portable>(&mut dx, &mut None, slope, first, all);
    });
}

pub(super) fn masked_gemm_dw(c: &mut Call<'_>) {
    let (dy, x, w) = (c.f32(0), c.f32(1), c.f32(2));
    plain_dw(c, dy, x, w);
}

pub(super) fn plain_dw<T: Copy + Sync>(c: &mut Call<'_>, dy: Mat<'_, T>, x: Mat<'_, T>, w: Mat<'_, T>)
where
    f32: From<T>,
{
    let mask = c.bits(3);
    let (score, candidates) = (c.f32_opt(4), c.bits_opt(5));
    let (dw, ds) = (c.f32_mut(6), c.f32_mut_opt(7));
    let epilogue = |row: usize, g: &mut [f32], ds: Option<&mut [f32]>| {
        epilogue(
            g,
            ds,
            w.row(row),
            score.map(|s| s.row(row)),
            |j| mask.get(row, j),
            |j| candidates.is_none_or(|c| c.get(row, j)),
        );
    };
    match ds {
        None => c.pool.rows(dw.split(), BLOCK, &mut [], |first, mut dw, _| {
            outer(dy, x, first, dw.reborrow());
            (0..dw.rows).for_each(|row| epilogue(first + row, dw.row(row), None));
        }),
        Some(ds) => c.pool.rows((dw.split(), ds.split()), BLOCK, &mut [], |first, (mut dw, mut ds), _| {
            outer(dy, x, first, dw.reborrow());
            (0..dw.rows).for_each(|row| epilogue(first + row, dw.row(row), Some(ds.row(row))));
        }),
    }
}

pub(super) fn masked_bias_dw(c: &mut Call<'_>) {
    let inner = c.dims.scalar(0) as usize;
    bias_gradients(c, |_, dy, sums| sums::plain(dy, inner, sums));
}

pub(super) fn masked_bias_dw_blocks(c: &mut Call<'_>) {
    let inner = c.dims.scalar(0) as usize;
    bias_gradients(c, |c, dy, sums| sums::blocks(c.pool, c.shared, dy, inner, sums));
}

fn bias_gradients(c: &mut Call<'_>, sums: impl Fn(&mut Call<'_>, Mat<'_, f32>, &mut [f32])) {
    let (dy, bias, mask) = (c.f32(0), c.f32(1), c.bits(2));
    let (score, candidates) = (c.f32_opt(3), c.bits_opt(4));
    let (db, ds) = (c.f32_mut(5), c.f32_mut_opt(6));
    sums(c, dy, db.data);
    epilogue(
        db.data,
        ds.map(|ds| ds.data),
        bias.data,
        score.map(|s| s.data),
        |j| mask.get(0, j),
        |j| candidates.is_none_or(|c| c.get(0, j)),
    );
}

/// `ds = g ⊙ w ⊙ sign(score)` on the candidates, then `g` becomes `g ⊙ mask`.
fn epilogue<T: Copy>(
    g: &mut [f32],
    mut ds: Option<&mut [f32]>,
    w: &[T],
    score: Option<&[f32]>,
    kept: impl Fn(usize) -> bool,
    candidate: impl Fn(usize) -> bool,
) where
    f32: From<T>,
{
    for (j, g) in g.iter_mut().enumerate() {
        if let Some(ds) = &mut ds {
            ds[j] = if candidate(j) { *g * f32::from(w[j]) * score.map_or(1.0, |s| sign(s[j])) } else { 0.0 };
        }
        if !kept(j) {
            *g = 0.0;
        }
    }
}

pub(super) fn masked_gemm_pack<K: Kernel>(c: &mut Call<'_>) {
    let (rows, w) = (c.dims.size('r'), Weight { w: c.f32(1), mask: Some(c.bits(2)) });
    let bias = masked_bias(c, 3, 4);
    product::pack_forward::<K>(c, rows, w, bias);
}

pub(super) fn masked_gemm_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (x, w) = (c.f32(0), Weight { w: c.f32(1), mask: Some(c.bits(2)) });
    let (bias, y) = (masked_bias(c, 3, 4), c.f32_mut(5));
    let after = after_forward(c);
    product::forward::<K>(c, x, w, bias, y, after);
}

/// GELU, if its slope is wanted.
pub(super) fn after_forward<'a>(c: &mut Call<'a>) -> Finish<'a> {
    Finish { gelu: c.f32_mut_opt(6), slope: None }
}

pub(super) fn after_back<'a>(c: &mut Call<'a>) -> Finish<'a> {
    Finish { gelu: None, slope: c.f32_opt(4) }
}

pub(super) fn masked_gemm_dx_pack<K: Kernel>(c: &mut Call<'_>) {
    let (rows, w) = (c.dims.size('r'), Weight { w: c.f32(1), mask: Some(c.bits(2)) });
    product::pack_back::<K>(c, rows, w);
}

pub(super) fn masked_gemm_dx_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, w, dx) = (c.f32(0), Weight { w: c.f32(1), mask: Some(c.bits(2)) }, c.f32_mut(3));
    let after = after_back(c);
    product::back::<K>(c, dy, w, dx, after);
}

pub(super) fn masked_gemm_dw_tiled<K: Kernel>(c: &mut Call<'_>) {
    let (dy, x, w, mask): (_, _, _, BitMat<'_>) = (c.f32(0), c.f32(1), c.f32(2), c.bits(3));
    let epilogue = gradient::masked_epilogue::<K>(w, mask, c.f32_opt(4), c.bits_opt(5));
    let (dw, ds) = (c.f32_mut(6), c.f32_mut_opt(7));
    gradient::outer::<K>(c, dy, x, dw, ds, epilogue);
}

pub(super) fn masked_bias<'a>(c: &mut Call<'a>, bias: usize, mask: usize) -> Option<Weight<'a>> {
    let mask = c.bits_opt(mask);
    c.f32_opt(bias).map(|w| Weight { w, mask })
}
