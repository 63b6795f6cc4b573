//! CPU code: the plain loop, and strips of rows of x.
//!
//! ```text
//!   x rows first..first + NR  --transpose-->  panel[i, NR]
//!   sums[o, NR] = bias + value * panel[col]   one broadcast and two multiply-adds per kept weight and strip
//!   sums                      --transpose-->  y rows first..first + NR
//! ```
#![expect(unsafe_code, reason = "calls kernels that need an instruction set")]

use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::gemm::micro::{Kernel, Weight};
use std::ops::Range;

/// Outputs whose sums are transposed together.
const OUTPUTS: usize = 32;

pub(super) fn packed_gemm(c: &mut Call<'_>) {
    let (x, row_start, col, value) = (c.f32(0), c.u32(1), c.u16(2), c.f16(3));
    let (bias, y) = (c.f32_opt(4), c.f32_mut(5));
    c.pool.rows(y.split(), 16, &mut [], |first, mut y, _| {
        for row in 0..y.rows {
            let x = x.row(first + row);
            for (k, y) in y.row(row).iter_mut().enumerate() {
                let kept = row_range(&row_start, k);
                let pairs = col.data[kept.clone()].iter().zip(&value.data[kept]);
                let start = bias.map_or(0.0, |b| b.data[k]);
                *y = pairs.fold(start, |sum, (col, v)| sum + x[usize::from(*col)] * v.to_f32());
            }
        }
    });
}

/// Workspace of a strip: its panel, the sums of some outputs, and the same transposed.
pub(super) fn strip_scratch<K: Kernel>(d: &Dims) -> Scratch {
    let transposed = OUTPUTS * K::NR;
    Scratch { shared: 0, worker: (d.size('i') + OUTPUTS) * K::NR + transposed }
}

pub(super) fn packed_gemm_strips<K: Kernel>(c: &mut Call<'_>) {
    let (x, row_start, col, value) = (c.f32(0), c.u32(1), c.u16(2), c.f16(3));
    let (bias, y) = (c.f32_opt(4), c.f32_mut(5));
    let (i, o) = (x.cols, y.cols);
    c.pool.rows(y.split(), K::NR, c.workers, |first, mut y, own| {
        let (panel, rest) = own.split_at_mut(i * K::NR);
        let (sums, rest) = rest.split_at_mut(OUTPUTS * K::NR);
        let transposed = &mut rest[..OUTPUTS * K::NR];
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::pack_cols(&Weight { w: x, mask: None }, first, panel) }
        for o0 in (0..o).step_by(OUTPUTS) {
            let count = (o - o0).min(OUTPUTS);
            for (k, out) in (o0..o0 + count).zip(sums.chunks_exact_mut(K::NR)) {
                let kept = row_range(&row_start, k);
                let start = bias.map_or(0.0, |b| b.data[k]);
                // SAFETY: a kernel's variant runs where its instructions are.
                unsafe { K::listed(panel, &col.data[kept.clone()], &value.data[kept], start, out) }
            }
            let sums = Weight { w: Mat::dense(&sums[..count * K::NR], count, K::NR), mask: None };
            for k in (0..count).step_by(K::NR) {
                // SAFETY: a kernel's variant runs where its instructions are.
                unsafe { K::pack_cols(&sums, k, &mut transposed[..K::NR * K::NR]) }
                let width = (count - k).min(K::NR);
                for row in 0..y.rows {
                    y.row(row)[o0 + k..][..width].copy_from_slice(&transposed[row * K::NR..][..width]);
                }
            }
        }
    });
}

/// Where the kept weights of output `k` lie. Packed rows are checked when they are made: ascending, inside `value`,
/// columns inside `x`; indexing refuses anything else.
fn row_range(row_start: &Mat<'_, u32>, k: usize) -> Range<usize> {
    row_start.data[k] as usize..row_start.data[k + 1] as usize
}
