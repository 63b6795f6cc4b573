//! Panels and strips of a matrix, in the order in which a tile reads them.
#![expect(unsafe_code, reason = "vector loads and stores through pointers; bounds are asserted once per call")]

use super::{Lanes, Weight, low_bits};
use crate::operand::Mat;

/// Copies columns `col..col + NR` of all rows of `w` into a panel `[w.rows, NR]`, zero where bits are clear.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(in crate::ops::gemm) unsafe fn pack_rows<L: Lanes>(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
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
pub(in crate::ops::gemm) unsafe fn pack_cols<L: Lanes>(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
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
pub(in crate::ops::gemm) unsafe fn pack_strips<L: Lanes>(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
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
