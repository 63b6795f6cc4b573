//! A weight gradient on tiles: both factors are packed for a block of k, which are rows of both.
#![expect(unsafe_code, reason = "calls code compiled for an instruction set")]

use super::element::Element;
use super::pack::{self, Factor, Run, STEP};
use super::product::{NR, Out, panel_len, unit_len};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::gemm::product::{ALIGN, aligned};
use std::ops::Range;

/// Most rows of a weight gradient in one task: x is packed once per task.
const ROWS: usize = 512;
/// Columns of a weight gradient that are finished before the next; whole mask words.
const COLS: usize = 512;
/// Fewest elements of each size that fill enough of a tile to be faster than vectors.
const LEAST: usize = 16;

/// Tiles are faster for `dw = dyᵀ x` of this size.
pub(crate) fn outer_pays(d: &Dims) -> bool {
    d.size('r') >= LEAST && d.size('i') >= LEAST && d.size('o') >= LEAST
}

/// Workspace of [`outer`].
pub(crate) fn outer_scratch<T: Element>(d: &Dims) -> Scratch {
    let (units, panels) = (d.size('o').min(ROWS).div_ceil(16 * T::TALL), d.size('i').min(COLS).div_ceil(NR));
    let depth = d.size('r').div_ceil(STEP).min(T::STEPS);
    Scratch { shared: 0, worker: units * unit_len::<T>(depth) + panels * panel_len::<T>(depth) + ALIGN }
}

/// `g = dyᵀ x` in `dw`, then `epilogue(row, columns, g, ds)` on every part of a row while it is in cache.
pub(crate) fn outer<T: Element>(
    c: &mut Call<'_>,
    dy: Mat<'_, T>,
    x: Mat<'_, T>,
    (dw, ds): (MatMut<'_, f32>, Option<MatMut<'_, f32>>),
    epilogue: impl Fn(usize, Range<usize>, &mut [f32], Option<&mut [f32]>) + Sync,
) {
    let tall = 16 * T::TALL;
    let one = |first: usize, mut g: MatMut<'_, f32>, mut ds: Option<MatMut<'_, f32>>, own: &mut [f32]| {
        for cols in (0..x.cols).step_by(COLS).map(|col| col..(col + COLS).min(x.cols)) {
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { contract(dy, x, first, &mut g, cols.clone(), own) }
            for row in 0..g.rows {
                let ds = ds.as_mut().map(|ds| &mut ds.row(row)[cols.clone()]);
                epilogue(first + row, cols.clone(), &mut g.row(row)[cols.clone()], ds);
            }
        }
    };
    // An element's sum is the same whatever the tasks are, so their number may follow that of the workers.
    let task = dw.rows.div_ceil(c.pool.workers()).next_multiple_of(tall).min(ROWS);
    match ds {
        None => c.pool.rows(dw.split(), task, c.workers, |first, g, own| one(first, g, None, own)),
        Some(ds) => {
            let both = (dw.split(), ds.split());
            c.pool.rows(both, task, c.workers, |first, (g, ds), own| one(first, g, Some(ds), own));
        }
    }
}

/// Rows `first..` and columns `cols` of `dyᵀ x`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn contract<T: Element>(
    dy: Mat<'_, T>,
    x: Mat<'_, T>,
    first: usize,
    g: &mut MatMut<'_, f32>,
    cols: Range<usize>,
    own: &mut [f32],
) {
    let (k, tall) = (x.rows, 16 * T::TALL);
    let (units, panels) = (g.rows.div_ceil(tall), cols.len().div_ceil(NR));
    let (dy, x) = (Factor { m: dy, mask: None }, Factor { m: x, mask: None });
    let steps = k.div_ceil(STEP);
    let rows = g.rows;
    let mut out = Out::<T>::new(g);
    for s in (0..steps).step_by(T::STEPS) {
        let (depth, k0) = ((steps - s).min(T::STEPS), s * STEP);
        let (unit, size) = (unit_len::<T>(depth), panel_len::<T>(depth));
        let (left, right) = aligned(own, units * unit + panels * size).split_at_mut(units * unit);
        pack::left(dy, Run::Across, first, k0, unit, left);
        pack::right(x, Run::Across, cols.start, k0, size, right);
        for (col, panel) in cols.clone().step_by(NR).zip(right.chunks_exact(size)) {
            for (row, left) in (0..rows).step_by(tall).zip(left.chunks_exact(unit)) {
                out.add(left, panel, (s == 0).then_some(&[0.0; NR]), row, col);
            }
        }
    }
}
