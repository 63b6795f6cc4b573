//! Measures between a new task and a finished one, and the levels that give them a scale.

use crate::error::{Error, Result, in_range, rows_of};

/// Loss of guessing uniformly among `n` valid actions, `ln n`, in nats.
///
/// # Errors
/// [`Error::Empty`] without actions.
pub fn chance_discrete(valid_actions: usize) -> Result<f64> {
    match valid_actions {
        0 => Err(Error::Empty { what: "set of valid actions" }),
        n => Ok((n as f64).ln()),
    }
}

/// Loss of always predicting the mean action: the population variance of `actions[n, a]`, averaged over the dimensions
/// with `active[a]` set. Two passes in f64; in squared units of the actions.
///
/// # Errors
/// [`Error::Empty`] without rows or active dimensions, [`Error::Length`] if a row is cut short, [`Error::Range`] if an
/// active value is not finite.
pub fn chance_continuous(actions: &[f32], active: &[bool]) -> Result<f64> {
    let rows = || rows_of("actions", actions, active.len());
    let n = rows()?.len() as f64;
    let dims: Vec<usize> = (0..active.len()).filter(|at| active[*at]).collect();
    if dims.is_empty() {
        return Err(Error::Empty { what: "set of active action dimensions" });
    }
    let mut total = 0.0;
    for at in &dims {
        let mean = rows()?.map(|row| f64::from(row[*at])).sum::<f64>() / n;
        total += rows()?.map(|row| (f64::from(row[*at]) - mean).powi(2)).sum::<f64>() / n;
    }
    in_range("variance of the actions", total / dims.len() as f64, "the finite numbers", |_| true)
}

/// `A' = (A - A_self) / (A_chance - A_self)`: 0 is as good as the source on its own data, 1 is uninformative.
///
/// `None` where the source is no better than chance on its own data: then the scale has no meaning.
///
/// It ranks sources of different noise wrongly, since each has its own denominator; rank by `A`.
pub fn scaled_error(action: f64, own: f64, chance: f64) -> Option<f64> {
    (chance > own).then(|| (action - own) / (chance - own))
}

/// `A'' = A / A_chance`: 0 is perfect, 1 as good as chance, above 1 confidently wrong. The same order as `A`.
///
/// A level of 0 (one valid action, constant actions) makes any error infinitely worse than chance, and none 0.
pub fn chance_ratio(action: f64, chance: f64) -> f64 {
    if action == 0.0 { 0.0 } else { action / chance }
}

/// Symmetric KL per latent dimension, `L / E`: what a threshold that holds for several widths is set on.
pub fn latent_per_dim(latent: f64, width: usize) -> f64 {
    latent / width.max(1) as f64
}

/// KL divergence of the replay router, in nats: frames as distributions over their elements, rows paired by index.
///
/// `KL(old ‖ new) = (1/m) Σ_rows Σ_d softmax(old)_d (log softmax(old)_d - log softmax(new)_d)` over the first
/// `m = min(rows)` rows of `new[n, d]` and `old[n', d]`. In `0..`; lower is closer. Accumulated in f64.
///
/// # Errors
/// [`Error::Empty`] without rows, [`Error::Length`] if a row is cut short, [`Error::Range`] if the result is not finite.
///
/// Source: `tsn_origin_reuse` of the official code.
pub fn kl_reuse(new: &[f32], old: &[f32], d: usize) -> Result<f64> {
    let (new, old) = (rows_of("new memory", new, d)?, rows_of("old memory", old, d)?);
    let m = new.len().min(old.len()) as f64;
    let mut total = 0.0;
    for (new, old) in new.zip(old) {
        let (new, old) = (LogSoftmax::new(new), LogSoftmax::new(old));
        for at in 0..d {
            let log_old = old.at(at);
            total += log_old.exp() * (log_old - new.at(at));
        }
    }
    // Equal rows may end a rounding error below zero.
    Ok(in_range("replay divergence", total / m, "the finite numbers", |_| true)?.max(0.0))
}

/// `x - max - log Σ exp(x - max)`.
struct LogSoftmax<'a> {
    row: &'a [f32],
    shift: f64,
}

impl LogSoftmax<'_> {
    fn new(row: &[f32]) -> LogSoftmax<'_> {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - f64::from(top)).exp()).sum();
        LogSoftmax { row, shift: f64::from(top) + sum.ln() }
    }

    fn at(&self, at: usize) -> f64 {
        f64::from(self.row[at]) - self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels() {
        assert_eq!(chance_discrete(1), Ok(0.0));
        assert!((chance_discrete(18).unwrap() - 2.8903717578961645).abs() < 1e-15);
        assert!(chance_discrete(0).is_err());
        // Column 1 is not active, so its values do not matter.
        let actions = [1.0, f32::NAN, 0.0, 3.0, 9.0, 4.0];
        assert_eq!(chance_continuous(&actions, &[true, false, true]), Ok(2.5));
        assert!(chance_continuous(&actions, &[true, true, true]).is_err());
        assert!(chance_continuous(&actions, &[false; 3]).is_err());
        assert!(chance_continuous(&actions, &[true; 4]).is_err());
        assert!(chance_continuous(&[], &[true]).is_err());
    }

    #[test]
    fn scales() {
        assert_eq!(scaled_error(1.0, 0.5, 2.5), Some(0.25));
        assert_eq!(scaled_error(1.0, 2.5, 2.5), None);
        assert_eq!(chance_ratio(1.0, 2.0), 0.5);
        assert_eq!(chance_ratio(1.0, 0.0), f64::INFINITY);
        assert_eq!(chance_ratio(0.0, 0.0), 0.0);
        assert_eq!(latent_per_dim(64.0, 128), 0.5);
    }

    #[test]
    fn replay_divergence_by_hand() {
        // softmax(ln 3, 0) = (3/4, 1/4) against (1/2, 1/2); only the first row has a partner.
        let old = [3f32.ln(), 0.0, 100.0, -100.0];
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((kl_reuse(&[7.0, 7.0], &old, 2).unwrap() - expected).abs() < 1e-7);
        assert!(kl_reuse(&[], &old, 2).is_err());
        assert!(kl_reuse(&old, &old, 3).is_err());
        assert!(kl_reuse(&old, &[f32::NAN; 4], 2).is_err());
    }

    proptest! {
        #[test]
        fn replay_divergence_laws(pairs in prop::collection::vec((-30f32..30.0, -30f32..30.0), 4..5), shift in -5f32..5.0) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            prop_assert!(kl_reuse(&a, &a, 2).unwrap() < 1e-12);
            let one = kl_reuse(&a, &b, 2).unwrap();
            prop_assert!(one >= 0.0);
            // A softmax does not see a common offset.
            let moved: Vec<f32> = a.iter().map(|x| x + shift).collect();
            prop_assert!((kl_reuse(&moved, &b, 2).unwrap() - one).abs() <= 1e-4 * (1.0 + one));
        }
    }
}
