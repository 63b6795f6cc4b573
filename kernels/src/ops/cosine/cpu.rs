//! CPU code.
//!
//! ```text
//! op      cosine, cosine_topk    y = <q, p> / (max(|q|, 1e-8) max(|p|, 1e-8)); the k largest of each row
//! args    q f32[n,d]  p f32[m,d]  ->  y f32[n,m]   or   score f32[n,k]  index u32[n,k]
//! layout  row major; the queries of a block are copied to [group][d][16], one lane per query, scaled to length 1
//! launch  one task per block of 64 queries (32 if there are at most 64); the bank is streamed once per block
//! order   lanes: d ascending, one accumulator per score; up to DOT_QUERIES queries: partial sums along d, folded pairwise
//! tol     twice the error of the plain f32 loop against f64, plus 1e-5 of the largest value
//! cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d) bytes and the outputs; the score matrix of cosine_topk is never written
//! source  definition; fused selection as in facebookresearch/faiss: a running threshold per query
//! ```

use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};

/// Smallest length a vector is divided by.
const LEAST: f32 = 1e-8;
/// Queries of one vector register.
pub(super) const LANES: usize = 16;
/// Most queries of a block.
const BLOCK: usize = 64;
/// Up to this many queries a block takes one dot product at a time: lanes along `d` waste less than empty lanes.
const DOT_QUERIES: usize = 7;

/// One coordinate, or one score, of 16 queries.
pub(super) type Lane = [f32; LANES];

pub(super) fn cosine(c: &mut Call<'_>) {
    let (q, p, y) = (c.f32(0), c.f32(1), c.f32_mut(2));
    c.pool.rows(y.split(), 8, &mut [], |first, mut y, _| {
        for i in 0..y.rows {
            plain_row(q.row(first + i), p, |j, score| y.row(i)[j] = score);
        }
    });
}

pub(super) fn cosine_topk(c: &mut Call<'_>) {
    let (q, p, score, index) = (c.f32(0), c.f32(1), c.f32_mut(2), c.u32_mut(3));
    c.pool.rows((score.split(), index.split()), 8, &mut [], |first, (mut score, mut index), _| {
        for i in 0..score.rows {
            plain_row(q.row(first + i), p, |j, s| {
                insert(score.row(i), index.row(i), j, s);
            });
        }
    });
}

/// Cosines of one query with every row of `p`, by the plain f32 loop.
fn plain_row(q: &[f32], p: Mat<'_, f32>, mut emit: impl FnMut(usize, f32)) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + x * y);
    let length = dot(q, q).sqrt().max(LEAST);
    for j in 0..p.rows {
        let row = p.row(j);
        emit(j, dot(q, row) / (length * dot(row, row).sqrt().max(LEAST)));
    }
}

/// Puts candidate `j` into a descending list that has seen candidates `0..j`; the smallest score kept once the list is
/// full. Candidates come in index order, so behind its equals is where the lower index wins.
fn insert(score: &mut [f32], index: &mut [u32], j: usize, s: f32) -> Option<f32> {
    let s = if s.is_nan() { f32::NEG_INFINITY } else { s };
    let k = score.len();
    let held = j.min(k);
    let at = score[..held].partition_point(|v| *v >= s);
    if at < k {
        let end = held.min(k - 1);
        score.copy_within(at..end, at + 1);
        index.copy_within(at..end, at + 1);
        (score[at], index[at]) = (s, j as u32);
    }
    if j + 1 >= k { score.last().copied() } else { None }
}

/// Workspace of the variants below: the queries of a block, with room to align them.
pub(super) fn scratch(d: &Dims) -> Scratch {
    Scratch { shared: 0, worker: BLOCK * d.size('d') + LANES }
}

/// Where scores go. Rows of the bank arrive in index order.
pub(super) trait Sink {
    /// The score of query `query` of the block with row `j` of the bank.
    fn one(&mut self, query: usize, j: usize, score: f32);
    /// The scores of queries `first..first + 16`; those past the end of the block are meaningless.
    fn lane(&mut self, first: usize, j: usize, scores: &Lane);
}

/// Writes every score.
pub(super) struct Store<'a>(MatMut<'a, f32>);

impl Sink for Store<'_> {
    #[inline(always)]
    fn one(&mut self, query: usize, j: usize, score: f32) {
        self.0.row(query)[j] = score;
    }

    #[inline(always)]
    fn lane(&mut self, first: usize, j: usize, scores: &Lane) {
        for (query, score) in (first..self.0.rows).zip(scores) {
            self.one(query, j, *score);
        }
    }
}

/// Keeps the k best of every query.
pub(super) struct Keep<'a> {
    score: MatMut<'a, f32>,
    index: MatMut<'a, u32>,
    /// Smallest score kept; NaN, which nothing is at most, until the list is full.
    least: [f32; BLOCK],
}

impl Sink for Keep<'_> {
    #[inline(always)]
    fn one(&mut self, query: usize, j: usize, score: f32) {
        // Not `>`: a NaN on either side must pass.
        if !matches!(score.partial_cmp(&self.least[query]), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal))
        {
            self.put(query, j, score);
        }
    }

    #[inline(always)]
    fn lane(&mut self, first: usize, j: usize, scores: &Lane) {
        let least = &self.least[first..first + LANES];
        let stay = scores.iter().zip(least).fold(true, |stay, (s, l)| stay & (s <= l));
        if !stay {
            self.lane_hit(first, j, scores);
        }
    }
}

impl Keep<'_> {
    #[cold]
    #[inline(never)]
    fn lane_hit(&mut self, first: usize, j: usize, scores: &Lane) {
        for (query, score) in (first..self.score.rows).zip(scores) {
            self.one(query, j, *score);
        }
    }

    fn put(&mut self, query: usize, j: usize, score: f32) {
        if let Some(least) = insert(self.score.row(query), self.index.row(query), j, score) {
            self.least[query] = least;
        }
    }
}

pub(super) fn cosine_lanes(c: &mut Call<'_>) {
    store_blocks(c, |q, p, own, sink| sweep::<Portable, 1, 2>(q, p, own, sink));
}

pub(super) fn cosine_topk_lanes(c: &mut Call<'_>) {
    keep_blocks(c, |q, p, own, sink| sweep::<Portable, 1, 2>(q, p, own, sink));
}

/// Rows of a block: whole registers, and two blocks for two workers where there are at most 64 queries.
fn block_rows(n: usize) -> usize {
    if n > BLOCK { BLOCK } else { BLOCK / 2 }
}

fn block(q: Mat<'_, f32>, first: usize, rows: usize) -> Mat<'_, f32> {
    let data = &q.data[(first * q.ld).min(q.data.len())..];
    Mat { data, rows, ..q }
}

/// Runs `sweep` on every block of queries with a [`Store`].
pub(super) fn store_blocks(
    c: &mut Call<'_>,
    sweep: impl Fn(Mat<'_, f32>, Mat<'_, f32>, &mut [f32], &mut Store<'_>) + Sync,
) {
    let (q, p, y) = (c.f32(0), c.f32(1), c.f32_mut(2));
    c.pool.rows(y.split(), block_rows(q.rows), c.workers, |first, y, own| {
        sweep(block(q, first, y.rows), p, own, &mut Store(y));
    });
}

/// Runs `sweep` on every block of queries with a [`Keep`].
pub(super) fn keep_blocks(
    c: &mut Call<'_>,
    sweep: impl Fn(Mat<'_, f32>, Mat<'_, f32>, &mut [f32], &mut Keep<'_>) + Sync,
) {
    let (q, p, score, index) = (c.f32(0), c.f32(1), c.f32_mut(2), c.u32_mut(3));
    c.pool.rows((score.split(), index.split()), block_rows(q.rows), c.workers, |first, (score, index), own| {
        let mut least = [f32::NAN; BLOCK];
        // Lanes without a query never pass.
        least[score.rows..].fill(f32::INFINITY);
        sweep(block(q, first, score.rows), p, own, &mut Keep { score, index, least });
    });
}

/// The two inner loops, written once per instruction set.
pub(super) trait Arith {
    /// Dot products of `G` groups of queries and `R` rows, all of one length. Order: d ascending.
    fn tile<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R];
    /// Dot product of two vectors of one length, with partial sums along `d`.
    fn dot(a: &[f32], b: &[f32]) -> f32;
}

/// Scores of at most 64 queries with the whole bank, `G` groups of 16 queries by `R` rows of the bank at a time: the
/// `G * R` accumulators of 16 lanes are what fits into the registers.
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
    let groups = q.rows.div_ceil(LANES);
    let lanes = &mut own.as_chunks_mut::<LANES>().0[..groups * q.cols];
    copy_queries::<A>(q, lanes);
    let whole = p.rows / R * R;
    for j in (0..whole).step_by(R) {
        sweep_rows::<A, G, R>(lanes, groups, p, j, sink);
    }
    for j in whole..p.rows {
        sweep_rows::<A, G, 1>(lanes, groups, p, j, sink);
    }
}

/// What a vector is multiplied with to have length 1, or 0 if it is zero.
#[inline(always)]
fn scale_of<A: Arith>(row: &[f32]) -> f32 {
    1.0 / A::dot(row, row).sqrt().max(LEAST)
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

#[inline(always)]
fn sweep_rows<A: Arith, const G: usize, const R: usize>(
    lanes: &[Lane],
    groups: usize,
    p: Mat<'_, f32>,
    j: usize,
    sink: &mut impl Sink,
) {
    let rows: [&[f32]; R] = std::array::from_fn(|at| p.row(j + at));
    let scales: [f32; R] = std::array::from_fn(|at| scale_of::<A>(rows[at]));
    let d = p.cols;
    let whole = groups / G * G;
    for group in (0..whole).step_by(G) {
        let queries: [&[Lane]; G] = std::array::from_fn(|at| &lanes[(group + at) * d..][..d]);
        emit(&A::tile(queries, rows), scales, group, j, sink);
    }
    for group in whole..groups {
        emit(&A::tile([&lanes[group * d..][..d]], rows), scales, group, j, sink);
    }
}

#[inline(always)]
fn emit<const G: usize, const R: usize>(
    sums: &[[Lane; G]; R],
    scales: [f32; R],
    group: usize,
    j: usize,
    sink: &mut impl Sink,
) {
    for (at, (sums, scale)) in sums.iter().zip(scales).enumerate() {
        for (g, sum) in sums.iter().enumerate() {
            sink.lane((group + g) * LANES, j + at, &sum.map(|s| s * scale));
        }
    }
}

/// The same for a few queries: each row of the bank is read once, one dot product per query.
#[inline(always)]
fn sweep_dots<A: Arith>(q: Mat<'_, f32>, p: Mat<'_, f32>, own: &mut [f32], sink: &mut impl Sink) {
    let d = q.cols;
    for i in 0..q.rows {
        let scale = scale_of::<A>(q.row(i));
        own[i * d..][..d].iter_mut().zip(q.row(i)).for_each(|(to, x)| *to = x * scale);
    }
    for j in 0..p.rows {
        let row = p.row(j);
        let scale = scale_of::<A>(row);
        for i in 0..q.rows {
            sink.one(i, j, A::dot(&own[i * d..][..d], row) * scale);
        }
    }
}

/// Plain Rust, without a fused multiply-add: where the instruction is missing it is a library call.
struct Portable;

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
}
