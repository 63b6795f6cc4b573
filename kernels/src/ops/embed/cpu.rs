//! Portable: rows are short and contiguous, so the compiler's vector loops reach the speed of memory.

use crate::operand::{BitMat, Call, Mat};

/// Output rows of one gather task.
const GATHER: usize = 64;
/// Table rows of one scatter task. Each task reads all ids, so blocks are long.
const SCATTER: usize = 1024;

/// `y = x where the bit is set, else 0`; cleared entries of `x` have no influence.
#[inline(always)]
fn keep(y: &mut [f32], x: &[f32], mask: &[u32]) {
    for ((y, x), word) in y.chunks_mut(32).zip(x.chunks(32)).zip(mask) {
        for (j, (y, x)) in y.iter_mut().zip(x).enumerate() {
            *y = if word >> j & 1 == 1 { *x } else { 0.0 };
        }
    }
}

/// An empty table gives zeros.
pub(super) fn embed(c: &mut Call<'_>) {
    let (ids, w, mask, y) = (c.u32(0).data, c.f32(1), c.bits_opt(2), c.f32_mut(3));
    c.pool.rows(y.split(), GATHER, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            let Some(last) = w.rows.checked_sub(1) else {
                part.row(r).fill(0.0);
                continue;
            };
            let id = (ids[first + r] as usize).min(last);
            match &mask {
                None => part.row(r).copy_from_slice(w.row(id)),
                Some(mask) => keep(part.row(r), w.row(id), mask.row(id)),
            }
        }
    });
}

/// Order: `r` ascending into each table row, whatever the block.
pub(super) fn embed_dw(c: &mut Call<'_>) {
    let (dy, ids) = (c.f32(0), c.u32(1).data);
    let (w, mask, score, candidates) = (c.f32_opt(2), c.bits_opt(3), c.f32_opt(4), c.bits_opt(5));
    let (dw, ds) = (c.f32_mut(6), c.f32_mut_opt(7));
    let last = dw.rows.saturating_sub(1);
    let outputs = (dw.split(), ds.map(|m| m.split()));
    c.pool.rows(outputs, SCATTER, &mut [], |first, (mut dw, mut ds), _| {
        for v in 0..dw.rows {
            dw.row(v).fill(0.0);
        }
        for (r, id) in ids.iter().enumerate() {
            let id = (*id as usize).min(last);
            if (first..first + dw.rows).contains(&id) {
                for (sum, dy) in dw.row(id - first).iter_mut().zip(dy.row(r)) {
                    *sum += dy;
                }
            }
        }
        for v in 0..dw.rows {
            if let Some(ds) = &mut ds {
                score_gradient(ds.row(v), dw.row(v), first + v, w, score, candidates);
            }
            if let Some(mask) = &mask {
                for (g, word) in dw.row(v).chunks_mut(32).zip(mask.row(first + v)) {
                    for (j, g) in g.iter_mut().enumerate() {
                        *g = if word >> j & 1 == 1 { *g } else { 0.0 };
                    }
                }
            }
        }
    });
}

/// `ds = g w sign(score)` at candidates, with `sign(0) = 0`; zero elsewhere and without weights or scores.
fn score_gradient(
    ds: &mut [f32],
    g: &[f32],
    v: usize,
    w: Option<Mat<'_, f32>>,
    score: Option<Mat<'_, f32>>,
    candidates: Option<BitMat<'_>>,
) {
    let (Some(w), Some(score)) = (w, score) else { return ds.fill(0.0) };
    let (w, score) = (w.row(v), score.row(v));
    for (j, ds) in ds.iter_mut().enumerate() {
        let open = candidates.is_none_or(|c| c.get(v, j));
        let product = g[j] * w[j];
        *ds = match score[j] {
            s if open && s > 0.0 => product,
            s if open && s < 0.0 => -product,
            _ => 0.0,
        };
    }
}
