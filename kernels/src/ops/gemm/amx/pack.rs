//! Factors of a product as tiles.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use super::element::Element;
use super::tile::TILE;
use crate::operand::{BitMat, Mat};
use crate::ops::gemm::micro::{Lanes, low_bits};
use std::arch::x86_64::*;

/// Elements of k in a step.
pub(super) const STEP: usize = 32;

/// A factor with its elements under a mask.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a, T> {
    pub(super) m: Mat<'a, T>,
    /// Absent: every element exists.
    pub(super) mask: Option<BitMat<'a>>,
}

impl<T> Factor<'_, T> {
    /// Bits of `count` elements (32 at most) from row `row` and column `col` on; clear outside the matrix.
    #[inline(always)]
    fn bits(&self, row: usize, col: usize, count: usize) -> u32 {
        if row >= self.m.rows {
            return 0;
        }
        let valid = low_bits(self.m.cols.saturating_sub(col).min(count));
        match &self.mask {
            // `col % 32` is 0 or 16: no count reaches into the next word.
            Some(mask) if valid != 0 => mask.row(row)[col / 32] >> (col % 32) & valid,
            _ => valid,
        }
    }

    /// Whether every element of a block exists.
    #[inline(always)]
    fn whole(&self, row: usize, rows: usize, col: usize, cols: usize) -> bool {
        self.mask.is_none() && row + rows <= self.m.rows && col + cols <= self.m.cols
    }

    /// Where an element is, or would be: never read outside the matrix.
    #[inline(always)]
    fn at(&self, row: usize, col: usize) -> *const T {
        self.m.data.as_ptr().wrapping_add(row * self.m.ld + col)
    }
}

/// Which way k runs in a factor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Along rows: `x` and `dy` of products, the weight of `y = x wᵀ`.
    Along,
    /// Across rows: the weight of `dx = dy w`, both factors of `dw = dyᵀ x`.
    Across,
}

/// Fills the tiles of the left factor for rows `first..` of the product and the steps of k from `k0` on: units of 16 * TALL
/// rows; of each all steps, of each step all rows of tiles, of each of those all parts. `unit` is the length of one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn left<T: Element>(f: Factor<'_, T>, run: Run, first: usize, k0: usize, unit: usize, to: &mut [f32]) {
    factor(f, (run, run == Run::Across), T::TALL, (first, k0), unit, to);
}

/// Fills panels of the right factor for columns `first..` of the product and the steps of k from `k0` on: of each panel all
/// steps, of each step both columns of tiles, of each of those all parts. `panel` is the length of one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn right<T: Element>(f: Factor<'_, T>, run: Run, first: usize, k0: usize, panel: usize, to: &mut [f32]) {
    factor(f, (run, run == Run::Along), 2, (first, k0), panel, to);
}

/// Fills units of `side` tiles side by side in every step, turned where a vector has to become a column.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn factor<T: Element>(
    f: Factor<'_, T>,
    (run, turned): (Run, bool),
    side: usize,
    (first, k0): (usize, usize),
    unit: usize,
    to: &mut [f32],
) {
    let (step, size, units) = (side * T::PARTS * TILE, T::PARTS * TILE, to.len() / unit);
    let (steps, blocks) = (unit / step, units * side);
    // Where the tiles of a block of 16 rows or columns begin, in the first step.
    let place = |b: usize| b / side * unit + b % side * size;
    match run {
        Run::Along => {
            for b in 0..blocks {
                let (first, to) = (first + 16 * b, &mut to[place(b)..][..(steps - 1) * step + size]);
                match f.whole(first, 16, k0, STEP * steps) {
                    true => along::<T, true>(f, first, k0, step, to),
                    false => along::<T, false>(f, first, k0, step, to),
                }
            }
        }
        Run::Across => {
            for (s, k) in (k0..).step_by(STEP).enumerate().take(steps) {
                let to = &mut to[s * step..];
                match f.whole(k, STEP, first, 16 * blocks) {
                    true => across::<T, true>(f, (first, blocks), k, place, to),
                    false => across::<T, false>(f, (first, blocks), k, place, to),
                }
            }
        }
    }
    if turned {
        to.chunks_exact_mut(TILE).for_each(|tile| turn(tile));
    }
}

/// All steps of 16 rows along which k runs, a row of each tile for each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn along<T: Element, const WHOLE: bool>(f: Factor<'_, T>, first: usize, k0: usize, step: usize, to: &mut [f32]) {
    for m in 0..16 {
        for (s, to) in to.chunks_mut(step).enumerate() {
            let (row, k) = (first + m, k0 + STEP * s);
            let bits = if WHOLE { u32::MAX } else { f.bits(row, k, STEP) };
            // SAFETY: set bits are elements of the matrix; this function has the instructions.
            store::<T>(unsafe { T::along(f.at(row, k), bits) }, m, to);
        }
    }
}

/// A step of k across rows for blocks of 16 columns from `first` on, a row of each tile for each lane. Rows are read from end
/// to end, as memory likes it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn across<T: Element, const WHOLE: bool>(
    f: Factor<'_, T>,
    (first, blocks): (usize, usize),
    k: usize,
    place: impl Fn(usize) -> usize,
    to: &mut [f32],
) {
    for j in 0..16 {
        let rows = T::pair(j).map(|e| k + e);
        for b in 0..blocks {
            let col = first + 16 * b;
            let bits = rows.map(|row| if WHOLE { u32::MAX } else { f.bits(row, col, 16) });
            // SAFETY: set bits are elements of the matrix; this function has the instructions.
            store::<T>(unsafe { T::across(rows.map(|row| f.at(row, col)), bits) }, j, &mut to[place(b)..]);
        }
    }
}

/// Row `row` of the tile of each part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn store<T: Element>(parts: [__m512i; 3], row: usize, to: &mut [f32]) {
    assert!(row < 16 && to.len() >= T::PARTS * TILE, "a row of tiles");
    for (p, part) in parts.iter().enumerate().take(T::PARTS) {
        // SAFETY: the row lies in a tile that `to` has.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().add(p * TILE + 16 * row).cast(), *part) }
    }
}

/// Rows of a tile to columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn turn(tile: &mut [f32]) {
    assert!(tile.len() == TILE, "a tile");
    let mut rows = [_mm512_setzero_ps(); 16];
    // SAFETY: a tile has 16 rows of 16 lanes; this function has the instructions.
    unsafe {
        for (m, v) in rows.iter_mut().enumerate() {
            *v = _mm512_loadu_ps(tile.as_ptr().add(16 * m));
        }
        __m512::transpose(&mut rows);
        for (m, v) in rows.iter().enumerate() {
            _mm512_storeu_ps(tile.as_mut_ptr().add(16 * m), *v);
        }
    }
}
