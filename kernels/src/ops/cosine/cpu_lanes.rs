//! Scores of a block of queries with the rows of a bank, 16 queries to a register.
//!
//! ```text
//! tile    G groups of 16 queries by R rows of the bank: G * R accumulators, as many as fit into the registers
//! chunk   rows of the bank that stay in the second-level cache while all queries of the block meet them
//! few     up to DOT_QUERIES queries: lanes along d instead, as many rows at a time as fill 16 sums
//! ```
//!
//! Lengths are taken once per row and block. A score does not depend on where blocks and chunks begin.

use super::cpu::LEAST;
use crate::operand::{Mat, MatMut};

/// Queries of one vector register.
pub(super) const LANES: usize = 16;
/// Queries that meet a chunk at a time: their lanes stay in the first-level cache at width 128.
pub(super) const BLOCK: usize = 64;
/// Most rows of a chunk; a multiple of all tile heights.
const CHUNK: usize = 480;
/// Elements of a chunk: 256 KiB.
const CHUNK_SIZE: usize = 1 << 16;
/// Up to this many queries a block takes dot products along `d`: that wastes less than empty lanes.
pub(super) const DOT_QUERIES: usize = 7;

/// One coordinate, or one score, of 16 queries.
pub(super) type Lane = [f32; LANES];

/// Where scores go. Rows of the bank arrive in index order for each query.
pub(super) trait Sink {
    /// The score of query `query` with row `j` of the bank.
    fn one(&mut self, query: usize, j: usize, score: f32);
    /// The scores of queries `16 * group..16 * group + 16`; those past the last query are 0.
    fn lane<A: Arith>(&mut self, group: usize, j: usize, scores: &Lane);
}

/// Writes every score.
pub(super) struct Store<'a>(pub(super) MatMut<'a, f32>);

impl Sink for Store<'_> {
    #[inline(always)]
    fn one(&mut self, query: usize, j: usize, score: f32) {
        self.0.row(query)[j] = score;
    }

    #[inline(always)]
    fn lane<A: Arith>(&mut self, group: usize, j: usize, scores: &Lane) {
        for (query, score) in (group * LANES..self.0.rows).zip(scores) {
            self.one(query, j, *score);
        }
    }
}

/// The inner loops, written once per instruction set.
pub(super) trait Arith {
    /// Dot products of `G` groups of queries and `R` rows, all of one length. Order: d ascending.
    fn tile<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R];

    /// Dot products of each row with `Q` queries and, last, with itself, all of one length: `Q + 1` values per row, at
    /// most 16 in all. Order: partial sums along `d`, whatever `Q` and `R`.
    fn sums<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> Lane;

    /// Asks for a row that is needed soon.
    #[inline(always)]
    fn prefetch(_row: &[f32]) {}

    /// True if a score is not at most its limit; NaN on either side counts.
    #[inline(always)]
    fn any_over(scores: &Lane, limit: &Lane) -> bool {
        !scores.iter().zip(limit).fold(true, |all, (s, l)| all & (s <= l))
    }

    /// Puts 16 scores into 16 descending lists, `list[rank][query]`: behind what is at least as large, before NaN.
    #[inline(always)]
    fn insert(list: &mut [Lane], index: &mut [[u32; LANES]], scores: &Lane, j: u32) {
        let mut scores = scores.map(|s| if s.is_nan() { f32::NEG_INFINITY } else { s });
        let mut indices = [j; LANES];
        // Behind the place of a score everything moves, equal or not.
        let mut moves = [false; LANES];
        for (list, index) in list.iter_mut().zip(index) {
            for l in 0..LANES {
                let stays = scores[l] <= list[l];
                moves[l] |= !stays;
                let (score, at) = (scores[l], indices[l]);
                (scores[l], indices[l]) = if moves[l] { (list[l], index[l]) } else { (score, at) };
                (list[l], index[l]) = if moves[l] { (score, at) } else { (list[l], index[l]) };
            }
        }
    }
}

/// Elements of workspace for `queries` queries, with room to align them.
pub(super) fn workspace(queries: usize, d: usize) -> usize {
    queries.next_multiple_of(LANES) * d + LANES
}

/// Scores of all `q` with all `p`.
#[inline(always)]
pub(super) fn sweep<A: Arith, const G: usize, const R: usize>(
    q: Mat<'_, f32>,
    p: Mat<'_, f32>,
    own: &mut [f32],
    sink: &mut impl Sink,
) {
    // A register that crosses a cache line costs two loads.
    let skip = own.as_ptr().align_offset(64).min(LANES);
    let own = &mut own[skip..];
    if q.rows <= DOT_QUERIES {
        return sweep_dots::<A>(q, p, own, sink);
    }
    let (d, groups) = (q.cols, q.rows.div_ceil(LANES));
    let lanes = &mut own.as_chunks_mut::<LANES>().0[..groups * d];
    copy_queries::<A>(q, lanes);
    let chunk = (CHUNK_SIZE / d.max(1)).clamp(2 * R, CHUNK) / R * R;
    for first in (0..p.rows).step_by(chunk) {
        let mut scales = [0.0; CHUNK];
        let end = p.rows.min(first + chunk);
        for block in (0..groups).step_by(BLOCK / LANES) {
            for j in (first..end).step_by(R) {
                // Past the end the last row is repeated and its scores are dropped.
                let rows: [&[f32]; R] = std::array::from_fn(|at| p.row((j + at).min(end - 1)));
                let scales = &mut scales[j - first..][..R];
                if block == 0 {
                    scales.iter_mut().zip(A::sums([], rows)).for_each(|(to, square)| *to = scale(square));
                    (0..R).for_each(|at| A::prefetch(p.row((j + R + at).min(p.rows - 1))));
                }
                let mut group = block;
                let last = groups.min(block + BLOCK / LANES);
                while group + G <= last {
                    let queries: [&[Lane]; G] = std::array::from_fn(|at| &lanes[(group + at) * d..][..d]);
                    emit::<A, G, R>(&A::tile(queries, rows), scales, group, j, end, sink);
                    group += G;
                }
                while group < last {
                    emit::<A, 1, R>(&A::tile([&lanes[group * d..][..d]], rows), scales, group, j, end, sink);
                    group += 1;
                }
            }
        }
    }
}

#[inline(always)]
fn emit<A: Arith, const G: usize, const R: usize>(
    sums: &[[Lane; G]; R],
    scales: &[f32],
    group: usize,
    j: usize,
    end: usize,
    sink: &mut impl Sink,
) {
    for (at, (sums, scale)) in sums.iter().zip(scales).enumerate().take(end - j) {
        for (g, sum) in sums.iter().enumerate() {
            // Not `map`: a closure stays a call, compiled without the vectors of its caller.
            let mut scores = [0.0; LANES];
            for l in 0..LANES {
                scores[l] = sum[l] * scale;
            }
            sink.lane::<A>(group + g, j + at, &scores);
        }
    }
}

/// What a vector is multiplied with to have length 1; one shorter than [`LEAST`] stays shorter than 1, zero stays zero.
#[inline(always)]
pub(super) fn scale_of<A: Arith>(row: &[f32]) -> f32 {
    scale(A::sums([], [row])[0])
}

/// The same from its dot product with itself.
#[inline(always)]
fn scale(square: f32) -> f32 {
    1.0 / square.sqrt().max(LEAST)
}

/// The queries, scaled to length 1, as `[group][d][16]`; lanes past the last query are zero.
#[inline(always)]
fn copy_queries<A: Arith>(q: Mat<'_, f32>, lanes: &mut [Lane]) {
    lanes.fill([0.0; LANES]);
    for i in 0..q.rows {
        let row = q.row(i);
        let scale = scale_of::<A>(row);
        let group = &mut lanes[i / LANES * q.cols..][..q.cols];
        for (lane, x) in group.iter_mut().zip(row) {
            lane[i % LANES] = x * scale;
        }
    }
}

/// The same for a few queries: each row of the bank is read once.
#[inline(always)]
fn sweep_dots<A: Arith>(q: Mat<'_, f32>, p: Mat<'_, f32>, own: &mut [f32], sink: &mut impl Sink) {
    let d = q.cols;
    for i in 0..q.rows {
        let row = q.row(i);
        let scale = scale_of::<A>(row);
        own[i * d..][..d].iter_mut().zip(row).for_each(|(to, x)| *to = x * scale);
    }
    let queries = Mat::dense(&own[..q.rows * d], q.rows, d);
    match q.rows {
        0 => {}
        // One copy of the loop where bytes count.
        _ if cfg!(tsn_small) => {
            (0..q.rows).for_each(|i| sweep_rows::<A, 1, 1>((queries.block(i, 1), i), p, sink));
        }
        1 => sweep_rows::<A, 1, 8>((queries, 0), p, sink),
        2 | 3 => sweep_rows::<A, 3, 4>((queries, 0), p, sink),
        _ => sweep_rows::<A, DOT_QUERIES, 2>((queries, 0), p, sink),
    }
}

/// Up to `Q` scaled queries, the first of which has a number, with `R` rows of the bank at a time.
#[inline(always)]
fn sweep_rows<A: Arith, const Q: usize, const R: usize>(
    (q, first): (Mat<'_, f32>, usize),
    p: Mat<'_, f32>,
    sink: &mut impl Sink,
) {
    // Past their end the last query and the last row are repeated and their scores are dropped.
    let queries: [&[f32]; Q] = std::array::from_fn(|i| q.row(i.min(q.rows - 1)));
    for j in (0..p.rows).step_by(R) {
        let rows: [&[f32]; R] = std::array::from_fn(|at| p.row((j + at).min(p.rows - 1)));
        let sums = A::sums(queries, rows);
        // All roots at a time: one after the other they take longer than the products.
        let mut scales = [0.0; R];
        for at in 0..R {
            scales[at] = scale(sums[at * (Q + 1) + Q]);
        }
        for (at, sums) in sums.chunks_exact(Q + 1).enumerate().take(R.min(p.rows - j)) {
            for (i, sum) in sums[..q.rows].iter().enumerate() {
                sink.one(first + i, j + at, sum * scales[at]);
            }
        }
    }
}

/// Plain Rust, without a fused multiply-add: where the instruction is missing it is a library call.
pub(super) struct Portable;

impl Arith for Portable {
    #[inline(always)]
    fn tile<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R] {
        let d = queries[0].len();
        let (queries, rows) = (queries.map(|q| &q[..d]), rows.map(|row| &row[..d]));
        let mut sums = [[[0.0; LANES]; G]; R];
        for at in 0..d {
            for (sums, row) in sums.iter_mut().zip(rows) {
                for (sum, query) in sums.iter_mut().zip(queries) {
                    sum.iter_mut().zip(query[at]).for_each(|(sum, x)| *sum += row[at] * x);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn sums<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> Lane {
        let mut sums = [0.0; LANES];
        for (sums, row) in sums.chunks_exact_mut(Q + 1).zip(rows) {
            sums.iter_mut().zip(queries).for_each(|(sum, query)| *sum = dot(query, row));
            sums[Q] = dot(row, row);
        }
        sums
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            sums[l] += sums[l + half];
        }
    }
    a_rest.iter().zip(b_rest).fold(sums[0], |sum, (x, y)| sum + x * y)
}
