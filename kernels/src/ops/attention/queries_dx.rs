//! Backward with queries in lanes, one task per head; probabilities are formed again from `stats`.
//!
//! ```text
//! p[p, q] = exp(k(p) q(q) / sqrt(d) - stats[q])                        visible keys of a chunk
//! g[p, q] = p[p, q] (factor[q, p] v(p) dy(q) - dy(q) y(q))             factor: 0 or 1 / (1 - drop)
//! dq(q) = sum_p g[p, q] k(p) / sqrt(d)
//! dk(p) = sum_q g[p, q] q(q) / sqrt(d)     dv(p) = sum_q p[p, q] factor[q, p] dy(q)
//! ```

use super::block::{
    CHUNK, FETCH, Head, OVERHANG, QUERIES, Rows, columns, copy, first_lane, kept_words, pitch, product, turn, values,
};
use super::queries::store_head;
use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::vmath::{Body, Simd, exp_nonpos};
use crate::par::{HeadMut, SplitHeads};

/// In the order in which `run` cuts it.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let wide = pitch(d);
    let keys = (t + OVERHANG) * (1 + 4 * wide);
    Scratch { shared: 0, worker: keys + 5 * QUERIES * wide + 2 * (CHUNK + OVERHANG) * QUERIES + kept_words(t) }
}

pub(super) fn backward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats, dy, dqkv) = (c.f32(3), c.f32(4), c.f32(5), c.f32_mut(6));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, .. } = shape;
    let workers = c.pool.workers();
    c.pool.rows(SplitHeads::new(dqkv, t, heads, 3), 1, c.workers, |task, dqkv, scratch| {
        let (sequence, head) = (task / heads, task % heads);
        let head = Head { shape, sequence, head, qkv, valid: valid.row(sequence), draw };
        S::run(Backward::<R, N> { head, next: head.next(workers, valid), y, stats, dy, dqkv, scratch });
    });
}

struct Backward<'a, const R: usize, const N: usize> {
    head: Head<'a>,
    next: Option<Head<'a>>,
    y: Mat<'a, f32>,
    stats: Mat<'a, f32>,
    dy: Mat<'a, f32>,
    dqkv: HeadMut<'a>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Backward<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { head, next, y, stats, dy, mut dqkv, scratch } = self;
        let Shape { t, d, .. } = head.shape;
        let (wide, block, scale) = (pitch(d), N * S::WIDTH, head.shape.scale());
        let own = head.shape.columns(0, head.head);
        let (at, rest) = scratch.split_at_mut(t + OVERHANG);
        let (k, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (v, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (dk, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (dv, rest) = rest.split_at_mut((t + OVERHANG) * wide);
        let (q_rows, rest) = rest.split_at_mut(QUERIES * wide);
        let (dy_rows, rest) = rest.split_at_mut(QUERIES * wide);
        let (q_turned, rest) = rest.split_at_mut(QUERIES * wide);
        let (dy_turned, rest) = rest.split_at_mut(QUERIES * wide);
        let (dq_turned, rest) = rest.split_at_mut(QUERIES * wide);
        let (p, rest) = rest.split_at_mut((CHUNK + OVERHANG) * QUERIES);
        let (g, kept) = rest.split_at_mut((CHUNK + OVERHANG) * QUERIES);
        let at: &mut [u32] = bytemuck::cast_slice_mut(at);
        let kept: &mut [u32] = bytemuck::cast_slice_mut(kept);
        let keys = head.gather(s, at, k, v);
        dk[..(keys + OVERHANG) * wide].fill(0.0);
        dv[..(keys + OVERHANG) * wide].fill(0.0);
        let mut fetched = 0;
        for first in (0..t).step_by(block) {
            let count = block.min(t - first);
            let seen = at[..keys].partition_point(|token| (*token as usize) < first + count);
            if seen == 0 {
                (first..first + count).for_each(|q| dqkv.row(q, 0).fill(0.0));
                continue;
            }
            // Per query: stats, and the product of dy and y as 16 partial sums.
            let (mut stat, mut partial, mut dy_y) = ([0.0; QUERIES], [0.0; 16 * QUERIES], [0.0; 16 * QUERIES]);
            for q in 0..count {
                let row = head.sequence * t + first + q;
                stat[q] = stats.row(row)[head.head];
                copy(s, &head.qkv.row(row)[own.clone()], &mut q_rows[q * wide..][..wide]);
                copy(s, &dy.row(row)[own.clone()], &mut dy_rows[q * wide..][..wide]);
                let mut sum = s.splat(0.0);
                for (dy, y) in dy_rows[q * wide..].chunks(S::WIDTH).zip(y.row(row)[own.clone()].chunks(S::WIDTH)) {
                    let y = if y.len() == S::WIDTH { s.load(y) } else { s.load_part(y) };
                    sum = s.madd(s.load(dy), y, sum);
                }
                s.store(sum, &mut partial[q * S::WIDTH..]);
            }
            turn(s, &partial, S::WIDTH, count, S::WIDTH, &mut dy_y, block);
            let (sums, rest) = dy_y.split_at_mut(block);
            for (i, x) in rest[..(S::WIDTH - 1) * block].iter().enumerate() {
                sums[i % block] += x;
            }
            turn(s, q_rows, wide, count, d, q_turned, block);
            turn(s, dy_rows, wide, count, d, dy_turned, block);
            if head.draw.is_some() {
                head.draw(s, first, count, at[seen - 1] as usize + 1, kept, block);
            }
            let last = at[seen - 1];
            dq_turned[..wide * block].fill(0.0);
            for chunk in (0..seen).step_by(CHUNK) {
                let at = &at[chunk..];
                let here = CHUNK.min(seen - chunk);
                for key in (0..here).step_by(R) {
                    for token in fetched..t.min(fetched + FETCH) {
                        fetch(s, next, y, dy, token);
                        for part in 0..3 {
                            s.fetch_to_write(dqkv.row(token, part));
                        }
                    }
                    fetched += FETCH;
                    let rows = (chunk + key) * wide;
                    let (p, g) = (&mut p[key * block..], &mut g[key * block..]);
                    let second = N == 2 && first_lane(at[key], first) >= S::WIDTH;
                    let skip = if second { S::WIDTH } else { 0 };
                    let tile = Tile {
                        head,
                        keys: &k[rows..],
                        values: &v[rows..],
                        at: &at[key..][..R],
                        last,
                        first: first + skip,
                        block,
                        q_turned: &q_turned[skip..],
                        dy_turned: &dy_turned[skip..],
                        stat: &stat[skip..],
                        dy_y: &sums[skip..],
                        kept: &kept[skip..],
                    };
                    match second {
                        true => tile.fill::<S, R, 1>(s, &mut p[skip..], &mut g[skip..]),
                        false => tile.fill::<S, R, N>(s, p, g),
                    }
                }
                let at = &at[..here];
                let rows = Rows { data: &k[chunk * wide..], wide, at };
                values::<S, R, N>(s, rows, g, first, dq_turned);
                columns::<S, R, N>(s, g, block, at, first, count, q_rows, wide, &mut dk[chunk * wide..]);
                columns::<S, R, N>(s, p, block, at, first, count, dy_rows, wide, &mut dv[chunk * wide..]);
            }
            turn(s, dq_turned, block, d, count, q_rows, wide);
            for (q, from) in q_rows.chunks_exact_mut(wide).enumerate().take(count) {
                multiply(s, from, scale);
                store_head(s, from, dqkv.row(first + q, 0));
            }
        }
        let mut key = 0;
        for token in 0..t {
            if head.valid[token] == 0 {
                // A hidden key takes no gradient, whatever its queries hold.
                dqkv.row(token, 1).fill(0.0);
                dqkv.row(token, 2).fill(0.0);
                continue;
            }
            let dk = &mut dk[key * wide..][..wide];
            multiply(s, dk, scale);
            store_head(s, dk, dqkv.row(token, 1));
            store_head(s, &dv[key * wide..][..wide], dqkv.row(token, 2));
            key += 1;
        }
    }
}

/// Asks for what a head reads of a token.
#[inline(always)]
fn fetch<S: Simd>(s: S, head: Option<Head<'_>>, y: Mat<'_, f32>, dy: Mat<'_, f32>, token: usize) {
    let Some(head) = head else { return };
    let (row, own) = (head.sequence * head.shape.t + token, head.shape.columns(0, head.head));
    head.fetch(s, token);
    s.fetch(&y.row(row)[own.clone()]);
    s.fetch(&dy.row(row)[own]);
}

#[inline(always)]
fn multiply<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    for x in x.chunks_exact_mut(S::WIDTH) {
        s.store(s.mul(s.load(x), s.splat(factor)), x);
    }
}

/// Some keys, and a block of queries from `first`.
struct Tile<'a> {
    head: Head<'a>,
    keys: &'a [f32],
    values: &'a [f32],
    at: &'a [u32],
    /// Token of the last key that any of the queries sees.
    last: u32,
    first: usize,
    block: usize,
    q_turned: &'a [f32],
    dy_turned: &'a [f32],
    stat: &'a [f32],
    dy_y: &'a [f32],
    kept: &'a [u32],
}

impl Tile<'_> {
    /// Probabilities with their factors to `p`, gradients of logits to `g`; zeros where a query does not see the key.
    #[inline(always)]
    fn fill<S: Simd, const R: usize, const N: usize>(&self, s: S, p: &mut [f32], g: &mut [f32]) {
        let Shape { d, .. } = self.head.shape;
        let (wide, block, zero) = (pitch(d), self.block, s.splat(0.0));
        let acc: [[S::V; N]; R] = product(s, self.keys, wide, d, self.q_turned, block);
        let scale = s.splat(self.head.shape.scale());
        for (r, acc) in acc.iter().enumerate() {
            let lane = first_lane(self.at[r], self.first);
            for (n, score) in acc.iter().enumerate() {
                let stat = s.load(&self.stat[n * S::WIDTH..]);
                let e = exp_nonpos(s, s.sub(s.mul(*score, scale), stat), zero);
                let e = s.upper(lane.saturating_sub(n * S::WIDTH), e, zero);
                s.store(e, &mut p[r * block + n * S::WIDTH..]);
            }
        }
        let acc: [[S::V; N]; R] = product(s, self.values, wide, d, self.dy_turned, block);
        for (r, acc) in acc.iter().enumerate() {
            let lane = first_lane(self.at[r], self.first);
            // Rows of a tile past the last key take the bits of the last one; theirs is nothing to keep.
            let token = self.at[r].min(self.last);
            for (n, dy_v) in acc.iter().enumerate() {
                let (at, mut dy_v) = (r * block + n * S::WIDTH, *dy_v);
                let (e, dy_y) = (s.load(&p[at..]), s.load(&self.dy_y[n * S::WIDTH..]));
                if let Some(draw) = self.head.draw {
                    let kept = &self.kept[token as usize / 32 * block + n * S::WIDTH..];
                    let factor = s.splat(draw.scale());
                    dy_v = s.keep_own(s.mul(dy_v, factor), kept, token % 32);
                    s.store(s.keep_own(s.mul(e, factor), kept, token % 32), &mut p[at..]);
                }
                let dlogit = s.mul(e, s.sub(dy_v, dy_y));
                s.store(s.upper(lane.saturating_sub(n * S::WIDTH), dlogit, zero), &mut g[at..]);
            }
        }
    }
}
