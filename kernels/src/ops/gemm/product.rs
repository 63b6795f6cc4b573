//! How a product is cut: panels of the weight, blocks of rows, blocks of k. No intrinsics here.
#![expect(unsafe_code, reason = "calls kernels that need an instruction set")]

use super::finish::{Finish, finish};
use super::micro::{Kernel, Right, Start, Tile, Weight, masked_value};
use crate::contract::Dims;
use crate::operand::{BitMat, Call, Mat, MatMut};
use crate::par::{Pool, SplitMat};
use std::ops::Range;

/// Rows of k whose panel (24 KiB with AVX-512) stays in the first-level cache.
const K_BLOCK: usize = 192;
/// Most rows that meet all panels before the next rows do: one tile with AVX-512. More would push the panel out of a
/// first-level cache of 32 KiB.
const SUB_ROWS: usize = 12;
/// Most rows of the output in one task of a product.
const ROW_TASK: usize = 240;
/// The same for a weight that the second-level cache does not hold: every task reads all of it.
const DEEP_TASK: usize = 1920;
/// Elements of a weight that stay in the second-level cache.
const L2_ELEMENTS: usize = 1 << 18;
/// Columns and rows of k of a block of a larger weight (768 KiB), which stays in the second-level cache while all rows pass by.
const GROUP: usize = 512;
const DEEP: usize = 384;
/// Rows of x that meet such a block together: one tile with AVX-512. Their copy stays in the first-level cache.
const DEEP_ROWS: usize = 12;
/// Rows of the left factor that are farther apart are copied, if there are at least so many columns to use the copy.
const COPY_LD: usize = 512;
const COPY_COLS: usize = 256;
/// Elements from one copied row to the next: an odd number of cache lines.
const COPY_ROW: usize = K_BLOCK + 16;
const DEEP_COPY_ROW: usize = DEEP + 16;
/// Elements of a copy of either kind.
const COPY: usize = DEEP_ROWS * DEEP_COPY_ROW;
const _: () = assert!(SUB_ROWS * COPY_ROW <= COPY && DEEP.is_multiple_of(OUTPUTS));
/// Rows of a task of a narrow product.
const DOT_ROWS: usize = 60;
/// Below this many rows, or outputs, a forward product does not repay packing the weight.
const FEW_ROWS: usize = 8;
const FEW_OUTPUTS: usize = 4;
/// Outputs of one row come to a worker in multiples of this, the bits of a mask word.
const OUTPUTS: usize = 32;
/// Rows of a weight that are copied in one task.
const COPY_ROWS: usize = 32;
/// Workspaces are not aligned: room to move to a cache line.
pub(crate) const ALIGN: usize = 16;

/// Elements that [`pack_forward`] fills.
pub(crate) fn forward_len<K: Kernel>(d: &Dims) -> usize {
    panels_len::<K>(d.size('i'), d.size('o'))
}

/// Elements that [`pack_back`] fills.
pub(crate) fn back_len<K: Kernel>(d: &Dims) -> usize {
    panels_len::<K>(d.size('o'), d.size('i'))
}

fn panels_len<K: Kernel>(k: usize, n: usize) -> usize {
    // One row more than k: the bias.
    n.div_ceil(K::NR) * K::NR * (k + 1) + ALIGN
}

/// A forward product of this size reads the weight row by row: where it is, or a copy without the masked elements.
pub(super) fn forward_without_panels(rows: usize, n: usize) -> bool {
    rows <= FEW_ROWS || n <= FEW_OUTPUTS
}

/// Makes the panels of [`forward`] for `rows` rows of x.
pub(crate) fn pack_forward<K: Kernel>(c: &mut Call<'_>, rows: usize, w: Weight<'_>, bias: Option<Weight<'_>>) {
    let (n, k) = (w.w.rows, w.w.cols);
    if forward_without_panels(rows, n) {
        if w.mask.is_some() {
            let copy = MatMut::dense(&mut c.prepared[..n * k], n, k);
            c.pool.rows(copy.split(), COPY_ROWS, &mut [], |first, mut copy, _| {
                (0..copy.rows).for_each(|row| copy_kept(&w, first + row, copy.row(row)));
            });
        }
        return;
    }
    let (panels, start) = split_panels::<K>(c.prepared, k, n);
    for (j, start) in start.iter_mut().enumerate() {
        *start = bias.filter(|_| j < n).map_or(0.0, |b| masked_value(&b, j));
    }
    pack::<K>(c.pool, panels, k, n, |first, ks, panel| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::pack_cols(&w.cols(ks), first, panel) }
    });
}

/// `y = x wᵀ + bias`, elements with cleared bits left out; after [`pack_forward`].
pub(crate) fn forward<K: Kernel>(
    c: &mut Call<'_>,
    x: Mat<'_, f32>,
    w: Weight<'_>,
    bias: Option<Weight<'_>>,
    y: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    let (rows, k, n) = (x.rows, x.cols, y.cols);
    if rows == 0 || n == 0 {
        return;
    }
    if forward_without_panels(rows, n) {
        let w = if w.mask.is_some() { Mat::dense(&c.prepared[..n * k], n, k) } else { w.w };
        if rows == 1 {
            return one_row::<K>(c.pool, x.row(0), w, bias, y, after);
        }
        let outputs = (y.split(), after.gelu.map(MatMut::split));
        return c.pool.rows(outputs, DOT_ROWS, &mut [], |first, (mut part, mut gelu), _| {
            let ld = part.ld;
            for m in (0..part.rows).step_by(4) {
                let four = [0, 1, 2, 3].map(|j| x.row((first + m + j).min(rows - 1)));
                let count = (part.rows - m).min(4);
                // SAFETY: a kernel's variant runs where its instructions are.
                unsafe { K::dots(&four[..count], w, bias.as_ref(), &mut part.data[m * ld..], ld) }
            }
            let all = 0..part.rows;
            finish::<K::Simd>(&mut part, &mut gelu, after.slope, first, all);
        });
    }
    let (panels, start) = split_panels::<K>(c.prepared, k, n);
    by_panels::<K>(c.pool, x, panels, start, y, after);
}

/// `y = x wᵀ + bias` for one row of x. Workers share a weight that the second-level cache does not hold: what takes time is
/// reading it.
fn one_row<K: Kernel>(
    pool: &Pool,
    x: &[f32],
    w: Mat<'_, f32>,
    bias: Option<Weight<'_>>,
    y: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    fn upright(m: MatMut<'_, f32>) -> SplitMat<'_, f32> {
        let n = m.cols;
        MatMut { data: &mut m.data[..n], rows: n, cols: 1, ld: 1 }.split()
    }
    let n = w.rows;
    let block = if fits(x.len(), n) { n } else { n.div_ceil(pool.workers()).next_multiple_of(OUTPUTS) };
    debug_assert!(after.slope.is_none(), "forward products have no slope to read");
    pool.rows((upright(y), after.gelu.map(upright)), block, &mut [], |first, (part, gelu), _| {
        let len = part.rows;
        let flat = |data| MatMut { data, rows: 1, cols: len, ld: len };
        let bias = bias.map(|b| Weight {
            w: Mat::dense(&b.w.data[first..][..len], 1, len),
            // Blocks begin at a mask word.
            mask: b.mask.map(|m| BitMat { words: &m.words[first / 32..], rows: 1, cols: len, ld: m.ld }),
        });
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::dots(&[x], w.block(first, len), bias.as_ref(), &mut *part.data, len) }
        finish::<K::Simd>(&mut flat(part.data), &mut gelu.map(|g| flat(g.data)), None, 0, 0..1);
    });
}

/// Row `row` of a weight with zeros where bits are clear.
fn copy_kept(w: &Weight<'_>, row: usize, to: &mut [f32]) {
    let from = w.w.row(row);
    for first in (0..to.len()).step_by(32) {
        let bits = w.bits(row, first);
        for (j, (to, from)) in to[first..].iter_mut().zip(&from[first..]).take(32).enumerate() {
            *to = if bits >> j & 1 == 1 { *from } else { 0.0 };
        }
    }
}

/// A product with so few rows reads the weight where it is: one tile high, a copy would not pay.
pub(super) fn back_without_panels<K: Kernel>(rows: usize) -> bool {
    rows <= K::MR
}

/// Makes the panels of [`back`] for `rows` rows of dy.
pub(crate) fn pack_back<K: Kernel>(c: &mut Call<'_>, rows: usize, w: Weight<'_>) {
    let (k, n) = (w.w.rows, w.w.cols);
    if back_without_panels::<K>(rows) {
        return;
    }
    let (panels, start) = split_panels::<K>(c.prepared, k, n);
    start.fill(0.0);
    pack::<K>(c.pool, panels, k, n, |first, ks, panel| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::pack_rows(&w.rows(ks), first, panel) }
    });
}

/// `dx = dy w`, elements with cleared bits left out; after [`pack_back`].
pub(crate) fn back<K: Kernel>(
    c: &mut Call<'_>,
    dy: Mat<'_, f32>,
    w: Weight<'_>,
    mut dx: MatMut<'_, f32>,
    mut after: Finish<'_>,
) {
    let (rows, k, n) = (dy.rows, dy.cols, dx.cols);
    if rows == 0 || n == 0 {
        return;
    }
    if back_without_panels::<K>(rows) {
        for col in (0..n).step_by(K::NR) {
            let (c, c_row) = (&mut dx.data[col..], dx.ld);
            let b = Right::Rows(w, 0, col);
            let n = (n - col).min(K::NR);
            let tile = Tile {
                m: rows,
                n,
                k,
                a: dy.data,
                a_row: dy.ld,
                a_k: 1,
                b,
                c,
                c_row,
                start: Start::Zero,
                ahead: &[],
                next_c: 0,
            };
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::tile(tile) }
        }
        return finish::<K::Simd>(&mut dx, &mut after.gelu, after.slope, 0, 0..rows);
    }
    let (panels, start) = split_panels::<K>(c.prepared, k, n);
    by_panels::<K>(c.pool, dy, panels, start, dx, after);
}

/// Panels and the start row, at a cache line.
fn split_panels<K: Kernel>(prepared: &mut [f32], k: usize, n: usize) -> (&mut [f32], &mut [f32]) {
    let width = n.div_ceil(K::NR) * K::NR;
    aligned(prepared, width * (k + 1)).split_at_mut(width * k)
}

/// `len` elements of a workspace, from a cache line on.
pub(crate) fn aligned(scratch: &mut [f32], len: usize) -> &mut [f32] {
    let at = scratch.as_ptr().align_offset(64).min(ALIGN);
    &mut scratch[at..][..len]
}

/// Whether a weight stays in the second-level cache.
fn fits(k: usize, n: usize) -> bool {
    k * n <= L2_ELEMENTS
}

/// Most rows of k of the panels of a weight.
fn depth(k: usize, n: usize) -> usize {
    if fits(k, n) { k.max(1) } else { DEEP }
}

/// Fills one panel per task: those of the first rows of k, then those of the next, so that a block of a large weight has
/// few pages and no two lines of it fall on one place of a cache.
fn pack<K: Kernel>(
    pool: &Pool,
    panels: &mut [f32],
    k: usize,
    n: usize,
    f: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    let (count, depth) = (n.div_ceil(K::NR), depth(k, n));
    for ks in (0..k).step_by(depth).map(|k0| k0..(k0 + depth).min(k)) {
        let size = ks.len() * K::NR;
        let block = MatMut::dense(&mut panels[ks.start * count * K::NR..][..count * size], count, size);
        pool.rows(block.split(), 1, &mut [], |at, panel, _| f(at * K::NR, ks.clone(), panel.data));
    }
}

/// `c = a panels + start`.
///
/// A weight that fits the second-level cache is walked whole for every [`SUB_ROWS`] rows, in steps of [`K_BLOCK`] along
/// k; a larger one by blocks of [`DEEP`] x [`GROUP`] elements, each for all rows of a task, [`DEEP_ROWS`] at a time.
/// Rows of a small weight are finished as soon as they are whole, those of a large one at the end of the task.
fn by_panels<K: Kernel>(
    pool: &Pool,
    a: Mat<'_, f32>,
    panels: &[f32],
    start: &[f32],
    c: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    let (k, n, workers) = (a.cols, c.cols, pool.workers());
    let small = fits(k, n);
    let depth = depth(k, n);
    let most = if small { ROW_TASK } else { DEEP_TASK };
    let tasks = a.rows.div_ceil(most * workers) * workers;
    let alone = workers == 1;
    let (k_block, sub_rows) = if small { (K_BLOCK, SUB_ROWS) } else { (DEEP, DEEP_ROWS) };
    let task = a.rows.div_ceil(tasks);
    let task = if task > 2 * SUB_ROWS { task.next_multiple_of(K::MR) } else { task };
    let Finish { gelu, slope } = after;
    pool.rows((c.split(), gelu.map(MatMut::split)), task, &mut [], |first, (mut c, mut gelu), _| {
        let rows = c.rows;
        // Rows far apart fall on few sets of the first-level cache.
        let mut copy = [];
        let mut room;
        let own: &mut [f32] = match a.ld > COPY_LD && n >= COPY_COLS {
            true => {
                room = [0.0; COPY];
                &mut room
            }
            false => &mut copy,
        };
        let block = |k0: usize| k0..(k0 + k_block).min(k);
        let blocks = || (0..k.max(1)).step_by(k_block).map(block);
        let row_subs = || (0..rows).step_by(sub_rows).map(|s| first + s..first + (s + sub_rows).min(rows));
        // The rows that are needed after `s`.
        let next = |s: &Range<usize>| match alone || s.end < first + rows {
            true => s.end..(s.end + sub_rows).min(a.rows),
            false => s.end..s.end,
        };
        let mut product = |c: &mut MatMut<'_, f32>, s: Range<usize>, ks: Range<usize>, cols, next| {
            let at = MatMut { data: &mut c.data[(s.start - first) * c.ld..], rows: s.len(), cols: n, ld: c.ld };
            // Where the panels begin that hold these rows of k, and how many rows they have.
            let k0 = ks.start / depth * depth;
            let (panels, deep) = (&panels[k0 * n.next_multiple_of(K::NR)..], (k - k0).min(depth));
            let a = part(a, s.start, s.len(), ks.start, ks.len());
            panel_block::<K>(a, (panels, deep, ks.start - k0), (start, ks.start == 0), at, cols, next, own);
        };
        if small {
            for s in row_subs() {
                for ks in blocks() {
                    // The whole rows, while the first block is computed.
                    let next = if ks.start == 0 { next(&s) } else { 0..0 };
                    product(&mut c, s.clone(), ks, 0..n, part(a, next.start, next.len(), 0, k));
                }
                finish::<K::Simd>(&mut c, &mut gelu, slope, first, s.start - first..s.end - first);
            }
            return;
        }
        for cols in (0..n).step_by(GROUP).map(|j| j..(j + GROUP).min(n)) {
            for ks in blocks() {
                for s in row_subs() {
                    let next = next(&s);
                    product(&mut c, s, ks.clone(), cols.clone(), part(a, next.start, next.len(), ks.start, ks.len()));
                }
            }
        }
        finish::<K::Simd>(&mut c, &mut gelu, slope, first, 0..rows);
    });
}

/// Columns `cols` of `c = start + a panels` for a block of k, where `a` is that block of a few rows: the panels have `deep`
/// rows of k each, of which those from `k0` on are used. Only the first block starts from `start`.
fn panel_block<K: Kernel>(
    a: Mat<'_, f32>,
    (panels, deep, k0): (&[f32], usize, usize),
    (start, first): (&[f32], bool),
    c: MatMut<'_, f32>,
    cols: Range<usize>,
    next: Mat<'_, f32>,
    own: &mut [f32],
) {
    let k = a.cols;
    let a = if own.is_empty() { a } else { gathered(a, own) };
    let tiles = a.rows.div_ceil(K::MR) * cols.len().div_ceil(K::NR);
    let mut done = 0;
    for col in cols.clone().step_by(K::NR) {
        let b = Right::Panel(&panels[col * deep + k0 * K::NR..][..k * K::NR]);
        let n = (cols.end - col).min(K::NR);
        let start = if first { Start::Row(&start[col..]) } else { Start::Keep };
        for (m0, m) in heights(a.rows, K::MR) {
            let (ahead, a_tile) = (share(next, done, tiles), &a.data[(m0 * a.ld).min(a.data.len())..]);
            let (c, c_row) = (&mut c.data[m0 * c.ld + col..], c.ld);
            // A block of a large weight meets rows that were last seen long ago.
            let next_c = match (a.rows <= DEEP_ROWS, m0 + m < a.rows) {
                (false, _) => 0,
                (true, true) => m * c_row,
                // The next panel, or the next rows.
                (true, false) if col + K::NR < cols.end => K::NR.saturating_sub(m0 * c_row),
                (true, false) => (a.rows - m0) * c_row - (col - cols.start),
            };
            let tile = Tile { m, n, k, a: a_tile, a_row: a.ld, a_k: 1, b, c, c_row, start, ahead, next_c };
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::tile(tile) }
            done += 1;
        }
    }
}

/// A copy of at most [`SUB_ROWS`] rows of at most [`K_BLOCK`] elements, or of [`DEEP_ROWS`] of [`DEEP`].
fn gathered<'a>(m: Mat<'_, f32>, own: &'a mut [f32]) -> Mat<'a, f32> {
    let ld = if m.cols <= K_BLOCK { COPY_ROW } else { DEEP_COPY_ROW };
    for r in 0..m.rows {
        own[r * ld..][..m.cols].copy_from_slice(m.row(r));
    }
    Mat { data: own, rows: m.rows, cols: m.cols, ld }
}

/// Rows `row..row + rows` and columns `col..col + cols` of a matrix.
pub(super) fn part(m: Mat<'_, f32>, row: usize, rows: usize, col: usize, cols: usize) -> Mat<'_, f32> {
    let data = if rows * cols == 0 { &[][..] } else { &m.data[row * m.ld + col..][..(rows - 1) * m.ld + cols] };
    Mat { data, rows, cols, ld: m.ld }
}

/// The `at`-th of `parts` about equal shares of a matrix: whole rows, or parts of one row if there are many shares.
pub(super) fn share<'a>(m: Mat<'a, f32>, at: usize, parts: usize) -> &'a [f32] {
    if m.rows == 0 || m.ld <= 2 * m.cols {
        let len = m.data.len();
        return &m.data[at * len / parts..(at + 1) * len / parts];
    }
    let each = (parts / m.rows).max(1);
    let (row, at) = ((at * m.rows / parts).min(m.rows - 1), at % each);
    &m.row(row)[at * m.cols / each..(at + 1) * m.cols / each]
}

/// Cuts `rows` into as few tiles as possible, of nearly equal height: first row and height of each.
pub(super) fn heights(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(most);
    (0..tiles).map(move |t| (t * rows / tiles, (t + 1) * rows / tiles - t * rows / tiles))
}
