//! How a weight gradient is cut: blocks of rows, groups of columns, blocks of k copied into strips. No intrinsics here.
#![expect(unsafe_code, reason = "calls kernels that need an instruction set")]

use super::micro::{Epilogue, Kernel, Right, Start, Tile, Weight};
use super::product::{ALIGN, aligned, part, share};
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat, MatMut};
use std::ops::Range;

/// Rows of k of a block of a weight gradient: a strip of x (14 KiB with AVX-512) and one of dy fit a first-level cache of
/// 32 KiB together with the lines of the product. Powers of two put those on too few places of it.
const DW_K: usize = 112;
/// Least and most rows of a weight gradient in one task: x is copied once per task.
const DW_MIN: usize = 32;
const DW_ROWS: usize = 512;
/// Columns of a weight gradient that are finished before the next; whole mask words.
const DW_COLS: usize = 512;

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
        let tile = Tile { m: cols, n, k, a: x.data, a_row: 1, a_k, b, c, c_row, start, ahead: &[], next_c: 0 };
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
                let tile = Tile { m, n, k: depth, a, a_row: 1, a_k: height, b, c, c_row, start, ahead, next_c: 0 };
                // SAFETY: a kernel's variant runs where its instructions are.
                unsafe { K::tile(tile) }
            }
        }
    }
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
