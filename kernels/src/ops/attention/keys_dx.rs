//! Backward with keys in lanes, one task per head; probabilities are formed again from `stats`.
//!
//! ```text
//! p[q, p] = exp(q(q) k(p) / sqrt(d) - stats[q])                        visible keys of a chunk
//! g[q, p] = p[q, p] (factor[q, p] v(p) dy(q) - dy(q) y(q))             factor: 0 or 1 / (1 - drop)
//! dq(q) = sum_p g[q, p] k(p) / sqrt(d)
//! dk(p) = sum_q g[q, p] q(q) / sqrt(d)     dv(p) = sum_q p[q, p] factor[q, p] dy(q)
//! ```

use super::block::{
    CHUNK, Head, ROWS, copy_len, gathered, of_vector, pitch, product, store_head, turn, up_to, weighted,
};
use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::vmath::{Body, Simd, exp_nonpos};
use crate::par::{HeadMut, SplitHeads};

/// In the order in which `run` cuts it.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let (wide, rows) = (pitch(d), t.next_multiple_of(ROWS));
    let sums = (rows + 2 * CHUNK) * wide + rows;
    Scratch { shared: 0, worker: sums + 2 * CHUNK * d + 4 * copy_len(t, d) + 2 * ROWS * CHUNK }
}

pub(super) fn backward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats, dy, dqkv) = (c.f32(3), c.f32(4), c.f32(5), c.f32_mut(6));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, .. } = shape;
    let workers = c.pool.workers();
    c.pool.rows(SplitHeads::new(dqkv, t, heads, 3), 1, c.workers, |task, dqkv, scratch| {
        if let Some(head) = Head::new(shape, task, valid, draw) {
            let next = head.next(workers, valid);
            S::run(Backward::<R, N> { head, next, qkv, y, stats, dy, dqkv, scratch });
        }
    });
}

struct Backward<'a, const R: usize, const N: usize> {
    head: Head<'a>,
    next: Option<Head<'a>>,
    qkv: Mat<'a, f32>,
    y: Mat<'a, f32>,
    stats: Mat<'a, f32>,
    dy: Mat<'a, f32>,
    dqkv: HeadMut<'a>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Backward<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { head, next, qkv, y, stats, dy, mut dqkv, scratch } = self;
        let Shape { t, d, .. } = head.shape;
        let (wide, copied, rows) = (pitch(d), copy_len(t, d), t.next_multiple_of(ROWS));
        let (dq, rest) = scratch.split_at_mut(rows * wide);
        let (dk, rest) = rest.split_at_mut(CHUNK * wide);
        let (dv, rest) = rest.split_at_mut(CHUNK * wide);
        let (keys_turned, rest) = rest.split_at_mut(CHUNK * d);
        let (values_turned, rest) = rest.split_at_mut(CHUNK * d);
        let (p, rest) = rest.split_at_mut(ROWS * CHUNK);
        let (g, rest) = rest.split_at_mut(ROWS * CHUNK);
        let (dy_y, rest) = rest.split_at_mut(rows);
        let (q, rest) = rest.split_at_mut(copied);
        let (keys, rest) = rest.split_at_mut(copied);
        let (values, dys) = rest.split_at_mut(copied);
        let dys = &mut dys[..copied];
        let (q, keys, values) = (head.rows(s, qkv, 0, q), head.rows(s, qkv, 1, keys), head.rows(s, qkv, 2, values));
        let dys = head.rows(s, dy, 0, dys);
        let (draw, factor) = (head.draw.is_some(), s.splat(head.draw.map_or(1.0, |draw| draw.scale())));
        let scale = s.splat(head.shape.scale());
        dq.fill(0.0);
        for chunk in (0..t).step_by(CHUNK) {
            let (valid, in_chunk) = (head.valid_bits(chunk), CHUNK.min(t - chunk));
            turn(s, keys.from(chunk), in_chunk, d, keys_turned);
            turn(s, values.from(chunk), in_chunk, d, values_turned);
            dk.fill(0.0);
            dv.fill(0.0);
            for first in (chunk..t).step_by(R) {
                let count = R.min(t - first);
                if chunk == 0 {
                    for (query, dy_y) in dy_y.iter_mut().enumerate().skip(first).take(count) {
                        let mut sum = s.splat(0.0);
                        let (dy, y) = (head.row(dy, query, 0), head.row(y, query, 0));
                        for (dy, y) in dy.chunks(S::WIDTH).zip(y.chunks(S::WIDTH)) {
                            sum = match dy.len() == S::WIDTH {
                                true => s.madd(s.load(dy), s.load(y), sum),
                                false => s.madd(s.load_part(dy), s.load_part(y), sum),
                            };
                        }
                        *dy_y = s.sum(sum);
                        (0..3).for_each(|part| s.fetch_to_write(dqkv.row(query, part)));
                    }
                }
                if valid & up_to(first + count - 1, chunk) == 0 {
                    continue;
                }
                let (q, dys, dq) = (q.from(first), dys.from(first), &mut dq[first * wide..][..R * wide]);
                let vectors = CHUNK.min(first + count - chunk).div_ceil(S::WIDTH);
                product::<S, R, N>(s, q, count, keys_turned, vectors, p);
                if let Some(next) = next.filter(|_| chunk == 0) {
                    for token in first..first + count {
                        (0..3).for_each(|part| s.fetch(next.row(qkv, token, part)));
                    }
                }
                product::<S, R, N>(s, dys, count, values_turned, vectors, g);
                if let Some(next) = next.filter(|_| chunk == 0) {
                    for token in first..first + count {
                        s.fetch(next.row(y, token, 0));
                        s.fetch(next.row(dy, token, 0));
                    }
                }
                let mut kept = [u64::MAX; R];
                if draw {
                    head.draw(s, first, count, chunk, &mut kept);
                }
                for row in 0..R {
                    let (mut visible, mut stat, mut own) = (0, 0.0, 0.0);
                    if row < count {
                        visible = valid & up_to(first + row, chunk);
                        stat = stats.row(head.sequence * t + first + row)[head.head];
                        own = dy_y[first + row];
                    }
                    let (stat, own) = (s.splat(stat), s.splat(own));
                    let (p, g) = (&mut p[row * CHUNK..][..CHUNK], &mut g[row * CHUNK..][..CHUNK]);
                    let vectors = p.chunks_exact_mut(S::WIDTH).zip(g.chunks_exact_mut(S::WIDTH)).take(vectors);
                    for (n, (p, g)) in vectors.enumerate() {
                        let visible = of_vector::<S>(visible, n);
                        let score = s.sub(s.mul(s.load(p), scale), stat);
                        let e = s.keep(exp_nonpos(s, score, s.splat(0.0)), visible);
                        let (mut given, mut dp) = (e, s.load(g));
                        if draw {
                            let kept = of_vector::<S>(kept[row], n);
                            given = s.keep(s.mul(e, factor), kept);
                            dp = s.keep(s.mul(dp, factor), kept);
                        }
                        s.store(given, p);
                        s.store(s.keep(s.mul(s.mul(e, s.sub(dp, own)), scale), visible), g);
                    }
                }
                weighted::<S, R, N>(s, g, keys.from(chunk), valid, first - chunk, wide, dq);
                let (whole, diagonal) = (CHUNK.min(first - chunk), chunk + CHUNK > first);
                gathered::<S, R, N>(s, g, q, count, whole, diagonal, wide, dk);
                gathered::<S, R, N>(s, p, dys, count, whole, diagonal, wide, dv);
            }
            for (at, token) in (chunk..t.min(chunk + CHUNK)).enumerate() {
                for (part, from) in [(1, &dk), (2, &dv)] {
                    match valid >> at & 1 {
                        1 => store_head(s, &from[at * wide..][..wide], 1.0, dqkv.row(token, part)),
                        // A hidden key takes no gradient, whatever its queries hold.
                        _ => dqkv.row(token, part).fill(0.0),
                    }
                }
            }
        }
        for (query, dq) in dq.chunks_exact(wide).enumerate().take(t) {
            store_head(s, dq, 1.0, dqkv.row(query, 0));
        }
    }
}
