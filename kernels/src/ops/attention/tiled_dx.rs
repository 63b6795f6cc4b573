//! Backward with the tiles of the forward pass, one task per sequence.
//!
//! Queries go in strips, so that the workspace stays bounded: probabilities `p` and logit gradients `g` of a strip are
//! formed as in forward, `dq` is their product with the keys, and `dk` and `dv` grow by the strip's products.
//!
//! ```text
//! p[q, j] = exp(q(q) k(j) / sqrt(d) - stats[q])                  visible keys, else 0
//! g[q, j] = p[q, j] (factor[q, j] dy[q] v(j) - dy[q] y[q])       factor: 0 or 1 / (1 - drop)
//! dq[q] = sum_j g[q, j] k(j) / sqrt(d)     dk[j] = sum_q g[q, j] q(q) / sqrt(d)     dv[j] = sum_q p factor dy[q]
//! ```

use super::tiled::{columns, copy, draw_words, head_pitch, hide, product, score_pitch, transpose, values};
use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::dropout::Draw;
use crate::ops::vmath::{Body, Simd, exp_nonpos};

/// Queries of a strip: a multiple of the rows of every tile.
const STRIP: usize = 60;
/// Rows that the last tile of `dk` and `dv` may hang over.
const OVERHANG: usize = 6;

/// In the order in which `run` cuts it.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let (pitch, wide) = (score_pitch(t), head_pitch(d));
    let turned = 2 * d * pitch + t * wide;
    let strips = 2 * STRIP * (pitch + wide);
    let sums = 2 * (t + OVERHANG) * wide;
    Scratch { shared: 0, worker: turned + strips + sums + pitch + draw_words(t) }
}

pub(super) fn backward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats, dy, dqkv) = (c.f32(3), c.f32(4), c.f32(5), c.f32_mut(6));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    c.pool.rows(dqkv.split_groups(shape.t), 1, c.workers, |sequence, dqkv, scratch| {
        let valid = valid.row(sequence);
        S::run(Sequence::<R, N> { shape, sequence, qkv, valid, draw, y, stats, dy, dqkv, scratch });
    });
}

struct Sequence<'a, const R: usize, const N: usize> {
    shape: Shape,
    sequence: usize,
    qkv: Mat<'a, f32>,
    valid: &'a [u8],
    draw: Option<Draw>,
    y: Mat<'a, f32>,
    stats: Mat<'a, f32>,
    dy: Mat<'a, f32>,
    dqkv: MatMut<'a, f32>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Sequence<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sequence { shape, sequence, qkv, valid, draw, y, stats, dy, mut dqkv, scratch } = self;
        let Shape { heads, t, d } = shape;
        let (pitch, wide) = (score_pitch(t), head_pitch(d));
        let (kt, rest) = scratch.split_at_mut(d * pitch);
        let (vt, rest) = rest.split_at_mut(d * pitch);
        let (k, rest) = rest.split_at_mut(t * wide);
        let (p, rest) = rest.split_at_mut(STRIP * pitch);
        let (g, rest) = rest.split_at_mut(STRIP * pitch);
        let (q_strip, rest) = rest.split_at_mut(STRIP * wide);
        let (dy_strip, rest) = rest.split_at_mut(STRIP * wide);
        let (dk, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (dv, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (hidden, words) = rest.split_at_mut(pitch);
        let words: &mut [u32] = bytemuck::cast_slice_mut(words);
        let start = hide(valid, hidden);
        let from = start / S::WIDTH * S::WIDTH;
        let base = sequence * t;
        for head in 0..heads {
            let own = shape.columns(0, head);
            let rows = |part| (0..t).map(move |p| &qkv.row(base + p)[shape.columns(part, head)]);
            transpose(rows(1), valid, shape.scale(), kt, pitch);
            transpose(rows(2), valid, 1.0, vt, pitch);
            copy(rows(1), valid, shape.scale(), k, wide);
            dk.fill(0.0);
            dv.fill(0.0);
            for strip in (0..t).step_by(STRIP) {
                let end = t.min(strip + STRIP);
                let queries = || base + strip..base + end;
                let all = &[1u8; STRIP];
                copy(queries().map(|row| &qkv.row(row)[own.clone()]), all, 1.0, q_strip, wide);
                copy(queries().map(|row| &dy.row(row)[own.clone()]), all, 1.0, dy_strip, wide);
                for first in (strip..end).step_by(R) {
                    let count = R.min(t - first);
                    let to = (first + count).next_multiple_of(S::WIDTH);
                    let at = first - strip;
                    if first + count > start {
                        let mut a: [&[f32]; R] = [&[]; R];
                        let mut b: [&[f32]; R] = [&[]; R];
                        for r in 0..R {
                            let row = (first + r).min(t - 1) - strip;
                            a[r] = &q_strip[row * wide..][..d];
                            b[r] = &dy_strip[row * wide..][..d];
                        }
                        product::<S, R, N>(s, a, kt, pitch, from..to, &mut p[at * pitch..], pitch);
                        product::<S, R, N>(s, b, vt, pitch, from..to, &mut g[at * pitch..], pitch);
                    }
                    for q in (first..first + count).filter(|q| *q >= start) {
                        let row = base + q;
                        let p = &mut p[(q - strip) * pitch..][..pitch];
                        p[q + 1..to].fill(f32::NEG_INFINITY);
                        let range = from..(q + 1).next_multiple_of(S::WIDTH);
                        let g = &mut g[(q - strip) * pitch..][range.clone()];
                        let dy_y = dot(s, &dy.row(row)[own.clone()], &y.row(row)[own.clone()]);
                        let halves: &[u16] = match draw {
                            Some(draw) => {
                                let element = shape.element(sequence, head, q) + from as u64;
                                let skip = draw.fill(element, range.len(), words);
                                &bytemuck::cast_slice(words)[skip..]
                            }
                            None => &[],
                        };
                        let hidden = &hidden[range.clone()];
                        probabilities(s, &mut p[range], g, hidden, stats.row(row)[head], dy_y, draw, halves);
                    }
                    values::<S, R, N>(
                        s,
                        &g[at * pitch..],
                        pitch,
                        start,
                        first,
                        count,
                        k,
                        wide,
                        d,
                        #[inline(always)]
                        |r, at, part| {
                            dqkv.row(first + r)[own.clone()][at..at + part.len()].copy_from_slice(part);
                        },
                    );
                }
                for key in (start..end).step_by(R) {
                    let queries = key.max(strip)..end;
                    let (dk, dv) = (&mut dk[key * wide..], &mut dv[key * wide..]);
                    columns::<S, R, N>(s, g, pitch, queries.clone(), strip, key, q_strip, wide, d, dk);
                    columns::<S, R, N>(s, p, pitch, queries, strip, key, dy_strip, wide, d, dv);
                }
            }
            for (key, valid) in valid.iter().enumerate() {
                // A hidden key takes no gradient, whatever its queries hold.
                for (part, sums, scale) in [(1, &*dk, shape.scale()), (2, &*dv, 1.0)] {
                    let to = &mut dqkv.row(key)[shape.columns(part, head)];
                    match valid {
                        0 => to.fill(0.0),
                        _ => to.iter_mut().zip(&sums[key * wide..]).for_each(|(to, x)| *to = x * scale),
                    }
                }
            }
        }
    }
}

/// Scores to dropped probabilities in `p`, products `dy v` to logit gradients in `g`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one row of everything")]
fn probabilities<S: Simd>(
    s: S,
    p: &mut [f32],
    g: &mut [f32],
    hidden: &[f32],
    stat: f32,
    dy_y: f32,
    draw: Option<Draw>,
    halves: &[u16],
) {
    let (stat, dy_y) = (s.splat(stat), s.splat(dy_y));
    for (at, (p, g)) in p.chunks_exact_mut(S::WIDTH).zip(g.chunks_exact_mut(S::WIDTH)).enumerate() {
        let at = at * S::WIDTH;
        let score = s.add(s.load(p), s.load(&hidden[at..]));
        let e = exp_nonpos(s, s.sub(score, stat), s.splat(0.0));
        let (mut dropped, mut dy_v) = (e, s.load(g));
        if let Some(draw) = draw {
            let (scale, threshold) = (s.splat(draw.scale()), draw.threshold().unwrap_or(u16::MAX));
            dropped = s.keep(s.mul(dropped, scale), &halves[at..], threshold);
            dy_v = s.keep(s.mul(dy_v, scale), &halves[at..], threshold);
        }
        s.store(dropped, p);
        s.store(s.mul(e, s.sub(dy_v, dy_y)), g);
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(S::WIDTH).zip(b.chunks(S::WIDTH)) {
        let whole = a.len() == S::WIDTH;
        let (a, b) = if whole { (s.load(a), s.load(b)) } else { (s.load_part(a), s.load_part(b)) };
        sum = s.madd(a, b, sum);
    }
    s.sum(sum)
}
