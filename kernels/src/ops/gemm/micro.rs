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

use crate::operand::{BitMat, Mat};
use crate::ops::vmath::{self, Simd};
use half::f16;
use std::hint::black_box;

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

impl Weight<'_> {
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
#[cfg(target_arch = "x86_64")]
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

/// Copies columns `col..col + NR` of all rows of `w` into a panel `[w.rows, NR]`, zero where bits are clear.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn pack_rows<L: Lanes>(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
    for (k, out) in panel.chunks_exact_mut(2 * L::W).take(w.w.rows).enumerate() {
        let (row, bits) = (w.w.row(k).as_ptr().wrapping_add(col), w.bits(k, col));
        // SAFETY: set bits are columns of the row (`Weight::bits`); `out` holds two vectors.
        unsafe {
            L::load_bits(row, bits).store(out.as_mut_ptr());
            L::load_bits(row.wrapping_add(L::W), bits >> L::W).store(out.as_mut_ptr().add(L::W));
        }
    }
}

/// Transposes rows `first..first + NR` of `w` into a panel `[w.cols, NR]`, zero where bits are clear.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn pack_cols<L: Lanes>(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
    let (rows, cols, nr) = (w.w.rows, w.w.cols, 2 * L::W);
    assert!(panel.len() >= cols * nr, "a panel holds all columns");
    for k in (0..cols).step_by(L::W) {
        for half in [0, L::W] {
            // SAFETY: set bits are columns of the row (`Weight::bits`); k + j < cols, so stores are inside the panel.
            unsafe {
                let mut block = [L::splat(0.0); 16];
                for (j, v) in block[..L::W].iter_mut().enumerate() {
                    let row = first + half + j;
                    if row < rows {
                        *v = L::load_bits(w.w.row(row).as_ptr().add(k), w.bits(row, k));
                    }
                }
                L::transpose(&mut block);
                for (j, v) in block[..L::W.min(cols - k)].iter().enumerate() {
                    v.store(panel.as_mut_ptr().add((k + j) * nr + half));
                }
            }
        }
    }
}

/// Copies `m` into strips of `strip` columns, each `[m.rows, strip]` without gaps; zero past the last column.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn pack_strips<L: Lanes>(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
    let (size, vectors) = (m.rows * strip, strip.div_ceil(L::W));
    assert!(vectors <= 2 && m.cols.div_ceil(strip) * size <= out.len(), "all strips have room");
    // Rows whose vectors end inside the strip.
    let overlapped = (size + 1).saturating_sub(vectors * L::W).div_ceil(strip.max(1)).min(m.rows);
    for r in 0..m.rows {
        let row = m.row(r).as_ptr();
        let mut to = out[r * strip..].as_mut_ptr();
        for col in (0..m.cols).step_by(strip) {
            // SAFETY: the row has the columns that are read, and the strip's row, or with those after it, those written.
            unsafe {
                let from = row.add(col);
                if r < overlapped && col + vectors * L::W <= m.cols {
                    // What sticks out of the strip's row is written again with the next row.
                    L::load(from).store(to);
                    if vectors == 2 {
                        L::load(from.add(L::W)).store(to.add(L::W));
                    }
                } else {
                    let (valid, width) = (low_bits((m.cols - col).min(strip)), low_bits(strip));
                    L::load_bits(from, valid).store_bits(to, width);
                    if vectors == 2 {
                        L::load_bits(from.wrapping_add(L::W), valid >> L::W)
                            .store_bits(to.wrapping_add(L::W), width >> L::W);
                    }
                }
            }
            to = to.wrapping_add(size);
        }
    }
}

/// `y[m, n] = x[m] · w[n] + bias[n]` for up to four rows of x, vectors along k. Reads the weight once, without a copy.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn dots<L: Lanes>(
    x: &[&[f32]],
    w: Mat<'_, f32>,
    bias: Option<&Weight<'_>>,
    y: &mut [f32],
    ld: usize,
) {
    // As many sums as registers hold.
    // SAFETY: the caller has the instructions.
    unsafe {
        match (x, L::W) {
            (&[a], 16) => dots_of::<L, 1, 16>([a], w, bias, y, ld),
            (&[a], _) => dots_of::<L, 1, 8>([a], w, bias, y, ld),
            (&[a, b], 16) => dots_of::<L, 2, 8>([a, b], w, bias, y, ld),
            (&[a, b], _) => dots_of::<L, 2, 4>([a, b], w, bias, y, ld),
            (&[a, b, c], 16) => dots_of::<L, 3, 4>([a, b, c], w, bias, y, ld),
            (&[a, b, c], _) => dots_of::<L, 3, 2>([a, b, c], w, bias, y, ld),
            (&[a, b, c, d], 16) => dots_of::<L, 4, 4>([a, b, c, d], w, bias, y, ld),
            (&[a, b, c, d], _) => dots_of::<L, 4, 2>([a, b, c, d], w, bias, y, ld),
            _ => unreachable!("one to four rows"),
        }
    }
}

/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn dots_of<L: Lanes, const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: Mat<'_, f32>,
    bias: Option<&Weight<'_>>,
    y: &mut [f32],
    ld: usize,
) {
    // No closures around vectors: they are compiled without the instruction set and may stay calls.
    let (rows, cols) = (w.rows, w.cols);
    assert!(x.iter().all(|x| x.len() == cols), "rows of x are as wide as w");
    let whole = cols / L::W * L::W;
    for first in (0..rows).step_by(N) {
        // Past the last row the last one is computed again; its result is not stored.
        let mut w_rows = [std::ptr::null(); N];
        for (j, w_row) in w_rows.iter_mut().enumerate() {
            *w_row = w.row((first + j).min(rows - 1)).as_ptr();
        }
        let mut sums = [0.0; 16];
        // SAFETY: whole vectors and `valid` name columns only, and all rows have `cols` columns.
        unsafe {
            let mut acc = [L::splat(0.0); 16];
            for k in (0..whole).step_by(L::W) {
                for j in 0..N {
                    let b = L::load(w_rows[j].add(k));
                    for m in 0..M {
                        acc[m * N + j] = L::load(x[m].as_ptr().add(k)).mul_add(b, acc[m * N + j]);
                    }
                }
            }
            if whole < cols {
                let valid = low_bits(cols - whole);
                for j in 0..N {
                    let b = L::load_bits(w_rows[j].add(whole), valid);
                    for m in 0..M {
                        acc[m * N + j] = L::load_bits(x[m].as_ptr().add(whole), valid).mul_add(b, acc[m * N + j]);
                    }
                }
            }
            L::lane_sums(&acc, &mut sums[..M * N]);
        }
        for (m, sums) in sums.chunks_exact(N).take(M).enumerate() {
            for (j, sum) in sums.iter().take(rows - first).enumerate() {
                let n = first + j;
                y[m * ld + n] = sum + bias.map_or(0.0, |b| masked_value(b, n));
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

/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn finish<L: Lanes>(e: Epilogue<'_>) {
    let Epilogue { g, mask, mut ds, w, score, candidates } = e;
    let cols = g.len();
    assert!(w.len() == cols && score.is_none_or(|s| s.len() == cols), "rows of one tensor are equally long");
    assert!(ds.as_ref().is_none_or(|s| s.len() == cols), "rows of one tensor are equally long");
    for j in (0..cols).step_by(L::W) {
        let valid = low_bits(cols - j);
        let bits = |words: &[u32]| (words[j / 32] >> (j % 32)) & valid;
        let at = candidates.map_or(valid, bits);
        // SAFETY: `valid` names columns only, and all rows have `cols` columns.
        unsafe {
            let here = g.as_mut_ptr().add(j);
            if let Some(ds) = &mut ds {
                let mut s = L::load_bits(here, at).mul(L::load_bits(w.as_ptr().add(j), at));
                if let Some(score) = score {
                    s = s.mul_sign(L::load_bits(score.as_ptr().add(j), at));
                }
                s.store_bits(ds.as_mut_ptr().add(j), valid);
            }
            L::load_bits(here, bits(mask)).store_bits(here, valid);
        }
    }
}

/// `out[NR] = start + sum of values[n] * panel[cols[n], NR]`. Order: even and odd n apart, then their sum.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn listed<L: Lanes>(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]) {
    let nr = 2 * L::W;
    assert!(cols.len() == values.len() && out.len() == nr, "one column per value, one sum per panel column");
    let row = |col: u16| panel[usize::from(col) * nr..][..nr].as_ptr();
    // SAFETY: `row` checks that two vectors can be read; blocks are `W` long; `out` holds two vectors.
    unsafe {
        let mut acc = [[L::splat(start); 2], [L::splat(0.0); 2]];
        let (mut cols, mut values) = (cols, values);
        while !cols.is_empty() {
            let mut wide = [0.0; 16];
            let count = cols.len().min(L::W);
            if count == L::W {
                L::widen(values.as_ptr()).store(wide.as_mut_ptr());
            } else {
                wide.iter_mut().zip(values).for_each(|(wide, v)| *wide = v.to_f32());
            }
            for n in 0..count {
                let (v, b) = (L::splat(wide[n]), row(cols[n]));
                let acc = &mut acc[n % 2];
                acc[0] = v.mul_add(L::load(b), acc[0]);
                acc[1] = v.mul_add(L::load(b.add(L::W)), acc[1]);
            }
            (cols, values) = (&cols[count..], &values[count..]);
        }
        let one = L::splat(1.0);
        acc[1][0].mul_add(one, acc[0][0]).store(out.as_mut_ptr());
        acc[1][1].mul_add(one, acc[0][1]).store(out.as_mut_ptr().add(L::W));
    }
}

/// Four lanes of plain Rust, which every 128-bit instruction set can hold.
#[derive(Clone, Copy)]
pub(crate) struct Quad([f32; 4]);

impl Lanes for Quad {
    const W: usize = 4;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Quad {
        Quad([v; 4])
    }

    #[inline(always)]
    unsafe fn widen(p: *const f16) -> Quad {
        // SAFETY: the caller's promise.
        Quad(unsafe { p.cast::<[f16; 4]>().read_unaligned() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Quad {
        // SAFETY: the caller's promise.
        Quad(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bits(p: *const f32, bits: u32) -> Quad {
        // SAFETY: only lanes with set bits are read, which is the caller's promise.
        Quad(std::array::from_fn(|j| if bits >> j & 1 == 1 { unsafe { *p.add(j) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn fetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn fetch_far(_: *const f32) {}

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_bits(self, p: *mut f32, bits: u32) {
        for (j, v) in self.0.into_iter().enumerate() {
            if bits >> j & 1 == 1 {
                // SAFETY: only lanes with set bits are written, which is the caller's promise.
                unsafe { *p.add(j) = v }
            }
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Quad, c: Quad) -> Quad {
        // Where no instruction does it, `mul_add` is a call.
        const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        let one = |j: usize| if FUSED { self.0[j].mul_add(b.0[j], c.0[j]) } else { self.0[j] * b.0[j] + c.0[j] };
        Quad(std::array::from_fn(one))
    }

    #[inline(always)]
    unsafe fn mul(self, b: Quad) -> Quad {
        Quad(std::array::from_fn(|j| self.0[j] * b.0[j]))
    }

    #[inline(always)]
    unsafe fn mul_sign(self, s: Quad) -> Quad {
        Quad(std::array::from_fn(|j| self.0[j] * sign(s.0[j])))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Quad; 16]) {
        for a in 0..4 {
            for b in a + 1..4 {
                let v = rows[a].0[b];
                rows[a].0[b] = rows[b].0[a];
                rows[b].0[a] = v;
            }
        }
    }
}

/// `sign(0) = 0`.
pub(crate) fn sign(v: f32) -> f32 {
    f32::from(i8::from(v > 0.0) - i8::from(v < 0.0))
}

/// The portable kernel.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    type Simd = vmath::Portable;
    const MR: usize = 4;
    const NR: usize = 8;

    unsafe fn tile(t: Tile<'_>) {
        tile_heights!(Quad, t, 4: 1 2 3 4)
    }

    unsafe fn pack_rows(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_rows::<Quad>(w, col, panel) }
    }

    unsafe fn pack_cols(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_cols::<Quad>(w, first, panel) }
    }

    unsafe fn pack_strips(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_strips::<Quad>(m, strip, out) }
    }

    unsafe fn dots(x: &[&[f32]], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32], ld: usize) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { dots::<Quad>(x, w, bias, y, ld) }
    }

    unsafe fn finish(e: Epilogue<'_>) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { finish::<Quad>(e) }
    }

    unsafe fn listed(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { listed::<Quad>(panel, cols, values, start, out) }
    }
}
