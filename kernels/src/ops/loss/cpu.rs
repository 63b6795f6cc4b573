//! Portable, f64 inside: one row has few actions, so accuracy costs next to nothing.

use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call, Mat};
use crate::ops::reduce::blocks::{block_scratch, block_sum};

/// Rows of one task and of one partial sum.
const BLOCK: usize = 64;
/// Log-probability of an action that is not allowed: finite, so that nothing downstream becomes NaN.
pub(super) const EXCLUDED: f32 = -1e30;

pub(super) fn scratch(d: &Dims) -> Scratch {
    Scratch { shared: block_scratch(d.size('r'), BLOCK), worker: 0 }
}

/// Logits with the actions that may be chosen.
#[derive(Clone, Copy)]
struct Actions<'a> {
    logits: Mat<'a, f32>,
    target: &'a [u32],
    allowed: Option<BitMat<'a>>,
}

impl Actions<'_> {
    fn allows(&self, action: usize) -> bool {
        self.allowed.is_none_or(|bits| bits.get(0, action))
    }

    /// The target of a counted row: an existing, allowed action.
    fn target(&self, r: usize) -> Option<usize> {
        let action = self.target[r] as usize;
        (action < self.logits.cols && self.allows(action)).then_some(action)
    }

    fn counted(&self) -> usize {
        (0..self.logits.rows).filter(|r| self.target(*r).is_some()).count()
    }

    /// `(max, ln sum exp(x - max))` over allowed actions, ascending. Subtracted one after the other, so that a loss
    /// near zero keeps its digits.
    fn norm(&self, r: usize) -> (f64, f64) {
        let allowed = || self.logits.row(r).iter().enumerate().filter(|(j, _)| self.allows(*j));
        let max = allowed().fold(f32::NEG_INFINITY, |max, (_, x)| max.max(*x));
        let sum = allowed().fold(0.0, |sum, (_, x)| sum + (f64::from(*x) - f64::from(max)).exp());
        (f64::from(max), sum.ln())
    }
}

pub(super) fn cross_entropy(c: &mut Call<'_>) {
    let actions = Actions { logits: c.f32(0), target: c.u32(1).data, allowed: c.bits_opt(2) };
    let (loss, logprob) = (c.f32_mut(3), c.f32_mut_opt(4));
    let total = block_sum(c.pool, actions.logits.rows, BLOCK, c.shared, |rows| {
        let row = |r: usize| {
            let target = actions.target(r)?;
            let (max, ln_sum) = actions.norm(r);
            Some(ln_sum - (f64::from(actions.logits.row(r)[target]) - max))
        };
        rows.filter_map(row).fold(0.0, |sum, x| sum + x)
    });
    loss.data[0] = (total / actions.counted().max(1) as f64) as f32;
    c.pool.rows(logprob.map(|m| m.split()), BLOCK, &mut [], |first, part, _| {
        let Some(mut part) = part else { return };
        for r in 0..part.rows {
            let (max, ln_sum) = actions.norm(first + r);
            for (j, (y, x)) in part.row(r).iter_mut().zip(actions.logits.row(first + r)).enumerate() {
                *y = if actions.allows(j) { (f64::from(*x) - max - ln_sum) as f32 } else { EXCLUDED };
            }
        }
    });
}

pub(super) fn cross_entropy_dx(c: &mut Call<'_>) {
    let actions = Actions { logits: c.f32(0), target: c.u32(1).data, allowed: c.bits_opt(2) };
    let (dloss, dlogits) = (c.f32(3).data[0], c.f32_mut(4));
    let scale = f64::from(dloss) / actions.counted().max(1) as f64;
    c.pool.rows(dlogits.split(), BLOCK, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            let Some(target) = actions.target(first + r) else {
                part.row(r).fill(0.0);
                continue;
            };
            let (max, ln_sum) = actions.norm(first + r);
            for (j, (dx, x)) in part.row(r).iter_mut().zip(actions.logits.row(first + r)).enumerate() {
                let hit = if j == target { 1.0 } else { 0.0 };
                let softmax = || (f64::from(*x) - max - ln_sum).exp();
                *dx = if actions.allows(j) { (scale * (softmax() - hit)) as f32 } else { 0.0 };
            }
        }
    });
}

/// Predictions with the dimensions and rows that count.
#[derive(Clone, Copy)]
struct Errors<'a> {
    pred: Mat<'a, f32>,
    target: Mat<'a, f32>,
    valid: &'a [u8],
    active: Option<Mat<'a, f32>>,
}

impl Errors<'_> {
    fn active(&self, j: usize) -> f64 {
        self.active.map_or(1.0, |m| f64::from(m.data[j]))
    }

    /// `1 / (sum active * max(1, valid rows))`; no active dimension counts as one.
    fn scale(&self) -> f64 {
        let active = (0..self.pred.cols).fold(0.0, |sum, j| sum + self.active(j));
        let rows = self.valid.iter().filter(|v| **v != 0).count();
        1.0 / (if active == 0.0 { 1.0 } else { active } * rows.max(1) as f64)
    }

    /// `pred - target`, or 0 where the dimension has no weight: padding there is not read.
    fn error(&self, r: usize, j: usize) -> f64 {
        match self.active(j) == 0.0 {
            true => 0.0,
            false => f64::from(self.pred.row(r)[j]) - f64::from(self.target.row(r)[j]),
        }
    }
}

pub(super) fn masked_mse(c: &mut Call<'_>) {
    let e = Errors { pred: c.f32(0), target: c.f32(1), valid: c.u8(2).data, active: c.f32_opt(3) };
    let loss = c.f32_mut(4);
    let total = block_sum(c.pool, e.pred.rows, BLOCK, c.shared, |rows| {
        let row = |r: usize| (0..e.pred.cols).fold(0.0, |sum, j| sum + e.active(j) * e.error(r, j) * e.error(r, j));
        rows.filter(|r| e.valid[*r] != 0).fold(0.0, |sum, r| sum + row(r))
    });
    loss.data[0] = (total * e.scale()) as f32;
}

pub(super) fn masked_mse_dx(c: &mut Call<'_>) {
    let e = Errors { pred: c.f32(0), target: c.f32(1), valid: c.u8(2).data, active: c.f32_opt(3) };
    let (dloss, dpred) = (c.f32(4).data[0], c.f32_mut(5));
    let scale = 2.0 * f64::from(dloss) * e.scale();
    c.pool.rows(dpred.split(), BLOCK, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            let valid = e.valid[first + r] != 0;
            for (j, dx) in part.row(r).iter_mut().enumerate() {
                *dx = if valid { (scale * e.active(j) * e.error(first + r, j)) as f32 } else { 0.0 };
            }
        }
    });
}
