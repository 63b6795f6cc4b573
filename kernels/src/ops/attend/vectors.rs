//! Vectors along the width of a head; one task per sequence, keys and values read where they lie.
//!
//! ```text
//! s[p] = sum_j q[j] k[p, j]                lanes: j, halves onto halves at the end
//! s[p] = valid[p] ? exp(s[p] - max) : 0    lanes: p
//! y[i] = sum_p s[p] v[p, i] / sum          lanes: i, order: p ascending
//! ```

use super::sizes;
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::vmath::{Body, Simd, exp_nonpos};

/// Scores of one head, whole vectors, per worker.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    Scratch { shared: 0, worker: dims.size('t').next_multiple_of(16) }
}

pub(super) fn attend<S: Simd>(c: &mut Call<'_>) {
    let (q, kv, valid, y) = (c.f32(0), c.f32(1), c.u8(2), c.f32_mut(3));
    let (heads, t, d) = sizes(c.dims);
    c.pool.rows(y.split(), 1, c.workers, |first, mut y, scores| {
        for at in 0..y.rows {
            let b = first + at;
            let keys = Keys { kv, first: b * t, valid: valid.row(b) };
            for head in 0..heads {
                let own = head * d;
                let y = &mut y.row(at)[own..own + d];
                S::run(Head { q: &q.row(b)[own..own + d], keys, key: own, value: heads * d + own, scores, y });
            }
        }
    });
}

/// Keys and values of a sequence.
#[derive(Clone, Copy)]
struct Keys<'a> {
    kv: Mat<'a, f32>,
    /// Row of the first token.
    first: usize,
    valid: &'a [u8],
}

impl<'a> Keys<'a> {
    /// Positions and rows of the visible tokens, from a column on.
    #[inline(always)]
    fn visible(self, column: usize) -> impl Iterator<Item = (usize, &'a [f32])> {
        let seen = self.valid.iter().enumerate().filter(|(_, valid)| **valid != 0);
        seen.map(move |(p, _)| (p, &self.kv.row(self.first + p)[column..]))
    }
}

struct Head<'a> {
    q: &'a [f32],
    keys: Keys<'a>,
    /// First column of the keys, and of the values.
    key: usize,
    value: usize,
    scores: &'a mut [f32],
    y: &'a mut [f32],
}

impl Body for Head<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Head { q, keys, key, value, scores, y } = self;
        let d = q.len();
        let whole = d - d % S::WIDTH;
        scores.fill(f32::NEG_INFINITY);
        let scale = 1.0 / (d as f32).sqrt();
        for (p, key) in keys.visible(key) {
            let mut acc = s.splat(0.0);
            for at in (0..whole).step_by(S::WIDTH) {
                acc = s.madd(s.load(&q[at..]), s.load(&key[at..]), acc);
            }
            if whole < d {
                acc = s.madd(s.load_part(&q[whole..]), s.load_part(&key[whole..d]), acc);
            }
            scores[p] = s.sum(acc) * scale;
        }
        let mut top = s.splat(f32::NEG_INFINITY);
        for x in scores.chunks_exact(S::WIDTH) {
            top = s.max(s.load(x), top);
        }
        let down = s.splat(s.largest(top));
        let mut sum = s.splat(0.0);
        for x in scores.chunks_exact_mut(S::WIDTH) {
            let e = exp_nonpos(s, s.sub(s.load(x), down), s.splat(0.0));
            sum = s.add(sum, e);
            s.store(e, x);
        }
        let inverse = 1.0 / s.sum(sum);
        y.fill(0.0);
        // Four vectors at a time: a head of at most 64 is one pass over its values.
        for (at, part) in (0..d).step_by(4 * S::WIDTH).zip(y.chunks_mut(4 * S::WIDTH)) {
            let mut acc = [s.splat(0.0); 4];
            for (p, value) in keys.visible(value + at) {
                let weight = s.splat(scores[p] * inverse);
                for (acc, value) in acc.iter_mut().zip(value[..part.len()].chunks(S::WIDTH)) {
                    let v = if value.len() == S::WIDTH { s.load(value) } else { s.load_part(value) };
                    *acc = s.madd(weight, v, *acc);
                }
            }
            for (acc, y) in acc.iter().zip(part.chunks_mut(S::WIDTH)) {
                s.store_part(*acc, y);
            }
        }
    }
}
