//! Portable f32 in, f64 inside: a reduction reads far more than it computes.

use super::blocks::{block_rows, block_scratch, block_sum, lanes_sum};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, MatMut};

/// Columns of one task of `moments`: one cache line.
const COLUMNS: usize = 16;

pub(super) fn sum_scratch(d: &Dims) -> Scratch {
    Scratch { shared: block_scratch(d.size('r'), block_rows(d.size('c'))), worker: 0 }
}

/// Order: 16 partial sums per row, rows ascending in a block, blocks ascending.
pub(super) fn sum(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    let total = block_sum(c.pool, x.rows, block_rows(x.cols), c.shared, |rows| {
        rows.fold(0.0, |sum, r| sum + lanes_sum(x.row(r), |v| v))
    });
    y.data[0] = total as f32;
}

/// Two passes, rows ascending in each, so a large mean does not eat a small variance.
pub(super) fn moments(c: &mut Call<'_>) {
    let (x, mean, var) = (c.f32(0), c.f32_mut(1), c.f32_mut(2));
    let floor = f64::from(c.dims.scalar_f32(0));
    let n = x.rows.max(1) as f64;
    // One column of `x` is one row here, so that the pool can cut by columns.
    let cols = x.cols;
    let outputs = (MatMut::dense(mean.data, cols, 1).split(), MatMut::dense(var.data, cols, 1).split());
    c.pool.rows(outputs, COLUMNS, &mut [], |first, (mean, var), _| {
        let width = mean.data.len();
        let (mut centre, mut spread) = ([0.0f64; COLUMNS], [0.0f64; COLUMNS]);
        for r in 0..x.rows {
            for (sum, v) in centre.iter_mut().zip(&x.row(r)[first..first + width]) {
                *sum += f64::from(*v);
            }
        }
        centre.iter_mut().for_each(|sum| *sum /= n);
        for r in 0..x.rows {
            for ((sum, v), mean) in spread.iter_mut().zip(&x.row(r)[first..first + width]).zip(&centre) {
                *sum += (f64::from(*v) - mean) * (f64::from(*v) - mean);
            }
        }
        for j in 0..width {
            mean.data[j] = centre[j] as f32;
            var.data[j] = (spread[j] / n).max(floor) as f32;
        }
    });
}

/// Per dimension `¼ ((vp - vq)² / (vp vq) + (mp - mq)² (1/vp + 1/vq))`: the logarithms cancel. Order: ascending.
pub(super) fn sym_kl(c: &mut Call<'_>) {
    let [mp, vp, mq, vq] = [0, 1, 2, 3].map(|at| c.f32(at).data);
    let kl = (0..mp.len()).fold(0.0, |sum, j| {
        let (vp, vq) = (f64::from(vp[j]), f64::from(vq[j]));
        let apart = f64::from(mp[j]) - f64::from(mq[j]);
        sum + 0.25 * ((vp - vq) * (vp - vq) / (vp * vq) + apart * apart * (1.0 / vp + 1.0 / vq))
    });
    c.f32_mut(4).data[0] = kl as f32;
}
