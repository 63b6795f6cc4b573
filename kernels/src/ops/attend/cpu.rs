//! Plain loops; one task per sequence.

use super::sizes;
use crate::contract::{Dims, Scratch};
use crate::operand::Call;

/// A row of scores per worker.
pub(super) fn scratch(dims: &Dims) -> Scratch {
    Scratch { shared: 0, worker: dims.size('t') }
}

pub(super) fn attend(c: &mut Call<'_>) {
    let (q, kv, valid, y) = (c.f32(0), c.f32(1), c.u8(2), c.f32_mut(3));
    let (heads, t, d) = sizes(c.dims);
    let scale = 1.0 / (d as f32).sqrt();
    c.pool.rows(y.split(), 1, c.workers, |first, mut y, scores| {
        for at in 0..y.rows {
            let b = first + at;
            let visible = || (0..t).filter(|p| valid.row(b)[*p] != 0);
            for head in 0..heads {
                let own = head * d..(head + 1) * d;
                let part = |p: usize, of: usize| &kv.row(b * t + p)[of * heads * d..][own.clone()];
                let (mut top, mut sum) = (f32::NEG_INFINITY, 0.0);
                for p in visible() {
                    let dot: f32 = q.row(b)[own.clone()].iter().zip(part(p, 0)).map(|(a, b)| a * b).sum();
                    scores[p] = dot * scale;
                    top = top.max(scores[p]);
                }
                for p in visible() {
                    scores[p] = (scores[p] - top).exp();
                    sum += scores[p];
                }
                let y = &mut y.row(at)[own.clone()];
                y.fill(0.0);
                for p in visible() {
                    y.iter_mut().zip(part(p, 1)).for_each(|(y, v)| *y += scores[p] / sum * v);
                }
            }
        }
    });
}
