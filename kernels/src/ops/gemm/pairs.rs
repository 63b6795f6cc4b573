//! Products of bf16 with AVX-512: one instruction adds two products to each of 16 f32 sums.
//!
//! ```text
//!               b[k/2, 32]   packed panel; a lane holds two neighbours of k, and zero past an odd end
//!             +------------+
//!   a[m, k/2] | c[m, 32]   |  m <= 12 rows, read in place two neighbours at a time
//!             +------------+
//! ```
//! Every element of `c` is one chain over pairs of k ascending: tile heights and blocks of k never change bits. The
//! instruction takes denormals for zero and rounds after each of the two additions.
//!
//! Zen 4 does twice as many products as with f32 multiply-adds. An Intel Xeon issues the instruction every other cycle and
//! reaches half the f32 rate; Xeons that have it and no matrix tiles were not measured.
#![expect(unsafe_code, reason = "vector intrinsics; bounds are asserted once per tile")]

use super::finish::{Finish, finish};
use super::micro::{Start, Weight, low_bits, masked_value};
use super::product::{ALIGN, aligned, heights};
use super::widened::HalfWeight;
use crate::contract::Dims;
use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath;
use half::bf16;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

/// Most rows of a tile, and its columns.
const MR: usize = 12;
const NR: usize = 32;
/// Pairs of k whose panel (24 KiB) stays in the first-level cache.
const PAIR_BLOCK: usize = 192;
/// Most rows that meet all panels before the next rows do: with a panel they fit the first-level cache.
const SUB_ROWS: usize = 36;
/// Most rows of the output in one task.
const ROW_TASK: usize = 240;
/// Pairs of a weight that stay in the second-level cache.
const L2_PAIRS: usize = 1 << 18;
/// Columns of a larger weight that are finished before the next.
const GROUP: usize = 1024;
/// Rows of x that are farther apart are copied, if there are at least so many columns to use the copy: in place they
/// fall on few sets of the first-level cache.
const COPY_LD: usize = 512;
const COPY_COLS: usize = 256;
/// Elements from one copied row to the next: an odd number of cache lines.
const COPY_ROW: usize = 2 * PAIR_BLOCK + 32;

/// Elements that [`pack`] fills.
pub(crate) fn forward_len(d: &Dims) -> usize {
    panels_len(d.size('i'), d.size('o'))
}

/// Elements that [`pack_back`] fills.
pub(crate) fn back_len(d: &Dims) -> usize {
    panels_len(d.size('o'), d.size('i'))
}

fn panels_len(k: usize, n: usize) -> usize {
    // One row more than pairs of k: the bias.
    n.div_ceil(NR) * NR * (k.div_ceil(2) + 1) + ALIGN
}

/// Makes the panels of `y = x wᵀ + bias`. Elements with cleared bits are zero: what is behind them does not count as a number.
pub(crate) fn pack(c: &mut Call<'_>, w: HalfWeight<'_>, bias: Option<Weight<'_>>) {
    let (n, pairs) = (w.w.rows, w.w.cols.div_ceil(2));
    let (panels, start) = split_panels(c.prepared, pairs, n);
    for (j, start) in start.iter_mut().enumerate() {
        *start = bias.filter(|_| j < n).map_or(0.0, |b| masked_value(&b, j));
    }
    let size = pairs * NR;
    let count = panels.len().checked_div(size).unwrap_or(0);
    c.pool.rows(MatMut::dense(panels, count, size).split(), 1, &mut [], |at, panel, _| {
        for col in 0..NR {
            let lanes = panel.data[col..].iter_mut().step_by(NR);
            match at * NR + col {
                row if row < n => pack_row(w, row, lanes),
                _ => lanes.for_each(|lane| *lane = 0.0),
            }
        }
    });
}

/// Pairs of a row as 32-bit lanes, the lower element in the lower half.
fn pack_row<'a>(w: HalfWeight<'_>, row: usize, lanes: impl Iterator<Item = &'a mut f32>) {
    /// Which halves of a lane stay under two bits.
    const KEEP: [u32; 4] = [0, 0xFFFF, 0xFFFF_0000, u32::MAX];
    let words = w.mask.as_ref().map(|mask| mask.row(row));
    for (j, (lane, pair)) in lanes.zip(w.w.row(row).chunks(2)).enumerate() {
        let high = pair.get(1).map_or(0, |v| u32::from(v.to_bits()));
        let both = high << 16 | u32::from(pair[0].to_bits());
        let bits = words.map_or(3, |words| words[j / 16] >> (2 * (j % 16)) & 3);
        *lane = f32::from_bits(both & KEEP[bits as usize]);
    }
}

/// Makes the panels of `dx = dy w`, elements with cleared bits zero.
pub(crate) fn pack_back(c: &mut Call<'_>, w: HalfWeight<'_>) {
    let (k, n, pairs) = (w.w.rows, w.w.cols, w.w.rows.div_ceil(2));
    let (panels, start) = split_panels(c.prepared, pairs, n);
    start.fill(0.0);
    let bits = |row: usize, col: usize| match row < k && w.mask.is_none_or(|mask| mask.get(row, col)) {
        true => u32::from(w.w.row(row)[col].to_bits()),
        false => 0,
    };
    let size = pairs * NR;
    let count = panels.len().checked_div(size).unwrap_or(0);
    c.pool.rows(MatMut::dense(panels, count, size).split(), 1, &mut [], |at, panel, _| {
        for (j, lanes) in panel.data.chunks_exact_mut(NR).enumerate() {
            for (lane, col) in lanes.iter_mut().zip(at * NR..) {
                let both = if col < n { bits(2 * j + 1, col) << 16 | bits(2 * j, col) } else { 0 };
                *lane = f32::from_bits(both);
            }
        }
    });
}

/// Rows of x times the panels of [`pack`] or [`pack_back`].
pub(crate) fn product(c: &mut Call<'_>, x: Mat<'_, bf16>, y: MatMut<'_, f32>, after: Finish<'_>) {
    let (rows, n, pairs, workers) = (x.rows, y.cols, x.cols.div_ceil(2), c.pool.workers());
    if rows == 0 || n == 0 {
        return;
    }
    let (panels, start) = split_panels(c.prepared, pairs, n);
    let product = Product { x, panels, start, pairs };
    let tasks = rows.div_ceil(ROW_TASK * workers) * workers;
    let task = rows.div_ceil(tasks);
    let task = if task > 2 * SUB_ROWS { task.next_multiple_of(MR) } else { task };
    let Finish { gelu, slope } = after;
    c.pool.rows((y.split(), gelu.map(MatMut::split)), task, &mut [], |first, (mut y, mut gelu), _| {
        product.rows(first, &mut y);
        let all = 0..y.rows;
        finish::<vmath::Avx512>(&mut y, &mut gelu, slope, first, all);
    });
}

/// Panels and the start row, at a cache line.
fn split_panels(prepared: &mut [f32], pairs: usize, n: usize) -> (&mut [f32], &mut [f32]) {
    let width = n.div_ceil(NR) * NR;
    aligned(prepared, width * (pairs + 1)).split_at_mut(width * pairs)
}

/// `x` times panels.
struct Product<'a> {
    x: Mat<'a, bf16>,
    panels: &'a [f32],
    start: &'a [f32],
    /// Of k.
    pairs: usize,
}

impl Product<'_> {
    /// Rows `first..`.
    ///
    /// A weight that fits the second-level cache is walked whole for every [`SUB_ROWS`] rows; a larger one by blocks of
    /// k and groups of columns, each for all rows.
    fn rows(&self, first: usize, y: &mut MatMut<'_, f32>) {
        let (rows, n, pairs) = (y.rows, y.cols, self.pairs);
        let blocks = || (0..pairs.max(1)).step_by(PAIR_BLOCK).map(|k| k..(k + PAIR_BLOCK).min(pairs));
        let subs = || (0..rows).step_by(SUB_ROWS).map(|s| s..(s + SUB_ROWS).min(rows));
        let mut room;
        let own: &mut [bf16] = match self.x.ld > COPY_LD && n >= COPY_COLS {
            true => {
                room = [bf16::ZERO; SUB_ROWS * COPY_ROW];
                &mut room
            }
            false => &mut [],
        };
        let mut block = |s: Range<usize>, ks, cols| self.block(first + s.start, s, ks, cols, y, own);
        if pairs * n <= L2_PAIRS {
            for s in subs() {
                blocks().for_each(|ks| block(s.clone(), ks, 0..n));
            }
            return;
        }
        for cols in (0..n).step_by(GROUP).map(|j| j..(j + GROUP).min(n)) {
            for ks in blocks() {
                subs().for_each(|s| block(s, ks.clone(), cols.clone()));
            }
        }
    }

    /// The share of pairs `ks` in some rows of `y`, rows `first..` of x, and some columns.
    fn block(
        &self,
        first: usize,
        rows: Range<usize>,
        ks: Range<usize>,
        cols: Range<usize>,
        y: &mut MatMut<'_, f32>,
        own: &mut [bf16],
    ) {
        let (size, k) = (self.pairs * NR, 2 * ks.start..(2 * ks.end).min(self.x.cols));
        let (x, x_row) = if own.is_empty() {
            (&self.x.data[(first * self.x.ld + k.start).min(self.x.data.len())..], self.x.ld)
        } else {
            for (r, row) in own.chunks_exact_mut(COPY_ROW).take(rows.len()).enumerate() {
                row[..k.len()].copy_from_slice(&self.x.row(first + r)[k.clone()]);
            }
            (&*own, COPY_ROW)
        };
        let mut col = cols.start;
        while col < cols.end {
            // Few rows are few chains: four panels at a time keep the units busy.
            let wide = if rows.len() <= 3 && col + 4 * NR <= cols.end { 4 } else { 1 };
            let panels = &self.panels[col / NR * size + ks.start * NR..][..(wide - 1) * size + ks.len() * NR];
            let start = if ks.start == 0 { Start::Row(&self.start[col..]) } else { Start::Keep };
            for (m0, m) in heights(rows.len(), MR) {
                let tile = Tile {
                    m,
                    n: (cols.end - col).min(wide * NR),
                    k: k.len(),
                    x: &x[(m0 * x_row).min(x.len())..],
                    x_row,
                    panels,
                    stride: size,
                    wide,
                    y: &mut y.data[(rows.start + m0) * y.ld + col..],
                    y_row: y.ld,
                    start,
                };
                // SAFETY: the contract lists this code under `Isa::Avx512Bf16`.
                unsafe { tile.run() }
            }
            col += wide * NR;
        }
    }
}

/// One tile: `y[m, n] = start + x[m, k] panels[k, n]`.
struct Tile<'a> {
    m: usize,
    n: usize,
    k: usize,
    x: &'a [bf16],
    x_row: usize,
    panels: &'a [f32],
    /// From one panel to the next.
    stride: usize,
    /// Panels.
    wide: usize,
    y: &'a mut [f32],
    y_row: usize,
    start: Start<'a>,
}

/// A tile as pointers, after the bounds were checked.
struct Raw {
    pairs: usize,
    odd: bool,
    x: *const bf16,
    /// Row `m / 2` of x, from where the upper half of the rows is reached.
    x_half: *const bf16,
    x_row: usize,
    b: *const f32,
    stride: usize,
    y: *mut f32,
    y_row: usize,
    /// Null if the sums start from `y`.
    row: *const f32,
    valid: u32,
}

impl Tile<'_> {
    /// # Safety
    /// The CPU has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn run(mut self) {
        let raw = self.raw();
        macro_rules! by_height {
            ($($wide:literal: $($m:literal)*;)*) => {
                match (self.wide, self.m) {
                    // SAFETY: `raw` was checked against the slices of the tile; this function has the instructions.
                    $($(($wide, $m) => unsafe { accumulate::<$m, $wide>(&raw) },)*)*
                    _ => unreachable!("tile heights are listed"),
                }
            };
        }
        by_height!(1: 1 2 3 4 5 6 7 8 9 10 11 12; 4: 1 2 3;)
    }

    /// Checks that everything the tile touches lies inside its slices.
    fn raw(&mut self) -> Raw {
        let Tile { m, n, k, wide, .. } = *self;
        assert!(m >= 1 && (1..=wide * NR).contains(&n) && (wide == 1 || n == wide * NR), "tile {m} x {n}");
        assert!((m - 1) * self.y_row + n <= self.y.len(), "tile outside y");
        assert!(k == 0 || (m - 1) * self.x_row + k <= self.x.len(), "tile outside x");
        assert!((wide - 1) * self.stride + k.div_ceil(2) * NR <= self.panels.len(), "tile outside its panels");
        let row = match self.start {
            Start::Row(row) => {
                assert!(row.len() >= wide * NR, "start row is as wide as the panels");
                row.as_ptr()
            }
            Start::Zero | Start::Keep => std::ptr::null(),
        };
        Raw {
            pairs: k / 2,
            odd: k % 2 == 1,
            x: self.x.as_ptr(),
            // Hidden from the compiler, which would step through all rows in one chain of additions.
            x_half: black_box(self.x.as_ptr().wrapping_add(m / 2 * self.x_row)),
            x_row: self.x_row,
            b: self.panels.as_ptr(),
            stride: self.stride,
            y: self.y.as_mut_ptr(),
            y_row: self.y_row,
            row,
            valid: low_bits(n),
        }
    }
}

/// # Safety
/// `t` passed [`Tile::raw`] with `M` rows and `P` panels; the CPU has the instructions.
#[inline(always)]
unsafe fn accumulate<const M: usize, const P: usize>(t: &Raw) {
    // SAFETY: all accesses are inside what `Tile::raw` checked: rows m < M, pairs of k, whole panel rows, and lanes of y
    // under `t.valid`.
    unsafe {
        let (low_lanes, high_lanes) = (t.valid as u16, (t.valid >> 16) as u16);
        let mut acc = [[[_mm512_setzero_ps(); 2]; P]; M];
        for (m, acc) in acc.iter_mut().enumerate() {
            for (p, acc) in acc.iter_mut().enumerate() {
                let y = t.y.wrapping_add(m * t.y_row + p * NR);
                *acc = if t.row.is_null() {
                    [_mm512_maskz_loadu_ps(low_lanes, y), _mm512_maskz_loadu_ps(high_lanes, y.wrapping_add(16))]
                } else {
                    _mm_prefetch::<_MM_HINT_T0>(y.cast());
                    _mm_prefetch::<_MM_HINT_T0>(y.wrapping_add(NR - 1).cast());
                    let row = t.row.add(p * NR);
                    [_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16))]
                };
            }
        }
        let (mut low, mut high, mut b) = (t.x, t.x_half, t.b);
        for _ in 0..t.pairs {
            add_pairs::<M, P, false>(&mut acc, t, low, high, b);
            low = low.wrapping_add(2);
            high = high.wrapping_add(2);
            b = b.wrapping_add(NR);
        }
        if t.odd {
            add_pairs::<M, P, true>(&mut acc, t, low, high, b);
        }
        for (m, acc) in acc.iter().enumerate() {
            for (p, [low, high]) in acc.iter().enumerate() {
                let y = t.y.wrapping_add(m * t.y_row + p * NR);
                _mm512_mask_storeu_ps(y, low_lanes, *low);
                _mm512_mask_storeu_ps(y.wrapping_add(16), high_lanes, *high);
            }
        }
    }
}

/// Adds one pair of k, or the last element alone, to all sums.
///
/// # Safety
/// Rows at `low` and `high` have the pair or element, and panels at `b` its lanes; the CPU has the instructions.
#[inline(always)]
unsafe fn add_pairs<const M: usize, const P: usize, const ODD: bool>(
    acc: &mut [[[__m512; 2]; P]; M],
    t: &Raw,
    low: *const bf16,
    high: *const bf16,
    b: *const f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut panels = [[_mm512_setzero_si512(); 2]; P];
        for (p, panel) in panels.iter_mut().enumerate() {
            let b = b.add(p * t.stride);
            *panel = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())];
        }
        for (m, acc) in acc.iter_mut().enumerate() {
            let x = if m < M / 2 { low.add(m * t.x_row) } else { high.add((m - M / 2) * t.x_row) };
            let pair = if ODD { i32::from((*x).to_bits()) } else { x.cast::<i32>().read_unaligned() };
            let pair = halves(_mm512_set1_epi32(pair));
            for (acc, panel) in acc.iter_mut().zip(&panels) {
                acc[0] = _mm512_dpbf16_ps(acc[0], pair, halves(panel[0]));
                acc[1] = _mm512_dpbf16_ps(acc[1], pair, halves(panel[1]));
            }
        }
    }
}

/// The same bits as 32 bf16.
#[inline(always)]
fn halves(v: __m512i) -> __m512bh {
    // SAFETY: both are 512 plain bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(v) }
}
