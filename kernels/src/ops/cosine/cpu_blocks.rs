//! Who scores what: blocks of queries by parts of the bank, and the k best of each.
//!
//! ```text
//! block   queries that one task holds; many of them read the bank fewer times
//! part    rows of the bank of one task, where there are fewer blocks than workers; lists of parts are merged
//! ```
//!
//! A part fills lists of its own, so there are no more of them than workers. The selection is exact: parts do not change a bit.

use super::cpu::insert;
pub(super) use super::cpu_lanes::BLOCK;
use super::cpu_lanes::{Arith, DOT_QUERIES, LANES, Lane, Portable, Sink, Store, sweep, workspace};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};

/// Most tasks that the bank is cut for, whatever the workers, and least rows of a part.
const TASKS: usize = 8;
const PART: usize = 2048;

/// Queries of a block, and parts of the bank that give each of up to [`TASKS`] workers a task.
fn shape(n: usize, m: usize, k: usize, workers: usize) -> (usize, usize) {
    let most = m / PART.max(k);
    match n {
        0..=BLOCK if most < 2 => (BLOCK / 2, 1),
        0..=BLOCK => (n.max(1), most.min(TASKS).min(workers)),
        _ => {
            let block = (n / (4 * BLOCK)).clamp(1, 8) * BLOCK;
            (block, workers.min(TASKS).div_ceil(n.div_ceil(block)).clamp(1, most.max(1)))
        }
    }
}

/// Most queries of a block of a selection.
pub(super) fn block(d: &Dims) -> usize {
    shape(d.size('n'), d.size('m'), d.size('k'), TASKS).0
}

pub(super) fn scratch(d: &Dims) -> Scratch {
    Scratch { shared: 0, worker: workspace(BLOCK, d.size('d')) }
}

pub(super) fn scratch_topk(d: &Dims) -> Scratch {
    let (n, m, k) = (d.size('n'), d.size('m'), d.size('k'));
    let (block, parts) = shape(n, m, k, TASKS);
    let merged = if parts > 1 { 2 * parts * n.next_multiple_of(block) * k } else { 0 };
    let lists = 2 * block.next_multiple_of(LANES) * k;
    Scratch { shared: merged, worker: workspace(block, d.size('d')) + lists }
}

pub(super) fn cosine_lanes(c: &mut Call<'_>) {
    store_blocks(c, |q, p, own, sink| sweep::<Portable, 1, 2>(q, p, own, sink));
}

pub(super) fn cosine_topk_lanes(c: &mut Call<'_>) {
    keep_blocks(c, |q, p, own, sink| sweep::<Portable, 1, 2>(q, p, own, sink));
}

/// Runs `sweep` on every block of queries with a [`Store`].
pub(super) fn store_blocks(
    c: &mut Call<'_>,
    sweep: impl Fn(Mat<'_, f32>, Mat<'_, f32>, &mut [f32], &mut Store<'_>) + Sync,
) {
    let (q, p, y) = (c.f32(0), c.f32(1), c.f32_mut(2));
    let block = if q.rows > BLOCK { BLOCK } else { BLOCK / 2 };
    c.pool.rows(y.split(), block, c.workers, |first, y, own| {
        sweep(q.block(first, y.rows), p, own, &mut Store(y));
    });
}

/// Runs `sweep` on every block of queries and part of the bank with a [`Keep`].
pub(super) fn keep_blocks(
    c: &mut Call<'_>,
    sweep: impl Fn(Mat<'_, f32>, Mat<'_, f32>, &mut [f32], &mut Keep<'_>) + Sync,
) {
    let (q, p, mut score, mut index) = (c.f32(0), c.f32(1), c.f32_mut(2), c.u32_mut(3));
    let (n, m, k) = (q.rows, p.rows, score.cols);
    let (block, parts) = shape(n, m, k, c.pool.workers());
    if parts == 1 {
        return c.pool.rows((score.split(), index.split()), block, c.workers, |first, (score, index), own| {
            keep(q.block(first, score.rows), p, own, score, index, &sweep);
        });
    }
    let padded = n.next_multiple_of(block);
    let (scores, indices) = c.shared[..2 * parts * padded * k].split_at_mut(parts * padded * k);
    let indices = bytemuck::cast_slice_mut(indices);
    let outputs = (MatMut::dense(scores, parts * padded, k), MatMut::dense(indices, parts * padded, k));
    let from = |part: usize| m * part / parts;
    c.pool.rows((outputs.0.split(), outputs.1.split()), block, c.workers, |first, (score, mut index), own| {
        let (at, first) = (first / padded, first % padded);
        let q = q.block(first, block.min(n - first));
        keep(q, p.block(from(at), from(at + 1) - from(at)), own, score, index.reborrow(), &sweep);
        (0..q.rows).for_each(|i| index.row(i).iter_mut().for_each(|j| *j += from(at) as u32));
    });
    let list = |at: usize, i: usize| (at * padded + i) * k;
    for i in 0..n {
        let mut used = [0; TASKS];
        for (to, j) in score.row(i).iter_mut().zip(index.row(i)) {
            // Parts are in index order: the first of the largest.
            let head = |at: usize| scores[list(at, i) + used[at]];
            let best = (1..parts).fold(0, |best, at| if head(at) > head(best) { at } else { best });
            (*to, *j) = (head(best), indices[list(best, i) + used[best]]);
            // A part has k entries; behind the last one only this loop's end follows.
            used[best] = (used[best] + 1).min(k - 1);
        }
    }
}

/// The k best of every query among all rows of `p`.
fn keep(
    q: Mat<'_, f32>,
    p: Mat<'_, f32>,
    own: &mut [f32],
    score: MatMut<'_, f32>,
    index: MatMut<'_, u32>,
    sweep: impl Fn(Mat<'_, f32>, Mat<'_, f32>, &mut [f32], &mut Keep<'_>),
) {
    let (groups, k) = (q.rows.div_ceil(LANES), score.cols);
    let (list, own) = own.split_at_mut(groups * LANES * k);
    let (at, own) = own.split_at_mut(groups * LANES * k);
    let list = list.as_chunks_mut().0;
    let at = bytemuck::cast_slice_mut::<f32, u32>(at).as_chunks_mut().0;
    // NaN marks what is not filled: nothing is at most NaN.
    list.fill([f32::NAN; LANES]);
    // Lanes without a query never take part.
    for list in list.iter_mut().skip(groups.saturating_sub(1) * k) {
        list[(q.rows + LANES - 1) % LANES + 1..].fill(f32::INFINITY);
    }
    let mut keep = Keep { score, index, least: [f32::NAN; DOT_QUERIES], list, at };
    sweep(q, p, own, &mut keep);
    if q.rows > DOT_QUERIES {
        for i in 0..q.rows {
            let lists = keep.list.iter().zip(&*keep.at).skip(i / LANES * k);
            let row = keep.score.row(i).iter_mut().zip(keep.index.row(i));
            for ((score, index), (list, at)) in row.zip(lists) {
                (*score, *index) = (list[i % LANES], at[i % LANES]);
            }
        }
    }
}

/// Keeps the k best of every query.
pub(super) struct Keep<'a> {
    score: MatMut<'a, f32>,
    index: MatMut<'a, u32>,
    /// Smallest score kept by each of a few queries; NaN until its list is full.
    least: [f32; DOT_QUERIES],
    /// Scores kept, and whose: `[group][rank][query]`.
    list: &'a mut [Lane],
    at: &'a mut [[u32; LANES]],
}

impl Sink for Keep<'_> {
    #[inline(always)]
    fn one(&mut self, query: usize, j: usize, score: f32) {
        // Not `>`: a NaN on either side must pass.
        let over = !matches!(
            score.partial_cmp(&self.least[query]),
            Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
        );
        if over && let Some(least) = insert(self.score.row(query), self.index.row(query), j, score) {
            self.least[query] = least;
        }
    }

    #[inline(always)]
    fn lane<A: Arith>(&mut self, group: usize, j: usize, scores: &Lane) {
        let k = self.score.cols;
        let (list, at) = (&mut self.list[group * k..][..k], &mut self.at[group * k..][..k]);
        if A::any_over(scores, &list[k - 1]) {
            A::insert(list, at, scores, j as u32);
        }
    }
}
