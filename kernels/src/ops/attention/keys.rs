//! Forward with keys in lanes, one task per head; a running softmax over chunks of keys.
//!
//! ```text
//! s[q, p] = q(q) k(p) / sqrt(d)               visible keys of a chunk
//! top     = max(top, max_p s[q, p])           what was summed before shrinks by exp(old top - top)
//! e[q, p] = exp(s[q, p] - top)                sum += e
//! y[q, i] += e[q, p] factor[q, p] v(p)[i]     at the end over sum
//! ```

use super::block::{CHUNK, Head, ROWS, copy_len, of_vector, pitch, product, store_head, turn, up_to, weighted};
use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::vmath::{Body, Simd, exp_nonpos};
use crate::par::{HeadMut, SplitHeads};

/// In the order in which `run` cuts it.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let rows = t.next_multiple_of(CHUNK);
    Scratch { shared: 0, worker: rows * d + 3 * copy_len(t, d) + ROWS * (pitch(d) + CHUNK) + 2 * (rows / CHUNK) }
}

pub(super) fn forward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats) = (c.f32_mut(3), c.f32_mut(4));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, .. } = shape;
    let workers = c.pool.workers();
    let outputs = (SplitHeads::new(y, t, heads, 1), SplitHeads::new(stats, t, heads, 1));
    c.pool.rows(outputs, 1, c.workers, |task, (y, stats), scratch| {
        if let Some(head) = Head::new(shape, task, valid, draw) {
            let next = head.next(workers, valid);
            S::run(Forward::<R, N> { head, next, qkv, y, stats, scratch });
        }
    });
}

struct Forward<'a, const R: usize, const N: usize> {
    head: Head<'a>,
    next: Option<Head<'a>>,
    qkv: Mat<'a, f32>,
    y: HeadMut<'a>,
    stats: HeadMut<'a>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Forward<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { head, next, qkv, mut y, mut stats, scratch } = self;
        let Shape { t, d, .. } = head.shape;
        let (wide, copied, rows) = (pitch(d), copy_len(t, d), t.next_multiple_of(CHUNK));
        let (keys_turned, rest) = scratch.split_at_mut(rows * d);
        let (q, rest) = rest.split_at_mut(copied);
        let (keys, rest) = rest.split_at_mut(copied);
        let (values, rest) = rest.split_at_mut(copied);
        let (out, rest) = rest.split_at_mut(ROWS * wide);
        let (scores, valid) = rest.split_at_mut(ROWS * CHUNK);
        let valid: &mut [[u32; 2]] = bytemuck::cast_slice_mut(&mut valid[..2 * (rows / CHUNK)]);
        let (q, keys, values) = (head.rows(s, qkv, 0, q), head.rows(s, qkv, 1, keys), head.rows(s, qkv, 2, values));
        for (at, first) in (0..t).step_by(CHUNK).enumerate() {
            let bits = head.valid_bits(first);
            valid[at] = [bits as u32, (bits >> 32) as u32];
            turn(s, keys.from(first), CHUNK.min(t - first), d, &mut keys_turned[first * d..][..CHUNK * d]);
        }
        let scale = s.splat(head.shape.scale());
        for first in (0..t).step_by(R) {
            let count = R.min(t - first);
            out[..R * wide].fill(0.0);
            for token in first..first + count {
                s.fetch_to_write(y.row(token, 0));
            }
            // Finite, so that a query that sees nothing has differences of minus infinity, not NaN.
            let (mut top, mut sum) = ([f32::MIN; R], [0.0f32; R]);
            for chunk in (0..first + count).step_by(CHUNK) {
                let [low, high] = valid[chunk / CHUNK];
                let valid = u64::from(high) << 32 | u64::from(low);
                if valid & up_to(first + count - 1, chunk) == 0 {
                    continue;
                }
                let vectors = CHUNK.min(first + count - chunk).div_ceil(S::WIDTH);
                product::<S, R, N>(s, q.from(first), count, &keys_turned[chunk * d..][..CHUNK * d], vectors, scores);
                if let Some(next) = next.filter(|_| chunk == 0) {
                    for token in first..first + count {
                        (0..3).for_each(|part| s.fetch(next.row(qkv, token, part)));
                    }
                }
                let mut kept = [u64::MAX; R];
                if head.draw.is_some() {
                    head.draw(s, first, count, chunk, &mut kept);
                }
                for (row, scores) in scores.chunks_exact_mut(CHUNK).enumerate().take(R) {
                    let visible = if row < count { valid & up_to(first + row, chunk) } else { 0 };
                    let before = top[row];
                    let mut largest = s.splat(before);
                    for (n, scores) in scores.chunks_exact_mut(S::WIDTH).enumerate().take(vectors) {
                        let score = s.mul(s.load(scores), scale);
                        s.store(score, scores);
                        let score = s.select(of_vector::<S>(visible, n), score, s.splat(before));
                        largest = s.max(score, largest);
                    }
                    top[row] = s.largest(largest);
                    let (shift, mut total) = (s.splat(top[row]), s.splat(0.0));
                    for (n, scores) in scores.chunks_exact_mut(S::WIDTH).enumerate().take(vectors) {
                        let e = exp_nonpos(s, s.sub(s.load(scores), shift), s.splat(0.0));
                        let e = s.keep(e, of_vector::<S>(visible, n));
                        total = s.add(total, e);
                        s.store(s.keep(e, of_vector::<S>(kept[row], n)), scores);
                    }
                    if chunk > 0 && top[row] > before {
                        let shrink = exp_nonpos(s, s.splat(before - top[row]), s.splat(0.0));
                        sum[row] *= s.largest(shrink);
                        for y in out[row * wide..][..wide].chunks_exact_mut(S::WIDTH) {
                            s.store(s.mul(s.load(y), shrink), y);
                        }
                    }
                    sum[row] += s.sum(total);
                }
                weighted::<S, R, N>(s, scores, values.from(chunk), valid, first - chunk, wide, out);
            }
            let factor = head.draw.map_or(1.0, |draw| draw.scale());
            for row in 0..count {
                // NaN is not zero: it goes on.
                let nothing = sum[row] == 0.0;
                stats.row(first + row, 0)[0] = if nothing { 0.0 } else { top[row] + sum[row].ln() };
                let over = if nothing { 0.0 } else { factor / sum[row] };
                store_head(s, &out[row * wide..][..wide], over, y.row(first + row, 0));
            }
        }
    }
}
