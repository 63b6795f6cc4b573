//! Further evidence that a caller may add by [`Filter::add`](super::Filter::add). None of it is used by default: a wrong
//! subnetwork is confidently wrong, so confidence attracts the router to it.

use crate::error::{Error, Result, in_range};

/// `1 - H / ln n` of the actions that some logits give: 1 certain, 0 uniform. 1 with a single action.
///
/// # Errors
/// [`Error::Empty`] without logits, [`Error::Range`] if one is not finite.
pub fn confidence(logits: &[f32]) -> Result<f64> {
    let log_p = log_softmax(logits)?;
    let entropy: f64 = log_p.iter().map(|l| -l.exp() * l).sum();
    Ok(if logits.len() == 1 { 1.0 } else { 1.0 - entropy / (logits.len() as f64).ln() })
}

/// Log-probability of a demonstrated action, in nats. Never of the router's own actions: that would confirm whatever was
/// chosen first.
///
/// # Errors
/// As [`confidence`], and [`Error::Range`] for an action that does not exist.
pub fn action_log_likelihood(logits: &[f32], action: u32) -> Result<f64> {
    let log_p = log_softmax(logits)?;
    let exists = |a: f64| a < log_p.len() as f64;
    in_range("action", f64::from(action), "the actions of the logits", exists)?;
    Ok(log_p[action as usize])
}

/// A value in deviations from a task's own mean.
///
/// # Errors
/// [`Error::Range`] if the deviation is not positive.
pub fn calibrated(value: f64, mean: f64, sd: f64) -> Result<f64> {
    in_range("deviation", sd, "the positive numbers", |sd| sd > 0.0)?;
    Ok((value - mean) / sd)
}

fn log_softmax(logits: &[f32]) -> Result<Vec<f64>> {
    if logits.is_empty() {
        return Err(Error::Empty { what: "list of logits" });
    }
    for logit in logits {
        in_range("logit", f64::from(*logit), "the finite numbers", |_| true)?;
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - f64::from(most)).exp()).sum();
    Ok(logits.iter().map(|x| f64::from(*x) - f64::from(most) - sum.ln()).collect())
}

#[cfg(test)]
mod tests {
    use super::{action_log_likelihood, calibrated, confidence};

    #[test]
    fn values_by_hand() {
        assert!(confidence(&[2.0, 2.0, 2.0]).unwrap().abs() < 1e-12);
        assert!(confidence(&[200.0, 0.0]).unwrap() > 1.0 - 1e-12);
        assert_eq!(confidence(&[7.0]), Ok(1.0));
        assert!((action_log_likelihood(&[3f32.ln(), 0.0], 0).unwrap() - 0.75f64.ln()).abs() < 1e-7);
        assert_eq!(calibrated(1.0, 2.0, 0.5), Ok(-2.0));
        assert!(confidence(&[]).is_err() && confidence(&[f32::NAN]).is_err());
        assert!(action_log_likelihood(&[0.0], 1).is_err());
        assert!(calibrated(1.0, 0.0, 0.0).is_err());
    }
}
