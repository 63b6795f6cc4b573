//! Sums of fixed shape: 16 partial sums along a row, one f64 per block of rows, blocks added in order.

use crate::operand::MatMut;
use crate::par::Pool;
use std::ops::Range;

/// Rows of a block for rows of `cols` elements: about 32 K elements, whatever the number of workers.
pub(crate) fn block_rows(cols: usize) -> usize {
    (32768 / cols.max(1)).max(1)
}

/// Workspace of [`block_sum`] in f32 elements.
pub(crate) fn block_scratch(rows: usize, block: usize) -> usize {
    2 * rows.div_ceil(block)
}

/// Sum over blocks of `block` rows of `f(rows of the block)`, in block order; `+0` for no rows.
pub(crate) fn block_sum(
    pool: &Pool,
    rows: usize,
    block: usize,
    shared: &mut [f32],
    f: impl Fn(Range<usize>) -> f64 + Sync,
) -> f64 {
    let blocks = rows.div_ceil(block);
    // The workspace is aligned to 4 bytes only, so an f64 lies there as two words.
    let words: &mut [u32] = bytemuck::cast_slice_mut(&mut shared[..2 * blocks]);
    pool.rows(MatMut::dense(&mut *words, blocks, 2).split(), 1, &mut [], |at, mut part, _| {
        let bits = f(at * block..rows.min((at + 1) * block)).to_bits();
        part.row(0).copy_from_slice(&[bits as u32, (bits >> 32) as u32]);
    });
    words.chunks_exact(2).fold(0.0, |sum, w| sum + f64::from_bits(u64::from(w[0]) | u64::from(w[1]) << 32))
}

/// Sum of `f(x)` along a row: element `j` goes into partial sum `j % 16`, and those are added in order.
#[inline(always)]
pub(crate) fn lanes_sum(row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(f64::from(*x));
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f(f64::from(*x));
    }
    lanes.iter().fold(0.0, |sum, x| sum + x)
}
