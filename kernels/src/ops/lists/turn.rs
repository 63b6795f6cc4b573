//! Blocks of a matrix turned from rows to columns.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use crate::operand::Mat;
use crate::ops::gemm::micro::{Lanes, low_bits};
use crate::par::TileMut;

/// A square block that is turned from memory to memory.
///
/// # Safety
/// The CPU has the instruction set of the implementing type.
pub(crate) trait Turn: Lanes {
    /// `to[c * to_ld + r] = from[r * from_ld + c]` for `r` and `c` below `W`; all are valid to access.
    unsafe fn block(from: *const f32, from_ld: usize, to: *mut f32, to_ld: usize);
}

/// `panel[j, q W..] = x[row(q).., k0 + j]` for `Q` vectors of rows, those past the last one zero; panel rows are `pitch`
/// long.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn turn_in<L: Turn, const Q: usize>(
    x: &Mat<'_, f32>,
    row: impl Fn(usize) -> usize,
    k0: usize,
    depth: usize,
    pitch: usize,
    panel: &mut [f32],
) {
    assert!(pitch >= Q * L::W && k0 + depth <= x.cols, "a panel row holds a strip");
    let panel = &mut panel[..depth * pitch];
    for j0 in (0..depth).step_by(L::W) {
        let wide = (depth - j0).min(L::W);
        for q in 0..Q {
            let row = row(q);
            let rows = x.rows.saturating_sub(row).min(L::W);
            // SAFETY: j0 + wide <= depth and pitch >= Q * W, so that stores stay in the panel; loads take columns
            // k0 + j0.. of rows that exist.
            unsafe {
                let to = panel.as_mut_ptr().add(j0 * pitch + q * L::W);
                if rows == L::W && wide == L::W {
                    let from = &x.data[row * x.ld + k0 + j0..][..(L::W - 1) * x.ld + L::W];
                    L::block(from.as_ptr(), x.ld, to, pitch);
                    continue;
                }
                let mut block = [L::splat(0.0); 16];
                for (m, v) in block[..rows].iter_mut().enumerate() {
                    *v = L::load_bits(x.row(row + m)[k0 + j0..].as_ptr(), low_bits(wide));
                }
                L::transpose(&mut block);
                for (j, v) in block[..wide].iter().enumerate() {
                    v.store(to.add(j * pitch));
                }
            }
        }
    }
}

/// `y[row(q).., n0 + j] = sums[j, q W..]` for `count` outputs and `Q` vectors of rows; rows of `sums` are `pitch` long.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn turn_out<L: Turn, const Q: usize>(
    sums: &[f32],
    pitch: usize,
    count: usize,
    n0: usize,
    row: impl Fn(usize) -> usize,
    y: &mut TileMut<'_>,
) {
    let padded = count.next_multiple_of(L::W);
    assert!(pitch >= Q * L::W && sums.len() >= padded * pitch && n0 + count <= y.cols, "sums of one block");
    for j0 in (0..count).step_by(L::W) {
        let wide = (count - j0).min(L::W);
        for q in 0..Q {
            let row = row(q);
            let rows = y.rows.saturating_sub(row).min(L::W);
            let (to, ld) = y.at((row, rows), (n0 + j0, wide));
            // SAFETY: j0 + W <= `padded` rows of sums; `to` begins `rows` x `wide` elements.
            unsafe {
                let from = sums.as_ptr().add(j0 * pitch + q * L::W);
                if rows == L::W && wide == L::W {
                    L::block(from, pitch, to, ld);
                    continue;
                }
                let mut block = [L::splat(0.0); 16];
                for (j, v) in block[..L::W].iter_mut().enumerate() {
                    *v = L::load(from.add(j * pitch));
                }
                L::transpose(&mut block);
                for (m, v) in block[..rows].iter().enumerate() {
                    v.store_bits(to.add(m * ld), low_bits(wide));
                }
            }
        }
    }
}
