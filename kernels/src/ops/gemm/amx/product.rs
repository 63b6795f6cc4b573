//! How a product on tiles is cut: panels of 32 columns, blocks of k, tasks of rows.
#![expect(unsafe_code, reason = "calls code compiled for an instruction set")]

use super::element::Element;
use super::pack::{self, Factor, Run, STEP};
use super::tile::{Sums, TILE, Tiles};
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat, MatMut};
use crate::ops::gemm::finish::{Finish, finish};
use crate::ops::gemm::micro::{Weight, low_bits, masked_value};
use crate::ops::gemm::product::{ALIGN, aligned};
use crate::ops::vmath;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns of a panel.
pub(super) const NR: usize = 32;
/// Most rows of the output in one task.
const ROW_TASK: usize = 256;
/// Fewest outputs and inputs that fill enough of the tiles.
const LEAST_WIDTH: usize = 16;

/// Tiles are faster for `y = x wᵀ` of this size.
pub(crate) fn forward_pays<T: Element>(d: &Dims) -> bool {
    pays::<T>(d.size('r'), d.size('i'), d.size('o'))
}

/// Tiles are faster for `dx = dy w` of this size.
pub(crate) fn back_pays<T: Element>(d: &Dims) -> bool {
    pays::<T>(d.size('r'), d.size('o'), d.size('i'))
}

fn pays<T: Element>(rows: usize, k: usize, n: usize) -> bool {
    rows >= T::LEAST_ROWS && k >= LEAST_WIDTH && n >= LEAST_WIDTH
}

/// Elements that [`pack_forward`] fills.
pub(crate) fn forward_len<T: Element>(d: &Dims) -> usize {
    panels_len::<T>(d.size('i'), d.size('o'))
}

/// Elements that [`pack_back`] fills.
pub(crate) fn back_len<T: Element>(d: &Dims) -> usize {
    panels_len::<T>(d.size('o'), d.size('i'))
}

fn panels_len<T: Element>(k: usize, n: usize) -> usize {
    // And the bias.
    n.div_ceil(NR) * (panel_len::<T>(k.div_ceil(STEP)) + NR) + ALIGN
}

/// Lanes of a panel of so many steps.
pub(super) fn panel_len<T: Element>(steps: usize) -> usize {
    steps * 2 * T::PARTS * TILE
}

/// Lanes of 16 * TALL rows of the left factor.
pub(super) fn unit_len<T: Element>(steps: usize) -> usize {
    steps * T::TALL * T::PARTS * TILE
}

/// Workspace of [`product`] with `k` summands.
pub(crate) fn scratch<T: Element>(k: usize) -> Scratch {
    let units = ROW_TASK / (16 * T::TALL);
    Scratch { shared: 0, worker: units * unit_len::<T>(depth::<T>(k)) + ALIGN }
}

/// Steps of a block of k: blocks are as even as they can be.
fn depth<T: Element>(k: usize) -> usize {
    let steps = k.div_ceil(STEP);
    steps.div_ceil(steps.div_ceil(T::STEPS).max(1))
}

/// Steps of each block of k.
fn blocks<T: Element>(k: usize) -> impl Iterator<Item = Range<usize>> {
    let (steps, depth) = (k.div_ceil(STEP), depth::<T>(k).max(1));
    (0..steps).step_by(depth).map(move |s| s..(s + depth).min(steps))
}

/// Makes the panels of `y = x wᵀ + bias`, elements with cleared bits zero.
pub(crate) fn pack_forward<T: Element>(
    c: &mut Call<'_>,
    w: Mat<'_, T>,
    mask: Option<BitMat<'_>>,
    bias: Option<Weight<'_>>,
) {
    let (n, k) = (w.rows, w.cols);
    pack_panels(c, Factor { m: w, mask }, Run::Along, k, n);
    let (_, start) = split_panels::<T>(c.prepared, k, n);
    for (j, start) in start.iter_mut().enumerate() {
        *start = bias.filter(|_| j < n).map_or(0.0, |b| masked_value(&b, j));
    }
}

/// Makes the panels of `dx = dy w`, elements with cleared bits zero.
pub(crate) fn pack_back<T: Element>(c: &mut Call<'_>, w: Mat<'_, T>, mask: Option<BitMat<'_>>) {
    let (k, n) = (w.rows, w.cols);
    pack_panels(c, Factor { m: w, mask }, Run::Across, k, n);
    split_panels::<T>(c.prepared, k, n).1.fill(0.0);
}

/// All panels of the first block of k, then those of the next.
fn pack_panels<T: Element>(c: &mut Call<'_>, w: Factor<'_, T>, run: Run, k: usize, n: usize) {
    let count = n.div_ceil(NR);
    let (panels, _) = split_panels::<T>(c.prepared, k, n);
    for ks in blocks::<T>(k) {
        let size = panel_len::<T>(ks.len());
        let block = MatMut::dense(&mut panels[count * panel_len::<T>(ks.start)..][..count * size], count, size);
        c.pool.rows(block.split(), 1, &mut [], |at, panel, _| {
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { pack::right(w, run, at * NR, ks.start * STEP, size, panel.data) }
        });
    }
}

/// Panels and the start row, at a cache line.
fn split_panels<T: Element>(prepared: &mut [f32], k: usize, n: usize) -> (&mut [f32], &mut [f32]) {
    let (count, len) = (n.div_ceil(NR), panel_len::<T>(k.div_ceil(STEP)));
    aligned(prepared, count * (len + NR)).split_at_mut(count * len)
}

/// Rows of x times the panels of [`pack_forward`] or [`pack_back`].
pub(crate) fn product<T: Element>(c: &mut Call<'_>, x: Mat<'_, T>, y: MatMut<'_, f32>, after: Finish<'_>) {
    let (rows, n, k, tall) = (x.rows, y.cols, x.cols, 16 * T::TALL);
    let (panels, start) = split_panels::<T>(c.prepared, k, n);
    let tasks = rows.div_ceil(ROW_TASK * c.pool.workers()) * c.pool.workers();
    let task = rows.div_ceil(tasks).next_multiple_of(tall);
    let alone = c.pool.workers() == 1;
    let product = Product { x: Factor { m: x, mask: None }, panels, start, next: if alone { task } else { 0 } };
    let Finish { gelu, slope } = after;
    c.pool.rows((y.split(), gelu.map(MatMut::split)), task, c.workers, |first, (mut y, mut gelu), own| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { product.rows(first, &mut y, own) }
        let all = 0..y.rows;
        finish::<vmath::Avx512>(&mut y, &mut gelu, slope, first, all);
    });
}

struct Product<'a, T> {
    x: Factor<'a, T>,
    panels: &'a [f32],
    start: &'a [f32],
    /// Rows of the task that follows on the same worker, if that is known.
    next: usize,
}

impl<T: Element> Product<'_, T> {
    /// Rows `first..` of the product: for every block of k, each panel stays in the first-level cache while the tiles of all
    /// rows pass by. Meanwhile the next panel and the next rows of x are fetched.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn rows(&self, first: usize, y: &mut MatMut<'_, f32>, own: &mut [f32]) {
        let (n, k, tall) = (y.cols, self.x.m.cols, 16 * T::TALL);
        let (count, rows) = (n.div_ceil(NR), y.rows);
        let len = scratch::<T>(k).worker - ALIGN;
        let own = aligned(own, len);
        let mut out = Out::<T>::new(y);
        for ks in blocks::<T>(k) {
            let (unit, size) = (unit_len::<T>(ks.len()), panel_len::<T>(ks.len()));
            let panels = &self.panels[count * panel_len::<T>(ks.start)..][..count * size];
            let left = &mut own[..rows.div_ceil(tall) * unit];
            pack::left(self.x, Run::Along, first, ks.start * STEP, unit, left);
            // The same rows again, or the first block of those of the next task.
            let then = match ks.end * STEP < k {
                true => (first..first + rows, ks.end * STEP),
                false => (first + rows..first + rows + self.next, 0),
            };
            let mut ahead = Ahead::new(self.x.m, then, ks.len() * STEP, count * rows.div_ceil(tall));
            for (p, panel) in panels.chunks_exact(size).enumerate() {
                let begin = (ks.start == 0).then(|| &self.start[p * NR..][..NR]);
                let after = panels.get((p + 1) * size..(p + 2) * size).unwrap_or(&[]);
                let panel_after = Mat::dense(after, after.len().min(1), after.len());
                let mut panel_ahead = Ahead::new(panel_after, (0..1, 0), after.len(), rows.div_ceil(tall));
                for (row, left) in (0..rows).step_by(tall).zip(left.chunks_exact(unit)) {
                    panel_ahead.fetch();
                    ahead.fetch();
                    out.add(left, panel, begin, row, p * NR);
                }
            }
        }
    }
}

/// A part of a matrix that is needed later, brought into the second-level cache in equal shares.
struct Ahead {
    /// Of the current row.
    at: *const u8,
    /// Bytes from the end of a row's part to the next one.
    gap: usize,
    /// Lines of a row, and of the current one that are left.
    row: usize,
    left: usize,
    /// All that are left, and of a share.
    lines: usize,
    each: usize,
}

impl Ahead {
    /// Columns `col..col + cols` of some rows, as far as they exist.
    fn new<T>(m: Mat<'_, T>, (rows, col): (Range<usize>, usize), cols: usize, shares: usize) -> Ahead {
        const LINE: usize = 64;
        let rows = rows.start.min(m.rows)..rows.end.min(m.rows);
        let row = (cols.min(m.cols - col) * size_of::<T>()).div_ceil(LINE);
        let lines = rows.len() * row;
        let at = m.data.as_ptr().wrapping_add(rows.start * m.ld + col).cast();
        let gap = (m.ld * size_of::<T>()).saturating_sub(row * LINE);
        Ahead { at, gap, row, left: row, lines, each: lines.div_ceil(shares.max(1)) }
    }

    fn fetch(&mut self) {
        for _ in 0..self.each.min(self.lines) {
            // SAFETY: a hint that cannot fault.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) }
            self.left -= 1;
            let end = self.left == 0;
            self.at = self.at.wrapping_add(64 + if end { self.gap } else { 0 });
            self.left = if end { self.row } else { self.left };
        }
        self.lines = self.lines.saturating_sub(self.each);
    }
}

/// An output that products of tiles are added to.
pub(super) struct Out<'a, 'b, T> {
    y: &'b mut MatMut<'a, f32>,
    tiles: Tiles,
    sums: Sums,
    element: PhantomData<T>,
}

impl<'a, 'b, T: Element> Out<'a, 'b, T> {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn new(y: &'b mut MatMut<'a, f32>) -> Self {
        // SAFETY: only variants that need tiles come here.
        let tiles = unsafe { Tiles::new() };
        Out { y, tiles, sums: Sums([0.0; 4 * TILE]), element: PhantomData }
    }

    /// Adds the product of tiles to rows `row..` and columns `col..`, or to `begin` instead of what is there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn add(&mut self, left: &[f32], panel: &[f32], begin: Option<&[f32]>, row: usize, col: usize) {
        T::multiply(&self.tiles, left, panel, &mut self.sums);
        add::<T>(&self.sums, begin, self.y, row, col);
    }
}

/// Adds sums to rows `row..` and columns `col..` of `y`, or to `begin` instead of what is there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn add<T: Element>(sums: &Sums, begin: Option<&[f32]>, y: &mut MatMut<'_, f32>, row: usize, col: usize) {
    let (rows, bits) = ((y.rows - row).min(16 * T::TALL), low_bits(y.cols - col));
    assert!(rows > 0 && (row + rows - 1) * y.ld + y.cols <= y.data.len(), "rows of the output");
    assert!(begin.is_none_or(|begin| begin.len() == NR), "a start for each column");
    let halves = [bits as u16, (bits >> 16) as u16];
    for m in 0..rows {
        let at = y.data.as_mut_ptr().wrapping_add((row + m) * y.ld + col);
        // SAFETY: lanes with set bits are columns of a row that was checked; this function has the instructions.
        unsafe {
            for (h, sum) in T::row(sums, m).into_iter().enumerate() {
                let at = at.wrapping_add(16 * h);
                let before = match begin {
                    Some(begin) => _mm512_loadu_ps(begin.as_ptr().add(16 * h)),
                    None => _mm512_maskz_loadu_ps(halves[h], at),
                };
                _mm512_mask_storeu_ps(at, halves[h], _mm512_add_ps(before, sum));
            }
        }
    }
}
