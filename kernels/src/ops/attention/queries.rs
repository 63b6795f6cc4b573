//! Forward with queries in lanes, one task per head; a running softmax over chunks of keys.
//!
//! ```text
//! s[p, q] = k(p) q(q) / sqrt(d)               visible keys of a chunk
//! top     = max(top, max_p s[p, q])           what was summed before shrinks by exp(old top - top)
//! e[p, q] = exp(s[p, q] - top)                sum += e
//! y[i, q] += v(p)[i] e[p, q] factor[q, p]     at the end over sum
//! ```

use super::block::{
    CHUNK, FETCH, Head, OVERHANG, QUERIES, Rows, first_lane, kept_words, load_row, pitch, product, turn, values,
};
use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;
use crate::ops::vmath::{Body, Simd, exp_nonpos};
use crate::par::{HeadMut, SplitHeads};

/// In the order in which `run` cuts it.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let wide = pitch(d);
    let keys = (t + OVERHANG) * (1 + 2 * wide);
    Scratch { shared: 0, worker: keys + 3 * QUERIES * wide + (CHUNK + OVERHANG) * QUERIES + kept_words(t) }
}

pub(super) fn forward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats) = (c.f32_mut(3), c.f32_mut(4));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, .. } = shape;
    let workers = c.pool.workers();
    let outputs = (SplitHeads::new(y, t, heads, 1), SplitHeads::new(stats, t, heads, 1));
    c.pool.rows(outputs, 1, c.workers, |task, (y, stats), scratch| {
        let (sequence, head) = (task / heads, task % heads);
        let head = Head { shape, sequence, head, qkv, valid: valid.row(sequence), draw };
        S::run(Forward::<R, N> { head, next: head.next(workers, valid), y, stats, scratch });
    });
}

struct Forward<'a, const R: usize, const N: usize> {
    head: Head<'a>,
    next: Option<Head<'a>>,
    y: HeadMut<'a>,
    stats: HeadMut<'a>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Forward<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { head, next, mut y, mut stats, scratch } = self;
        let Shape { t, d, .. } = head.shape;
        let (wide, block) = (pitch(d), N * S::WIDTH);
        let (at, rest) = scratch.split_at_mut(t + OVERHANG);
        let (k, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (v, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (q_turned, rest) = rest.split_at_mut(QUERIES * wide);
        let (y_turned, rest) = rest.split_at_mut(QUERIES * wide);
        let (y_rows, rest) = rest.split_at_mut(QUERIES * wide);
        let (scores, kept) = rest.split_at_mut((CHUNK + OVERHANG) * QUERIES);
        let at: &mut [u32] = bytemuck::cast_slice_mut(at);
        let kept: &mut [u32] = bytemuck::cast_slice_mut(kept);
        let keys = head.gather(s, at, k, v);
        let mut fetched = 0;
        for first in (0..t).step_by(block) {
            let count = block.min(t - first);
            let seen = at[..keys].partition_point(|token| (*token as usize) < first + count);
            if seen == 0 {
                for q in first..first + count {
                    y.row(q, 0).fill(0.0);
                    stats.row(q, 0).fill(0.0);
                }
                continue;
            }
            // Elements beyond the last query hold what they like; nothing of them is stored.
            let queries = &head.qkv.data[(head.sequence * t + first) * head.qkv.ld + head.head * d..];
            turn(s, queries, head.qkv.ld, count, d, q_turned, block);
            let scale = s.splat(head.shape.scale());
            for x in q_turned[..d * block].chunks_exact_mut(S::WIDTH) {
                s.store(s.mul(s.load(x), scale), x);
            }
            if head.draw.is_some() {
                head.draw(s, first, count, at[seen - 1] as usize + 1, kept, block);
            }
            y_turned[..wide * block].fill(0.0);
            // Finite, so that a query that sees nothing has differences of minus infinity, not NaN.
            let mut top = [s.splat(f32::MIN); N];
            let mut sum = [s.splat(0.0); N];
            for chunk in (0..seen).step_by(CHUNK) {
                let at = &at[chunk..];
                let here = CHUNK.min(seen - chunk);
                let before = top;
                for key in (0..here).step_by(R) {
                    for token in fetched..t.min(fetched + FETCH) {
                        if let Some(next) = next {
                            next.fetch(s, token);
                        }
                        s.fetch_to_write(y.row(token, 0));
                    }
                    fetched += FETCH;
                    let (k, scores) = (&k[(chunk + key) * wide..], &mut scores[key * block..]);
                    if N == 2 && first_lane(at[key], first) >= S::WIDTH {
                        let (q, top) = (&q_turned[S::WIDTH..], &mut top[N - 1..]);
                        let first = first + S::WIDTH;
                        tile::<S, R, 1>(s, k, wide, d, q, block, &at[key..], first, &mut scores[S::WIDTH..], top);
                    } else {
                        tile::<S, R, N>(s, k, wide, d, q_turned, block, &at[key..], first, scores, &mut top);
                    }
                }
                if chunk > 0 {
                    for n in 0..N {
                        let shrink = exp_nonpos(s, s.sub(before[n], top[n]), s.splat(0.0));
                        sum[n] = s.mul(sum[n], shrink);
                        for y in y_turned[..wide * block].chunks_exact_mut(block) {
                            let y = &mut y[n * S::WIDTH..];
                            s.store(s.mul(s.load(y), shrink), y);
                        }
                    }
                }
                for (scores, at) in scores.chunks_exact_mut(block).zip(&at[..here]) {
                    for n in 0..N {
                        if first_lane(*at, first + n * S::WIDTH) >= S::WIDTH {
                            continue;
                        }
                        let score = &mut scores[n * S::WIDTH..];
                        let mut e = exp_nonpos(s, s.sub(s.load(score), top[n]), s.splat(0.0));
                        sum[n] = s.add(sum[n], e);
                        if head.draw.is_some() {
                            e = s.keep_own(e, &kept[*at as usize / 32 * block + n * S::WIDTH..], *at % 32);
                        }
                        s.store(e, score);
                    }
                }
                let rows = Rows { data: &v[chunk * wide..], wide, at: &at[..here] };
                values::<S, R, N>(s, rows, scores, first, y_turned);
            }
            let factor = head.draw.map_or(1.0, |draw| draw.scale());
            for n in 0..N {
                let nothing = s.splat(f32::MIN_POSITIVE);
                let over = s.select_lt(sum[n], nothing, s.splat(0.0), s.div(s.splat(factor), sum[n]));
                for y in y_turned[..wide * block].chunks_exact_mut(block) {
                    let y = &mut y[n * S::WIDTH..];
                    s.store(s.mul(s.load(y), over), y);
                }
                let (mut tops, mut sums) = ([0.0; 16], [0.0; 16]);
                s.store(top[n], &mut tops);
                s.store(sum[n], &mut sums);
                for q in n * S::WIDTH..count.min((n + 1) * S::WIDTH) {
                    let (top, sum) = (tops[q % S::WIDTH], sums[q % S::WIDTH]);
                    stats.row(first + q, 0)[0] = if sum == 0.0 { 0.0 } else { top + sum.ln() };
                }
            }
            turn(s, y_turned, block, d, count, y_rows, wide);
            for (q, from) in y_rows.chunks_exact(wide).enumerate().take(count) {
                store_head(s, from, y.row(first + q, 0));
            }
        }
    }
}

/// Scores of `R` keys, minus infinity where a query does not see the key, and the largest so far.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a tile of a product, with what it is part of")]
fn tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    k: &[f32],
    wide: usize,
    d: usize,
    q_turned: &[f32],
    block: usize,
    at: &[u32],
    first: usize,
    scores: &mut [f32],
    top: &mut [S::V],
) {
    let mut acc: [[S::V; N]; R] = product(s, k, wide, d, q_turned, block);
    let at = &at[..R];
    for n in 0..N {
        let first = first + n * S::WIDTH;
        let mut largest = top[n];
        for r in 0..R {
            acc[r][n] = s.upper(first_lane(at[r], first), acc[r][n], s.splat(f32::NEG_INFINITY));
            largest = s.max(acc[r][n], largest);
        }
        top[n] = largest;
    }
    for r in 0..R {
        super::block::store_row(s, &acc[r], &mut scores[r * block..]);
    }
}

/// The elements of a padded row that there are.
#[inline(always)]
pub(super) fn store_head<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks_exact(S::WIDTH).zip(to.chunks_mut(S::WIDTH)) {
        let [v]: [S::V; 1] = load_row(s, from);
        if to.len() == S::WIDTH { s.store(v, to) } else { s.store_part(v, to) }
    }
}
