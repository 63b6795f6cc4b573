//! The micro-kernel: one tile of `c = start + a b`, written once over vectors of any width.
//!
//! ```text
//!            b[k, NR]   packed panel, or rows read in place under a bit mask
//!          +---------+
//!   a[m,k] | c[m,NR] |  m <= MR accumulator rows of two vectors stay in registers over the whole of k
//!          +---------+
//! ```
//! `a` is read through two strides: it may be rows, columns or packed strips. Every element of `c` is one chain of
//! multiply-adds in ascending k: tile heights and blocks of k never change bits.
#![expect(unsafe_code, reason = "vector loads and stores through pointers; bounds are asserted once per tile")]

mod pack;
mod portable;
mod rows;

use crate::operand::{BitMat, Mat};
use crate::ops::vmath::Simd;
use half::f16;
use std::hint::black_box;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(super) use pack::{pack_cols, pack_rows, pack_strips};
pub(crate) use portable::{Portable, Quad};
#[cfg(target_arch = "x86_64")]
pub(super) use rows::{dots, finish, listed};

/// A vector of f32 lanes.
///
/// # Safety
/// All functions: the CPU has the instruction set of the implementing type.
pub(crate) trait Lanes: Copy {
    /// Number of lanes; a divisor of 16.
    const W: usize;
    unsafe fn splat(v: f32) -> Self;
    /// Widens `W` halves.
    unsafe fn widen(p: *const f16) -> Self;
    /// `p` is valid for `W` reads.
    unsafe fn load(p: *const f32) -> Self;
    /// Lanes whose bit is clear are zero and not read; `p` is valid for the others.
    unsafe fn load_bits(p: *const f32, bits: u32) -> Self;
    /// Brings a cache line into the first level; any address will do.
    unsafe fn fetch(p: *const f32);
    /// Brings a cache line into the second level; any address will do.
    unsafe fn fetch_far(p: *const f32);
    /// `p` is valid for `W` writes.
    unsafe fn store(self, p: *mut f32);
    /// Lanes whose bit is clear are not written; `p` is valid for the others.
    unsafe fn store_bits(self, p: *mut f32, bits: u32);
    /// `self * b + c`
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self * b`
    unsafe fn mul(self, b: Self) -> Self;
    /// `self * sign(s)` with `sign(0) = 0`.
    unsafe fn mul_sign(self, s: Self) -> Self;
    /// Sum of the lanes in a fixed order.
    unsafe fn sum(self) -> f32;
    /// Sums of the lanes of the first `sums.len()` vectors, each in a fixed order.
    #[inline(always)]
    unsafe fn lane_sums(vectors: &[Self; 16], sums: &mut [f32]) {
        for (sum, v) in sums.iter_mut().zip(vectors) {
            // SAFETY: the caller has the instructions.
            *sum = unsafe { v.sum() };
        }
    }
    /// Transposes the first `W` vectors.
    unsafe fn transpose(rows: &mut [Self; 16]);
}

/// The functions that are compiled once per instruction set.
///
/// # Safety
/// All functions: the CPU has the instruction set. [`crate::contract::Variant::needs`] names it and callers of a
/// variant check it.
pub(crate) trait Kernel: Copy + Sync + 'static {
    /// Vectors for what follows a product.
    type Simd: Simd;
    /// Most rows of a tile.
    const MR: usize;
    /// Columns of a panel, two vectors; a divisor of 32, so that the bits of a panel row lie in one mask word.
    const NR: usize;
    unsafe fn tile(t: Tile<'_>);
    unsafe fn pack_rows(w: &Weight<'_>, col: usize, panel: &mut [f32]);
    unsafe fn pack_cols(w: &Weight<'_>, first: usize, panel: &mut [f32]);
    unsafe fn pack_strips(m: Mat<'_, f32>, strip: usize, out: &mut [f32]);
    unsafe fn dots(x: &[&[f32]], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32], ld: usize);
    unsafe fn finish(e: Epilogue<'_>);
    unsafe fn listed(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]);
}

/// A weight matrix of which only the elements with set bits exist.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) w: Mat<'a, f32>,
    /// Absent: every element exists.
    pub(crate) mask: Option<BitMat<'a>>,
}

impl<'a> Weight<'a> {
    /// Some rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        let words = |m: BitMat<'a>| &m.words[rows.start * m.ld..];
        let mask = self.mask.map(|m| BitMat { words: words(m), rows: rows.len(), ..m });
        Weight { w: self.w.block(rows.start, rows.len()), mask }
    }

    /// Some columns, from the first of a mask word on.
    pub(crate) fn cols(&self, cols: Range<usize>) -> Self {
        debug_assert!(cols.start.is_multiple_of(32), "columns begin at a mask word");
        let mask = self.mask.map(|m| BitMat { words: &m.words[cols.start / 32..], cols: cols.len(), ..m });
        Weight { w: Mat { data: &self.w.data[cols.start..], cols: cols.len(), ..self.w }, mask }
    }

    /// Bits of row `row` from column `col` up to the end of the mask word; zero past the last column.
    #[inline(always)]
    pub(crate) fn bits(&self, row: usize, col: usize) -> u32 {
        let valid = low_bits(self.w.cols.saturating_sub(col));
        match &self.mask {
            Some(mask) if valid != 0 => (mask.words[row * mask.ld + col / 32] >> (col % 32)) & valid,
            _ => valid,
        }
    }
}

/// The lowest `n` bits, all for 32 and more.
#[inline(always)]
pub(crate) fn low_bits(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// The right factor of a tile.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// `[k, NR]` without gaps, zero past the last column.
    Panel(&'a [f32]),
    /// Columns `col..` of rows `row..` of a matrix, read in place.
    Rows(Weight<'a>, usize, usize),
}

/// What an accumulator holds before the first product.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    /// The same `NR` values in every row.
    Row(&'a [f32]),
    /// What `c` holds.
    Keep,
}

/// One tile: `c[m, n] = start + a[m, k] b[k, n]`.
pub(crate) struct Tile<'a> {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: &'a [f32],
    pub(crate) a_row: usize,
    pub(crate) a_k: usize,
    pub(crate) b: Right<'a>,
    pub(crate) c: &'a mut [f32],
    pub(crate) c_row: usize,
    pub(crate) start: Start<'a>,
    /// What is needed next: fetched into cache while the tile is computed.
    pub(crate) ahead: &'a [f32],
    /// Elements of `c` from this tile to the next, whose lines are fetched, too; 0 if they are near anyway.
    pub(crate) next_c: usize,
}

/// A tile as pointers, after the bounds were checked.
pub(super) struct Raw {
    k: usize,
    a: *const f32,
    /// Row `m / 2` of a, from where the upper half of the rows is reached.
    a_half: *const f32,
    a_row: usize,
    a_k: usize,
    b: *const f32,
    b_k: usize,
    words: *const u32,
    words_k: usize,
    shift: usize,
    valid: u32,
    c: *mut f32,
    c_row: usize,
    next_c: usize,
    row: *const f32,
    keep: bool,
    ahead: *const f32,
    ahead_k: usize,
}

static ALL: u32 = u32::MAX;

impl Tile<'_> {
    /// Checks that everything a tile touches lies inside its slices.
    #[inline(always)]
    pub(super) fn raw(&mut self, mr: usize, nr: usize) -> (Raw, bool) {
        let Tile { m, n, k, .. } = *self;
        assert!((1..=mr).contains(&m) && (1..=nr).contains(&n), "tile {m} x {n}");
        assert!((m - 1) * self.c_row + n <= self.c.len(), "tile outside c");
        assert!(k == 0 || (m - 1) * self.a_row + (k - 1) * self.a_k < self.a.len(), "tile outside a");
        let (row, keep) = match self.start {
            Start::Zero => (std::ptr::null(), false),
            Start::Row(row) => {
                assert!(row.len() >= nr, "start row is a panel row");
                (row.as_ptr(), false)
            }
            Start::Keep => (std::ptr::null(), true),
        };
        let mut raw = Raw {
            k,
            a: self.a.as_ptr(),
            // Hidden from the compiler, which would step through all rows in one chain of additions that takes as long
            // as the products.
            a_half: black_box(self.a.as_ptr().wrapping_add(m / 2 * self.a_row)),
            a_row: self.a_row,
            a_k: self.a_k,
            b: std::ptr::null(),
            b_k: nr,
            words: &ALL,
            words_k: 0,
            shift: 0,
            valid: low_bits(n),
            c: self.c.as_mut_ptr(),
            c_row: self.c_row,
            next_c: self.next_c,
            row,
            keep,
            ahead: self.ahead.as_ptr(),
            ahead_k: self.ahead.len().div_ceil(k.max(1)),
        };
        let masked = match self.b {
            Right::Panel(panel) => {
                assert!(k * nr <= panel.len(), "tile outside its panel");
                raw.b = panel.as_ptr();
                false
            }
            Right::Rows(Weight { w, mask }, first, col) => {
                assert!(k == 0 || (first + k - 1) * w.ld + col + n <= w.data.len(), "tile outside b");
                raw.b = w.data[(first * w.ld + col).min(w.data.len())..].as_ptr();
                raw.b_k = w.ld;
                if let Some(mask) = mask.filter(|_| k > 0) {
                    assert!((first + k - 1) * mask.ld + col / 32 < mask.words.len(), "tile outside its mask");
                    assert!(col % nr == 0, "a panel begins inside its mask word");
                    raw.words = mask.words[first * mask.ld + col / 32..].as_ptr();
                    raw.words_k = mask.ld;
                    raw.shift = col % 32;
                }
                mask.is_some() || n < nr
            }
        };
        (raw, masked)
    }
}

/// Computes a tile with at most `MR` rows; the list of heights is that of the match.
macro_rules! tile_heights {
    ($L:ty, $t:expr, $MR:literal: $($m:literal)*) => {{
        let mut t = $t;
        let (m, (raw, masked)) = (t.m, t.raw($MR, 2 * <$L as Lanes>::W));
        match (m, masked) {
            // SAFETY: `raw` was checked against the slices of the tile just above; the caller has the instructions.
            $(($m, false) => unsafe { $crate::ops::gemm::micro::accumulate::<$L, $m, false>(&raw) },
            // SAFETY: as above.
            ($m, true) => unsafe { $crate::ops::gemm::micro::accumulate::<$L, $m, true>(&raw) },)*
            _ => unreachable!("tile heights up to MR are listed"),
        }
    }};
}
pub(super) use tile_heights;

/// # Safety
/// `t` passed [`Tile::raw`] with `M` rows and `2 * L::W` columns; the CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn accumulate<L: Lanes, const M: usize, const MASKED: bool>(t: &Raw) {
    // SAFETY: all accesses are inside what `Tile::raw` checked: rows m < M, k < t.k, and lanes under `t.valid`, or
    // whole panel rows.
    unsafe {
        let high = t.valid >> L::W;
        let full = t.valid == low_bits(2 * L::W);
        let mut acc = [[L::splat(0.0); 2]; M];
        if !t.row.is_null() {
            acc = [[L::load(t.row), L::load(t.row.add(L::W))]; M];
        } else if t.keep {
            for (m, acc) in acc.iter_mut().enumerate() {
                let c = t.c.add(m * t.c_row);
                *acc = if full {
                    [L::load(c), L::load(c.add(L::W))]
                } else {
                    [L::load_bits(c, t.valid), L::load_bits(c.wrapping_add(L::W), high)]
                };
            }
        }
        if !t.keep {
            for m in 0..M {
                let c = t.c.wrapping_add(m * t.c_row);
                L::fetch(c);
                L::fetch(c.wrapping_add(2 * L::W - 1));
            }
        }
        if t.next_c > 0 {
            for m in 0..M {
                let c = t.c.wrapping_add(t.next_c + m * t.c_row);
                L::fetch_far(c);
                L::fetch_far(c.wrapping_add(2 * L::W - 1));
            }
        }
        let (mut low, mut high_rows, mut b, mut words, mut ahead) = (t.a, t.a_half, t.b, t.words, t.ahead);
        for _ in 0..t.k {
            L::fetch_far(ahead);
            ahead = ahead.wrapping_add(t.ahead_k);
            let (b0, b1) = if MASKED {
                let bits = (*words >> t.shift) & t.valid;
                words = words.wrapping_add(t.words_k);
                (L::load_bits(b, bits), L::load_bits(b.wrapping_add(L::W), bits >> L::W))
            } else {
                (L::load(b), L::load(b.add(L::W)))
            };
            for (m, acc) in acc.iter_mut().enumerate() {
                let v = if m < M / 2 { *low.add(m * t.a_row) } else { *high_rows.add((m - M / 2) * t.a_row) };
                acc[0] = L::splat(v).mul_add(b0, acc[0]);
                acc[1] = L::splat(v).mul_add(b1, acc[1]);
            }
            low = low.wrapping_add(t.a_k);
            high_rows = high_rows.wrapping_add(t.a_k);
            b = b.wrapping_add(t.b_k);
        }
        for (m, acc) in acc.iter().enumerate() {
            let c = t.c.add(m * t.c_row);
            if full {
                acc[0].store(c);
                acc[1].store(c.add(L::W));
            } else {
                acc[0].store_bits(c, t.valid);
                acc[1].store_bits(c.wrapping_add(L::W), high);
            }
        }
    }
}

/// Element `n` of a masked row vector.
pub(crate) fn masked_value(v: &Weight<'_>, n: usize) -> f32 {
    if v.mask.is_none_or(|m| m.get(0, n)) { v.w.data[n] } else { 0.0 }
}

/// One row of the two gradients of a masked weight; `g` holds the contraction and becomes `g ⊙ mask`.
pub(crate) struct Epilogue<'a> {
    pub(crate) g: &'a mut [f32],
    pub(crate) mask: &'a [u32],
    pub(crate) ds: Option<&'a mut [f32]>,
    pub(crate) w: &'a [f32],
    /// Absent: counts as positive.
    pub(crate) score: Option<&'a [f32]>,
    /// Absent: all columns.
    pub(crate) candidates: Option<&'a [u32]>,
}

/// `sign(0) = 0`.
pub(crate) fn sign(v: f32) -> f32 {
    f32::from(i8::from(v > 0.0) - i8::from(v < 0.0))
}
