//! Portable: one fused pass over gradient, weight and moments, cut into words of trainable bits.

use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat};
use crate::ops::reduce::blocks::{block_rows, block_scratch, block_sum};

/// What is the same for all entries of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) lr: f32,
    pub(super) decay: f32,
    pub(super) clip: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// `1 - beta1`, see [`complement`].
    pub(super) gain1: f32,
    pub(super) gain2: f32,
    /// `1 / c1`.
    pub(super) unbias1: f32,
    pub(super) unbias2: f32,
    pub(super) eps: f32,
}

/// `1 - beta` to the nearest multiple of 1e-7.
///
/// 0.999 as f32 is off by 1.3e-8, which would make `1 - beta2` and with it `v` wrong by 1.3e-5. An f32 in `0.5..1` has a
/// spacing of 6e-8, so the rounding picks the decimal that was meant.
pub(super) fn complement(beta: f32) -> f32 {
    ((1.0 - beta) * 1e7).round() / 1e7
}

/// One row: `p`, `m`, `v`, `g`, trainable words (all ones if absent).
pub(super) type RowUpdate = fn([&mut [f32]; 3], &[f32], Option<&[u32]>, &Rate);

/// Runs a row update over all rows, in blocks.
pub(super) fn adamw_by(c: &mut Call<'_>, update: RowUpdate) {
    let (g, trainable) = (c.f32(0), c.bits_opt(1));
    let (step, clip) = (c.f32(2).data, c.f32_opt(3));
    let [beta1, beta2, eps, weight_decay, lr_scale] = [0, 1, 2, 3, 4].map(|at| c.dims.scalar_f32(at));
    let lr = step[0] * lr_scale;
    let rate = Rate {
        lr,
        decay: 1.0 - lr * weight_decay,
        clip: clip.map_or(1.0, |m| m.data[0]),
        beta1,
        beta2,
        gain1: complement(beta1),
        gain2: complement(beta2),
        unbias1: 1.0 / step[1],
        unbias2: 1.0 / step[2],
        eps,
    };
    let outputs = (c.f32_mut(4).split(), c.f32_mut(5).split(), c.f32_mut(6).split());
    c.pool.rows(outputs, block_rows(2 * g.cols), &mut [], |first, (mut p, mut m, mut v), _| {
        for r in 0..p.rows {
            let bits = trainable.map(|t| t.row(first + r));
            update([p.row(r), m.row(r), v.row(r)], g.row(first + r), bits, &rate);
        }
    });
}

pub(super) fn adamw(c: &mut Call<'_>) {
    adamw_by(c, row_update);
}

/// Whole words in a loop that vectorises, others bit by bit; a frozen entry is never written.
fn row_update([p, m, v]: [&mut [f32]; 3], g: &[f32], bits: Option<&[u32]>, rate: &Rate) {
    for (at, g) in g.chunks(32).enumerate() {
        let word = bits.map_or(u32::MAX, |b| b[at]);
        let range = at * 32..at * 32 + g.len();
        let (p, m, v) = (&mut p[range.clone()], &mut m[range.clone()], &mut v[range]);
        if word == u32::MAX {
            for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                (*p, *m, *v) = entry(*p, *m, *v, *g, rate);
            }
        } else {
            let mut open = word;
            while open != 0 {
                let j = open.trailing_zeros() as usize;
                (p[j], m[j], v[j]) = entry(p[j], m[j], v[j], g[j], rate);
                open &= open - 1; // clear the lowest set bit
            }
        }
    }
}

#[inline(always)]
fn entry(p: f32, m: f32, v: f32, g: f32, rate: &Rate) -> (f32, f32, f32) {
    let g = g * rate.clip;
    let m = rate.beta1 * m + rate.gain1 * g;
    let v = rate.beta2 * v + rate.gain2 * g * g;
    let step = (m * rate.unbias1) / ((v * rate.unbias2).sqrt() + rate.eps);
    (p * rate.decay - rate.lr * step, m, v)
}

pub(super) fn sumsq_scratch(d: &Dims) -> Scratch {
    Scratch { shared: block_scratch(d.size('o'), block_rows(d.size('i'))), worker: 0 }
}

/// Runs a row sum over all rows, blocks added in order.
pub(super) fn sumsq_by(c: &mut Call<'_>, row: fn(&[f32], Option<&[u32]>) -> f64) {
    let (g, trainable, s): (Mat<'_, f32>, Option<BitMat<'_>>, _) = (c.f32(0), c.bits_opt(1), c.f32_mut(2));
    let total = block_sum(c.pool, g.rows, block_rows(g.cols), c.shared, |rows| {
        rows.fold(0.0, |sum, r| sum + row(g.row(r), trainable.map(|t| t.row(r))))
    });
    s.data[0] = total as f32;
}

pub(super) fn sumsq(c: &mut Call<'_>) {
    sumsq_by(c, row_sumsq);
}

/// Order: entry `j` into partial sum `j % 16`, those added in order. Frozen entries are not read into a sum.
fn row_sumsq(g: &[f32], bits: Option<&[u32]>) -> f64 {
    let mut lanes = [0.0f64; 16];
    for (at, g) in g.chunks(32).enumerate() {
        let word = bits.map_or(u32::MAX, |b| b[at]);
        let mut x = [0.0f32; 32];
        x[..g.len()].copy_from_slice(g);
        if word != u32::MAX {
            for (j, x) in x.iter_mut().enumerate() {
                *x = if word >> j & 1 == 1 { *x } else { 0.0 };
            }
        }
        for half in x.chunks_exact(16) {
            for (lane, x) in lanes.iter_mut().zip(half) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
    }
    lanes.iter().fold(0.0, |sum, x| sum + x)
}

/// Order: ascending, in f64.
pub(super) fn clip(c: &mut Call<'_>) {
    let s = c.f32(0);
    let max_norm = f64::from(c.dims.scalar_f32(0));
    let norm = s.data.iter().fold(0.0, |sum, x| sum + f64::from(*x)).sqrt();
    let factor = match max_norm > 0.0 && max_norm.is_finite() {
        true => (max_norm / (norm + 1e-6)).min(1.0),
        false => 1.0,
    };
    c.f32_mut(1).data[0] = norm as f32;
    c.f32_mut(2).data[0] = factor as f32;
}
