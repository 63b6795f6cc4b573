//! Rows that meet columns packed once: for what looks at products and keeps few of them.
#![expect(unsafe_code, reason = "vectors of an instruction set")]

use super::element::Element;
use super::pack::{self, Factor, Run, STEP};
use super::product::{NR, panel_len, unit_len};
use super::tile::{Sums, TILE, Tiles};
use crate::operand::Mat;
use crate::ops::gemm::product::{ALIGN, aligned};
use std::arch::x86_64::__m512;

/// Workspace of [`meet`] for `n` columns of `k` elements.
pub(crate) fn meet_room(n: usize, k: usize) -> usize {
    let steps = k.div_ceil(STEP);
    n.div_ceil(NR) * panel_len::<f32>(steps) + unit_len::<f32>(steps) + ALIGN
}

/// Calls `f(row, column, products)` for every row and 32 columns at a time: for each 16 rows all columns ascending, for each
/// 32 of these all rows. Products past the last column are zero, or NaN if the row has one. `columns` has a row for each;
/// there is at least one element of k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) fn meet(
    rows: Mat<'_, f32>,
    columns: Mat<'_, f32>,
    room: &mut [f32],
    mut f: impl FnMut(usize, usize, [__m512; 2]),
) {
    let steps = rows.cols.div_ceil(STEP);
    let (unit, size) = (unit_len::<f32>(steps), panel_len::<f32>(steps));
    let room = aligned(room, meet_room(columns.rows, rows.cols) - ALIGN);
    let (left, panels) = room.split_at_mut(unit);
    pack::right(Factor { m: columns, mask: None }, Run::Along, 0, 0, size, panels);
    // SAFETY: only variants that need tiles come here, and they have no others.
    let tiles = unsafe { Tiles::new() };
    let mut sums = Sums([0.0; 4 * TILE]);
    for first in (0..rows.rows).step_by(16) {
        pack::left(Factor { m: rows, mask: None }, Run::Along, first, 0, unit, left);
        for (panel, column) in panels.chunks_exact(size).zip((0..).step_by(NR)) {
            f32::multiply(&tiles, left, panel, &mut sums);
            for m in 0..(rows.rows - first).min(16) {
                // SAFETY: this function has the instructions.
                f(first + m, column, unsafe { f32::row(&sums, m) });
            }
        }
    }
}
