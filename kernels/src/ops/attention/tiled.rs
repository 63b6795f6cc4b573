//! Forward in register tiles of `R` queries by `N` vectors of keys, one task per sequence.
//!
//! For each head the keys are transposed and the values copied into workspace, hidden ones as zeros. Then, for each
//! block of `R` queries: scores of all vectors of keys that any of them sees, softmax in place, product with the
//! values. Tiles above the diagonal are skipped, scores are never written to memory outside the workspace.
//!
//! ```text
//! s[r, p]  = sum_j q[r, j] kt[j, p]       lanes: p, order: j ascending
//! s[r, p]  = p <= q(r) and valid[p] ? exp(s[r, p] - max) : 0
//! y[r, i]  = sum_p s[r, p] v[p, i] / sum  lanes: i, order: p ascending, from the first valid key to q(r)
//! ```

use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::dropout::Draw;
use crate::ops::vmath::{Body, Simd, exp_nonpos};

/// Rows of a register tile, at most.
const MAX_ROWS: usize = 6;

/// Pitch of rows of scores: whole vectors of 16, and one more so that tiles may hang over.
pub(super) fn score_pitch(t: usize) -> usize {
    t.next_multiple_of(16) + 16
}

/// Pitch of rows of one head.
pub(super) fn head_pitch(d: usize) -> usize {
    d.next_multiple_of(16)
}

/// Words that hold the random halves of one row.
pub(super) fn draw_words(t: usize) -> usize {
    score_pitch(t) / 2 + 64
}

/// Transposed keys, values, scores of a tile, hidden flags, random words; per worker.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    let Shape { t, d, .. } = Shape::new(dims);
    let pitch = score_pitch(t);
    Scratch { shared: 0, worker: d * pitch + t * head_pitch(d) + MAX_ROWS * pitch + pitch + draw_words(t) }
}

pub(super) fn forward<S: Simd, const R: usize, const N: usize>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (c.f32(0), c.u8(1), c.u32_opt(2));
    let (y, stats) = (c.f32_mut(3), c.f32_mut(4));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let outputs = (y.split_groups(shape.t), stats.split_groups(shape.t));
    c.pool.rows(outputs, 1, c.workers, |sequence, (y, stats), scratch| {
        S::run(Sequence::<R, N> { shape, sequence, qkv, valid: valid.row(sequence), draw, y, stats, scratch });
    });
}

struct Sequence<'a, const R: usize, const N: usize> {
    shape: Shape,
    sequence: usize,
    qkv: Mat<'a, f32>,
    valid: &'a [u8],
    draw: Option<Draw>,
    y: MatMut<'a, f32>,
    stats: MatMut<'a, f32>,
    scratch: &'a mut [f32],
}

impl<const R: usize, const N: usize> Body for Sequence<'_, R, N> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sequence { shape, sequence, qkv, valid, draw, mut y, mut stats, scratch } = self;
        let Shape { heads, t, d } = shape;
        let (pitch, wide) = (score_pitch(t), head_pitch(d));
        let (kt, rest) = scratch.split_at_mut(d * pitch);
        let (v, rest) = rest.split_at_mut(t * wide);
        let (scores, rest) = rest.split_at_mut(MAX_ROWS * pitch);
        let (hidden, words) = rest.split_at_mut(pitch);
        let words: &mut [u32] = bytemuck::cast_slice_mut(words);
        let start = hide(valid, hidden);
        // Whole vectors of keys before the first valid one are skipped.
        let from = start / S::WIDTH * S::WIDTH;
        let any_hidden = valid[from..].contains(&0);
        for head in 0..heads {
            let rows = |part| (0..t).map(move |p| &qkv.row(sequence * t + p)[shape.columns(part, head)]);
            transpose(rows(1), valid, shape.scale(), kt, pitch);
            copy(rows(2), valid, 1.0, v, wide);
            for first in (0..t).step_by(R) {
                let count = R.min(t - first);
                let own = shape.columns(0, head);
                if first + count <= start {
                    for r in first..first + count {
                        y.row(r)[own.clone()].fill(0.0);
                        stats.row(r)[head] = 0.0;
                    }
                    continue;
                }
                let to = (first + count).next_multiple_of(S::WIDTH);
                // Rows past the end of the sequence repeat the last one and are not stored.
                let mut a: [&[f32]; R] = [&[]; R];
                for (r, a) in a.iter_mut().enumerate() {
                    *a = &qkv.row(sequence * t + (first + r).min(t - 1))[own.clone()];
                }
                product::<S, R, N>(s, a, kt, pitch, from..to, scores, pitch);
                let mut inverse = [0.0; R];
                for r in 0..count {
                    let q = first + r;
                    if q < start {
                        // No key is visible: a row of zeros times zero.
                        scores[r * pitch..][from..to].fill(0.0);
                        stats.row(q)[head] = 0.0;
                        continue;
                    }
                    let row = &mut scores[r * pitch..][..pitch];
                    row[q + 1..to].fill(f32::NEG_INFINITY);
                    let to = (q + 1).next_multiple_of(S::WIDTH);
                    let hidden = any_hidden.then_some(&hidden[from..to]);
                    let (top, sum) = softmax(s, &mut row[from..to], hidden);
                    stats.row(q)[head] = top + sum.ln();
                    inverse[r] = 1.0 / sum;
                    if let Some(draw) = draw {
                        inverse[r] = draw.scale() / sum;
                        drop_some(s, draw, shape.element(sequence, head, q) + from as u64, &mut row[from..to], words);
                    }
                }
                values::<S, R, N>(
                    s,
                    scores,
                    pitch,
                    start,
                    first,
                    count,
                    v,
                    wide,
                    d,
                    #[inline(always)]
                    |r, at, part| {
                        let to = &mut y.row(first + r)[own.clone()][at..at + part.len()];
                        to.iter_mut().zip(part).for_each(|(y, v)| *y = v * inverse[r]);
                    },
                );
            }
        }
    }
}

/// Writes what is added to the scores of each key: 0, or minus infinity for a hidden one. Returns the first valid key.
#[inline(always)]
pub(super) fn hide(valid: &[u8], hidden: &mut [f32]) -> usize {
    hidden.fill(0.0);
    valid.iter().zip(hidden).filter(|(valid, _)| **valid == 0).for_each(|(_, hidden)| *hidden = f32::NEG_INFINITY);
    valid.iter().position(|valid| *valid != 0).unwrap_or(valid.len())
}

/// Row `p` to column `p`, times `scale`; hidden rows as zeros.
#[inline(always)]
pub(super) fn transpose<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    valid: &[u8],
    scale: f32,
    to: &mut [f32],
    pitch: usize,
) {
    to.fill(0.0);
    for (p, (row, _)) in rows.zip(valid).enumerate().filter(|(_, (_, valid))| **valid != 0) {
        for (to, x) in to[p..].iter_mut().step_by(pitch).zip(row) {
            *to = x * scale;
        }
    }
}

/// Rows side by side, times `scale`, filled up with zeros; hidden rows as zeros.
#[inline(always)]
pub(super) fn copy<'a>(rows: impl Iterator<Item = &'a [f32]>, valid: &[u8], scale: f32, to: &mut [f32], pitch: usize) {
    for ((to, row), valid) in to.chunks_exact_mut(pitch).zip(rows).zip(valid) {
        let used = if *valid != 0 { row.len() } else { 0 };
        to[used..].fill(0.0);
        to[..used].iter_mut().zip(row).for_each(|(to, x)| *to = x * scale);
    }
}

/// `out[r, c] = sum_j a[r][j] b[j, c]` for columns `range`, whole vectors, and all `R` rows.
#[inline(always)]
pub(super) fn product<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: [&[f32]; R],
    b: &[f32],
    pitch: usize,
    range: std::ops::Range<usize>,
    out: &mut [f32],
    out_pitch: usize,
) {
    let mut at = range.start;
    while at < range.end {
        let vectors = ((range.end - at) / S::WIDTH).min(N);
        match vectors {
            1 => product_tile::<S, R, 1>(s, a, &b[at..], pitch, &mut out[at..], out_pitch),
            2 => product_tile::<S, R, 2>(s, a, &b[at..], pitch, &mut out[at..], out_pitch),
            3 => product_tile::<S, R, 3>(s, a, &b[at..], pitch, &mut out[at..], out_pitch),
            _ => product_tile::<S, R, N>(s, a, &b[at..], pitch, &mut out[at..], out_pitch),
        }
        at += vectors * S::WIDTH;
    }
}

#[inline(always)]
fn product_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: [&[f32]; R],
    b: &[f32],
    pitch: usize,
    out: &mut [f32],
    out_pitch: usize,
) {
    let mut acc = [[s.splat(0.0); N]; R];
    let depth = a[0].len();
    let a = a.map(
        #[inline(always)]
        |row| &row[..depth],
    );
    for j in 0..depth {
        let b = load_row::<S, N>(s, &b[j * pitch..]);
        for r in 0..R {
            let x = s.splat(a[r][j]);
            for k in 0..N {
                acc[r][k] = s.madd(x, b[k], acc[r][k]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        store_row(s, acc, &mut out[r * out_pitch..]);
    }
}

#[inline(always)]
fn load_row<S: Simd, const N: usize>(s: S, from: &[f32]) -> [S::V; N] {
    let from = &from[..N * S::WIDTH];
    let mut row = [s.splat(0.0); N];
    for k in 0..N {
        row[k] = s.load(&from[k * S::WIDTH..]);
    }
    row
}

#[inline(always)]
fn store_row<S: Simd, const N: usize>(s: S, row: &[S::V; N], to: &mut [f32]) {
    let to = &mut to[..N * S::WIDTH];
    for k in 0..N {
        s.store(row[k], &mut to[k * S::WIDTH..]);
    }
}

/// Exponentials of a row of scores minus their maximum, in place; returns the maximum and the sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, row: &mut [f32], hidden: Option<&[f32]>) -> (f32, f32) {
    let mut top = s.splat(f32::NEG_INFINITY);
    for (at, x) in row.chunks_exact_mut(S::WIDTH).enumerate() {
        let mut v = s.load(x);
        if let Some(hidden) = hidden {
            v = s.add(v, s.load(&hidden[at * S::WIDTH..]));
            s.store(v, x);
        }
        top = s.max(v, top);
    }
    let top = s.largest(top);
    let (mut sum, down) = (s.splat(0.0), s.splat(top));
    for x in row.chunks_exact_mut(S::WIDTH) {
        let e = exp_nonpos(s, s.sub(s.load(x), down), s.splat(0.0));
        sum = s.add(sum, e);
        s.store(e, x);
    }
    (top, s.sum(sum))
}

/// Zeros where the draw drops an element; the first of `row` has number `element`.
#[inline(always)]
fn drop_some<S: Simd>(s: S, draw: Draw, element: u64, row: &mut [f32], words: &mut [u32]) {
    let skip = draw.fill(element, row.len(), words);
    let halves: &[u16] = &bytemuck::cast_slice(words)[skip..];
    let threshold = draw.threshold().unwrap_or(u16::MAX);
    for (x, halves) in row.chunks_exact_mut(S::WIDTH).zip(halves.chunks_exact(S::WIDTH)) {
        s.store(s.keep(s.load(x), halves, threshold), x);
    }
}

/// `sum_p a[r, p] b[p, ..d]` over `start <= p <= first + r` for `count` rows, given to `done(r, column, part)`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two pitched matrices and a triangle")]
pub(super) fn values<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    pitch: usize,
    start: usize,
    first: usize,
    count: usize,
    b: &[f32],
    wide: usize,
    d: usize,
    mut done: impl FnMut(usize, usize, &[f32]),
) {
    let mut at = 0;
    while at < d {
        let vectors = (d - at).div_ceil(S::WIDTH).min(N);
        let mut out = [[0.0; 64]; R];
        match vectors {
            1 => values_tile::<S, R, 1>(s, a, pitch, start, first, count, &b[at..], wide, &mut out),
            2 => values_tile::<S, R, 2>(s, a, pitch, start, first, count, &b[at..], wide, &mut out),
            3 => values_tile::<S, R, 3>(s, a, pitch, start, first, count, &b[at..], wide, &mut out),
            _ => values_tile::<S, R, N>(s, a, pitch, start, first, count, &b[at..], wide, &mut out),
        }
        let n = (vectors * S::WIDTH).min(d - at);
        for (r, out) in out.iter().enumerate().take(count) {
            done(r, at, &out[..n]);
        }
        at += n;
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two pitched matrices and a triangle")]
fn values_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    pitch: usize,
    start: usize,
    first: usize,
    count: usize,
    b: &[f32],
    wide: usize,
    out: &mut [[f32; 64]; R],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    let mut rows: [&[f32]; R] = [&[]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &a[r * pitch..][..first + R];
    }
    for p in start..first + 1 {
        let b = load_row::<S, N>(s, &b[p * wide..]);
        for r in 0..R {
            let x = s.splat(rows[r][p]);
            for k in 0..N {
                acc[r][k] = s.madd(x, b[k], acc[r][k]);
            }
        }
    }
    for p in start.max(first + 1)..first + count {
        let b = load_row::<S, N>(s, &b[p * wide..]);
        for r in 1..R {
            if first + r >= p {
                let x = s.splat(rows[r][p]);
                for k in 0..N {
                    acc[r][k] = s.madd(x, b[k], acc[r][k]);
                }
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        store_row(s, acc, out);
    }
}

/// `out[r, ..] += sum_q a[q, p + r] b[q, ..]` over `q >= p + r` in `queries`; rows of `a` and `b` count from `strip`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "three pitched matrices and a triangle")]
pub(super) fn columns<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    pitch: usize,
    queries: std::ops::Range<usize>,
    strip: usize,
    p: usize,
    b: &[f32],
    wide: usize,
    d: usize,
    out: &mut [f32],
) {
    let mut at = 0;
    while at < d {
        let vectors = (d - at).div_ceil(S::WIDTH).min(N);
        let (b, out, queries) = (&b[at..], &mut out[at..], queries.clone());
        match vectors {
            1 => columns_tile::<S, R, 1>(s, a, pitch, queries, strip, p, b, wide, out),
            2 => columns_tile::<S, R, 2>(s, a, pitch, queries, strip, p, b, wide, out),
            3 => columns_tile::<S, R, 3>(s, a, pitch, queries, strip, p, b, wide, out),
            _ => columns_tile::<S, R, N>(s, a, pitch, queries, strip, p, b, wide, out),
        }
        at += vectors * S::WIDTH;
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "three pitched matrices and a triangle")]
fn columns_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    pitch: usize,
    queries: std::ops::Range<usize>,
    strip: usize,
    p: usize,
    b: &[f32],
    wide: usize,
    out: &mut [f32],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    for r in 0..R {
        acc[r] = load_row(s, &out[r * wide..]);
    }
    let whole = (p + R - 1).clamp(queries.start, queries.end);
    for q in queries.start..whole {
        let b = load_row::<S, N>(s, &b[(q - strip) * wide..]);
        let a = &a[(q - strip) * pitch + p..][..R];
        for r in 0..R {
            if p + r <= q {
                let x = s.splat(a[r]);
                for k in 0..N {
                    acc[r][k] = s.madd(x, b[k], acc[r][k]);
                }
            }
        }
    }
    for q in whole..queries.end {
        let b = load_row::<S, N>(s, &b[(q - strip) * wide..]);
        let a = &a[(q - strip) * pitch + p..][..R];
        for r in 0..R {
            let x = s.splat(a[r]);
            for k in 0..N {
                acc[r][k] = s.madd(x, b[k], acc[r][k]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        store_row(s, acc, &mut out[r * wide..]);
    }
}
