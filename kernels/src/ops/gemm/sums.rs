//! Sums of a bias gradient: over rows, and over the inner index of a channel.

use crate::contract::{Dims, Scratch};
use crate::operand::{Mat, MatMut};
use crate::par::Pool;

/// Rows whose sum is formed by one task; fixed, so that bits do not depend on the workers.
const BLOCK: usize = 64;

/// Workspace of [`blocks`]: one row of sums per block.
pub(crate) fn blocks_scratch(d: &Dims) -> Scratch {
    Scratch { shared: d.size('r').div_ceil(BLOCK) * d.size('o'), worker: 0 }
}

/// Sum of every channel. Order: the inner index within a row, then rows.
pub(crate) fn plain(dy: Mat<'_, f32>, inner: usize, sums: &mut [f32]) {
    sums.fill(0.0);
    for r in 0..dy.rows {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += dy.row(r)[k * inner..][..inner].iter().sum::<f32>();
        }
    }
}

/// Sum of every channel. Order: four rows at a time within blocks of [`BLOCK`], then blocks.
pub(crate) fn blocks(pool: &Pool, shared: &mut [f32], dy: Mat<'_, f32>, inner: usize, sums: &mut [f32]) {
    let (o, count) = (sums.len(), dy.rows.div_ceil(BLOCK));
    sums.fill(0.0);
    if o == 0 || count == 0 {
        return;
    }
    let partial = &mut shared[..count * o];
    pool.rows(MatMut::dense(partial, count, o).split(), 1, &mut [], |block, part, _| {
        let rows = block * BLOCK..((block + 1) * BLOCK).min(dy.rows);
        part.data.fill(0.0);
        match inner {
            1 => columns(dy, rows, part.data),
            _ => channels(dy, rows, inner, part.data),
        }
    });
    for block in partial.chunks_exact(o) {
        sums.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
    }
}

fn columns(dy: Mat<'_, f32>, rows: std::ops::Range<usize>, sums: &mut [f32]) {
    let whole = rows.start + rows.len() / 4 * 4;
    for r in (rows.start..whole).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|j| &dy.row(r + j)[..sums.len()]);
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum += (a[j] + b[j]) + (c[j] + d[j]);
        }
    }
    for r in whole..rows.end {
        sums.iter_mut().zip(dy.row(r)).for_each(|(sum, v)| *sum += v);
    }
}

fn channels(dy: Mat<'_, f32>, rows: std::ops::Range<usize>, inner: usize, sums: &mut [f32]) {
    for r in rows {
        for (k, sum) in sums.iter_mut().enumerate() {
            let (lanes, rest) = dy.row(r)[k * inner..][..inner].as_chunks::<16>();
            let mut acc = [0.0; 16];
            for v in lanes {
                acc.iter_mut().zip(v).for_each(|(acc, v)| *acc += v);
            }
            *sum += acc.iter().sum::<f32>() + rest.iter().sum::<f32>();
        }
    }
}
