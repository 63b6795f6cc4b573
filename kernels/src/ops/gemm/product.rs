//! How a product is cut: panels of the weight, blocks of rows, blocks of k. No intrinsics here.
#![expect(unsafe_code, reason = "calls kernels that need an instruction set")]

use super::finish::{Finish, finish};
use super::micro::{Epilogue, Kernel, Right, Start, Tile, Weight, masked_value};
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat, MatMut};
use crate::par::Pool;
use std::ops::Range;

/// Rows of k whose panel (24 KiB with AVX-512) stays in the first-level cache.
const K_BLOCK: usize = 192;
/// Most rows that meet all panels before the next rows do: with a panel they fit the first-level cache.
const SUB_ROWS: usize = 36;
/// Most rows of the output in one task of a product.
const ROW_TASK: usize = 240;
/// Elements of a weight that stay in the second-level cache.
const L2_ELEMENTS: usize = 1 << 18;
/// Columns of a larger weight that are finished before the next.
const GROUP: usize = 1024;
/// Rows of the left factor that are farther apart are copied, if there are at least so many columns to use the copy.
const COPY_LD: usize = 512;
const COPY_COLS: usize = 256;
/// Elements from one copied row to the next: an odd number of cache lines.
const COPY_ROW: usize = K_BLOCK + 16;
/// Rows of a task of a narrow product.
const DOT_ROWS: usize = 60;
/// Rows of k of a block of a weight gradient: a strip of x (24 KiB with AVX-512) and one of dy fit the first-level cache.
const DW_K: usize = 192;
/// Least and most rows of a weight gradient in one task: x is copied once per task.
const DW_MIN: usize = 32;
const DW_ROWS: usize = 512;
/// Columns of a weight gradient that are finished before the next; whole mask words.
const DW_COLS: usize = 512;
/// Below this many rows, or outputs, a forward product does not repay packing the weight.
const FEW_ROWS: usize = 8;
const FEW_OUTPUTS: usize = 4;
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

/// Workspace of [`outer`].
pub(crate) fn outer_scratch<K: Kernel>(d: &Dims) -> Scratch {
    let (rows, cols, k) = (d.size('o').min(DW_ROWS), d.size('i').min(DW_COLS), d.size('r').min(DW_K));
    let worker = match d.size('i') <= K::MR {
        true => rows * cols,
        // A block of rows is cut into tiles of equal height; the last one may stick out.
        false => k * (rows + K::MR + cols.next_multiple_of(K::NR)),
    };
    Scratch { shared: 0, worker: worker + 2 * ALIGN }
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
    pack::<K>(c.pool, panels, k, |first, panel| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::pack_cols(&w, first, panel) }
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
    pack::<K>(c.pool, panels, k, |first, panel| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::pack_rows(&w, first, panel) }
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
            let tile =
                Tile { m: rows, n, k, a: dy.data, a_row: dy.ld, a_k: 1, b, c, c_row, start: Start::Zero, ahead: &[] };
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

/// Fills one panel per task.
fn pack<K: Kernel>(pool: &Pool, panels: &mut [f32], k: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let size = k * K::NR;
    let count = panels.len().checked_div(size).unwrap_or(0);
    pool.rows(MatMut::dense(panels, count, size).split(), 1, &mut [], |at, panel, _| f(at * K::NR, panel.data));
}

/// `c = a panels + start`.
///
/// A weight that fits the second-level cache is walked whole for every [`SUB_ROWS`] rows; a larger one by blocks of k
/// and groups of columns, each for all rows of a task. Rows are finished as soon as they are whole.
fn by_panels<K: Kernel>(
    pool: &Pool,
    a: Mat<'_, f32>,
    panels: &[f32],
    start: &[f32],
    c: MatMut<'_, f32>,
    after: Finish<'_>,
) {
    let (k, n, workers) = (a.cols, c.cols, pool.workers());
    let tasks = a.rows.div_ceil(ROW_TASK * workers) * workers;
    let alone = workers == 1;
    let small = k * n <= L2_ELEMENTS;
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
                room = [0.0; SUB_ROWS * COPY_ROW];
                &mut room
            }
            false => &mut copy,
        };
        let block = |k0: usize| k0..(k0 + K_BLOCK).min(k);
        let blocks = || (0..k.max(1)).step_by(K_BLOCK).map(block);
        let row_subs = || (0..rows).step_by(SUB_ROWS).map(|s| first + s..first + (s + SUB_ROWS).min(rows));
        // The rows that are needed after `s`.
        let next = |s: &Range<usize>| match alone || s.end < first + rows {
            true => s.end..(s.end + SUB_ROWS).min(a.rows),
            false => s.end..s.end,
        };
        let mut product = |c: &mut MatMut<'_, f32>, s: Range<usize>, ks: Range<usize>, cols, next| {
            let at = MatMut { data: &mut c.data[(s.start - first) * c.ld..], rows: s.len(), cols: n, ld: c.ld };
            panel_block::<K>(part(a, s.start, s.len(), ks.start, ks.len()), panels, start, at, ks, k, cols, next, own);
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

/// Columns `cols` of `c = start + a panels` for the block `ks` of k, where `a` is that block of a few rows.
#[expect(clippy::too_many_arguments, reason = "ranges of one loop nest")]
fn panel_block<K: Kernel>(
    a: Mat<'_, f32>,
    panels: &[f32],
    start: &[f32],
    c: MatMut<'_, f32>,
    ks: Range<usize>,
    k: usize,
    cols: Range<usize>,
    next: Mat<'_, f32>,
    own: &mut [f32],
) {
    let a = if own.is_empty() { a } else { gathered(a, own) };
    let tiles = a.rows.div_ceil(K::MR) * cols.len().div_ceil(K::NR);
    let mut done = 0;
    for col in cols.clone().step_by(K::NR) {
        let b = Right::Panel(&panels[col * k + ks.start * K::NR..][..ks.len() * K::NR]);
        let n = (cols.end - col).min(K::NR);
        let start = if ks.start == 0 { Start::Row(&start[col..]) } else { Start::Keep };
        for (m0, m) in heights(a.rows, K::MR) {
            let (ahead, a_tile) = (share(next, done, tiles), &a.data[(m0 * a.ld).min(a.data.len())..]);
            let (c, c_row) = (&mut c.data[m0 * c.ld + col..], c.ld);
            let tile = Tile { m, n, k: ks.len(), a: a_tile, a_row: a.ld, a_k: 1, b, c, c_row, start, ahead };
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::tile(tile) }
            done += 1;
        }
    }
}

/// A copy of at most [`SUB_ROWS`] rows of at most [`K_BLOCK`] elements.
fn gathered<'a>(m: Mat<'_, f32>, own: &'a mut [f32]) -> Mat<'a, f32> {
    let ld = COPY_ROW;
    for r in 0..m.rows {
        own[r * ld..][..m.cols].copy_from_slice(m.row(r));
    }
    Mat { data: own, rows: m.rows, cols: m.cols, ld }
}

/// `g = dyᵀ x` in `dw`, then `epilogue(row, columns, g, ds)` on every part of a row while it is in cache.
pub(crate) fn outer<K: Kernel>(
    c: &mut Call<'_>,
    dy: Mat<'_, f32>,
    x: Mat<'_, f32>,
    dw: MatMut<'_, f32>,
    ds: Option<MatMut<'_, f32>>,
    epilogue: impl Fn(usize, Range<usize>, &mut [f32], Option<&mut [f32]>) + Sync,
) {
    let one = |first: usize, mut g: MatMut<'_, f32>, mut ds: Option<MatMut<'_, f32>>, own: &mut [f32]| {
        let step = if x.cols <= K::MR { K::MR } else { DW_COLS };
        for cols in (0..x.cols).step_by(step).map(|col| col..(col + step).min(x.cols)) {
            if x.cols <= K::MR {
                narrow::<K>(dy, x, first, g.reborrow(), own);
            } else {
                contract::<K>(dy, x, first, g.reborrow(), cols.clone(), own);
            }
            for row in 0..g.rows {
                let ds = ds.as_mut().map(|ds| &mut ds.row(row)[cols.clone()]);
                epilogue(first + row, cols.clone(), &mut g.row(row)[cols.clone()], ds);
            }
        }
    };
    // An element's sum is one chain whatever the blocks are, so their number may follow that of the workers.
    let blocks = if c.pool.workers() == 1 { 1 } else { 2 * c.pool.workers() };
    let block = dw.rows.div_ceil(blocks).next_multiple_of(16).clamp(DW_MIN, DW_ROWS);
    match ds {
        None => c.pool.rows(dw.split(), block, c.workers, |first, g, own| one(first, g, None, own)),
        Some(ds) => {
            let both = (dw.split(), ds.split());
            c.pool.rows(both, block, c.workers, |first, (g, ds), own| one(first, g, Some(ds), own));
        }
    }
}

/// Rows `first..` of `dyᵀ x` for at most `MR` inputs, which would fill a fraction of a panel: the outputs become the
/// columns of a tile. Order: rows of `x` ascending.
fn narrow<K: Kernel>(dy: Mat<'_, f32>, x: Mat<'_, f32>, first: usize, mut g: MatMut<'_, f32>, own: &mut [f32]) {
    let (k, rows, cols) = (x.rows, g.rows, g.cols);
    let b = Weight { w: dy, mask: None };
    let flipped = &mut own[..cols * rows];
    for (at, n) in (0..rows).step_by(K::NR).map(|at| (at, (rows - at).min(K::NR))) {
        let (b, c) = (Right::Rows(b, 0, first + at), &mut flipped[at..]);
        let (a_k, c_row, start) = (x.ld, rows, Start::Zero);
        let tile = Tile { m: cols, n, k, a: x.data, a_row: 1, a_k, b, c, c_row, start, ahead: &[] };
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::tile(tile) }
    }
    for row in 0..rows {
        for (col, g) in g.row(row).iter_mut().enumerate() {
            *g = flipped[col * rows + row];
        }
    }
}

/// Rows `first..` and columns `cols` of `dyᵀ x`. Order: rows of `x` ascending.
///
/// A block of k of both factors is copied into strips as wide as a tile; one strip of x stays in the first-level
/// cache, those of dy pass by. Meanwhile the next block of k is fetched.
fn contract<K: Kernel>(
    dy: Mat<'_, f32>,
    x: Mat<'_, f32>,
    first: usize,
    g: MatMut<'_, f32>,
    cols: Range<usize>,
    own: &mut [f32],
) {
    let (k, rows, c_row) = (x.rows, g.rows, g.ld);
    let height = rows.div_ceil(rows.div_ceil(K::MR));
    let (strips, panels) = (rows.div_ceil(height), cols.len().div_ceil(K::NR));
    let right = k.min(DW_K) * panels * K::NR;
    let (right, left) = aligned(own, right + k.min(DW_K) * strips * height).split_at_mut(right);
    for k0 in (0..k.max(1)).step_by(DW_K) {
        let depth = (k - k0).min(DW_K);
        let start = if k0 == 0 { Start::Zero } else { Start::Keep };
        let (dy_now, x_now) = (part(dy, k0, depth, first, rows), part(x, k0, depth, cols.start, cols.len()));
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe {
            K::pack_strips(dy_now, height, left);
            K::pack_strips(x_now, K::NR, right);
        }
        let next = (k - k0 - depth).min(DW_K);
        let (dy_next, x_next) =
            (part(dy, k0 + depth, next, first, rows), part(x, k0 + depth, next, cols.start, cols.len()));
        for (p, col) in (0..cols.len()).step_by(K::NR).enumerate() {
            let b = Right::Panel(&right[p * depth * K::NR..][..depth * K::NR]);
            let n = (cols.len() - col).min(K::NR);
            for (s, m0) in (0..rows).step_by(height).enumerate() {
                let (m, a) = ((rows - m0).min(height), &left[s * depth * height..]);
                let c = &mut g.data[m0 * c_row + cols.start + col..];
                // The first half of the tiles fetches x, the second dy.
                let (at, half) = (p * strips + s, (strips * panels).div_ceil(2));
                let ahead = if at < half { share(x_next, at, half) } else { share(dy_next, at - half, half) };
                let tile = Tile { m, n, k: depth, a, a_row: 1, a_k: height, b, c, c_row, start, ahead };
                // SAFETY: a kernel's variant runs where its instructions are.
                unsafe { K::tile(tile) }
            }
        }
    }
}

/// Rows `row..row + rows` and columns `col..col + cols` of a matrix.
fn part(m: Mat<'_, f32>, row: usize, rows: usize, col: usize, cols: usize) -> Mat<'_, f32> {
    let data = if rows * cols == 0 { &[][..] } else { &m.data[row * m.ld + col..][..(rows - 1) * m.ld + cols] };
    Mat { data, rows, cols, ld: m.ld }
}

/// The `at`-th of `parts` about equal shares of a matrix: whole rows, or parts of one row if there are many shares.
fn share<'a>(m: Mat<'a, f32>, at: usize, parts: usize) -> &'a [f32] {
    if m.rows == 0 || m.ld <= 2 * m.cols {
        let len = m.data.len();
        return &m.data[at * len / parts..(at + 1) * len / parts];
    }
    let each = (parts / m.rows).max(1);
    let (row, at) = ((at * m.rows / parts).min(m.rows - 1), at % each);
    &m.row(row)[at * m.cols / each..(at + 1) * m.cols / each]
}

/// The epilogue of a masked weight gradient as a function of row, columns, contraction and score gradient.
pub(crate) fn masked_epilogue<'a, K: Kernel>(
    w: Mat<'a, f32>,
    mask: BitMat<'a>,
    score: Option<Mat<'a, f32>>,
    candidates: Option<BitMat<'a>>,
) -> impl Fn(usize, Range<usize>, &mut [f32], Option<&mut [f32]>) + Sync + use<'a, K> {
    move |row, cols, g, ds| {
        let score = score.map(|s| &s.row(row)[cols.clone()]);
        let candidates = candidates.map(|c| &c.row(row)[cols.start / 32..]);
        let (w, mask) = (&w.row(row)[cols.clone()], &mask.row(row)[cols.start / 32..]);
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::finish(Epilogue { g, mask, ds, w, score, candidates }) }
    }
}

/// Cuts `rows` into as few tiles as possible, of nearly equal height: first row and height of each.
pub(super) fn heights(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(most);
    (0..tiles).map(move |t| (t * rows / tiles, (t + 1) * rows / tiles - t * rows / tiles))
}
