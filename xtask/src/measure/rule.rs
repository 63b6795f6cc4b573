//! When a row counts as slower.
//!
//! A round is one time of each side, taken close together; its ratio is new over base. Over the rounds: the geometric
//! mean, its 95 % interval (Student's t on the logarithms), and the relative standard deviation. A row is *slower* if
//! there are enough rounds, all ratios lie on the same side of 1, the interval excludes 1, the spread is below its limit
//! and the mean reaches the threshold; *faster* likewise; *unusable* with too few rounds or too much spread; else *same*.

use std::fmt;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Rounds needed.
    pub(crate) rounds: usize,
    /// Relative change that matters.
    pub(crate) threshold: f64,
    /// Relative standard deviation of the ratios at which nothing is said.
    pub(crate) spread: f64,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule { rounds: 3, threshold: 0.05, spread: 0.10 }
    }
}

/// What the rule says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    Faster,
    Slower,
    Unusable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Same => "same",
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::Unusable => "unusable",
        })
    }
}

/// The rounds of a row and what they say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) rounds: usize,
    /// Geometric means of the sides.
    pub(crate) base_ns: f64,
    pub(crate) new_ns: f64,
    /// Their ratio.
    pub(crate) ratio: f64,
    /// 95 % interval of the ratio; one round has none.
    pub(crate) interval: Option<(f64, f64)>,
    /// Relative standard deviation of the ratios.
    pub(crate) spread: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Rule {
    /// Judges pairs of (base, new) times; `None` without any.
    pub(crate) fn judge(&self, pairs: &[(f64, f64)]) -> Option<Judged> {
        let n = pairs.len();
        if n == 0 {
            return None;
        }
        let mean = |part: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(part).sum::<f64>() / n as f64;
        let log = |pair: &(f64, f64)| (pair.1 / pair.0).ln();
        let centre = mean(&log);
        let deviation =
            (n > 1).then(|| (pairs.iter().map(|p| (log(p) - centre).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt());
        let half = deviation.map(|s| student(n - 1) * s / (n as f64).sqrt());
        let interval = half.map(|h| ((centre - h).exp(), (centre + h).exp()));
        // Of a log-normal ratio; close to the deviation of the logarithms while that is small.
        let spread = deviation.map(|s| (s * s).exp_m1().sqrt());
        let ratio = centre.exp();
        let verdict = match (interval, spread) {
            _ if n < self.rounds => Verdict::Unusable,
            (Some((low, high)), Some(spread)) => {
                let up = pairs.iter().all(|p| p.1 > p.0) && low > 1.0 && ratio >= 1.0 + self.threshold;
                let down = pairs.iter().all(|p| p.1 < p.0) && high < 1.0 && ratio <= 1.0 / (1.0 + self.threshold);
                match (spread < self.spread, up, down) {
                    (false, ..) => Verdict::Unusable,
                    (_, true, _) => Verdict::Slower,
                    (_, _, true) => Verdict::Faster,
                    _ => Verdict::Same,
                }
            }
            _ => Verdict::Unusable,
        };
        let (base_ns, new_ns) = (mean(&|p| p.0.ln()).exp(), mean(&|p| p.1.ln()).exp());
        Some(Judged { rounds: n, base_ns, new_ns, ratio, interval, spread, verdict })
    }
}

/// The 97.5 % quantile of Student's t, for 1 and more degrees of freedom.
fn student(freedom: usize) -> f64 {
    const FIRST: [f64; 12] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179];
    match FIRST.get(freedom.wrapping_sub(1)) {
        Some(t) => *t,
        // Its expansion in 1 / freedom, good to three digits from here on.
        None => 1.95996 + 2.37227 / freedom as f64 + 2.8225 / (freedom * freedom) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ratios: &[f64]) -> Judged {
        let pairs: Vec<_> = ratios.iter().map(|r| (100.0, 100.0 * r)).collect();
        Rule::default().judge(&pairs).unwrap()
    }

    fn verdict(ratios: &[f64]) -> Verdict {
        judged(ratios).verdict
    }

    #[test]
    fn slower_needs_every_condition() {
        assert_eq!(verdict(&[1.10, 1.09, 1.11]), Verdict::Slower);
        // Too few rounds.
        assert_eq!(verdict(&[1.10, 1.10]), Verdict::Unusable);
        // Below the threshold.
        assert_eq!(verdict(&[1.04, 1.041, 1.039, 1.04]), Verdict::Same);
        // One round the other way.
        assert_eq!(verdict(&[1.12, 1.12, 1.13, 1.12, 0.99, 1.12, 1.12]), Verdict::Same);
        // The same sign, but the interval of three rounds reaches 1.
        let wide = judged(&[1.01, 1.08, 1.16]);
        assert!(wide.interval.unwrap().0 < 1.0 && wide.spread.unwrap() < 0.1);
        assert_eq!(wide.verdict, Verdict::Same);
        // Too much spread.
        assert_eq!(verdict(&[1.2, 1.6, 1.4, 1.3, 1.5, 1.2, 1.6, 1.4]), Verdict::Unusable);
    }

    #[test]
    fn faster_mirrors_slower() {
        assert_eq!(verdict(&[0.90, 0.91, 0.89]), Verdict::Faster);
        assert_eq!(verdict(&[0.97, 0.97, 0.97]), Verdict::Same);
        assert_eq!(verdict(&[1.0, 1.0, 1.0]), Verdict::Same);
    }

    #[test]
    fn the_interval_is_that_of_student() {
        // Logarithms 0.08, 0.10, 0.12: mean 0.1, deviation 0.02, half width 4.303 * 0.02 / sqrt 3 = 0.04969.
        let judged = judged(&[0.08f64.exp(), 0.10f64.exp(), 0.12f64.exp()]);
        let (low, high) = judged.interval.unwrap();
        assert!((low.ln() - 0.05031).abs() < 1e-5 && (high.ln() - 0.14969).abs() < 1e-5, "{low} {high}");
        assert!(
            (judged.ratio.ln() - 0.1).abs() < 1e-12 && (judged.new_ns / judged.base_ns - judged.ratio).abs() < 1e-9
        );
    }

    #[test]
    fn one_round_has_no_interval_and_none_no_verdict() {
        let one = judged(&[1.3]);
        assert!(one.interval.is_none() && one.spread.is_none());
        assert_eq!(one.verdict, Verdict::Unusable);
        assert!(Rule::default().judge(&[]).is_none());
    }

    #[test]
    fn quantiles_go_on_where_the_table_ends() {
        for (freedom, t) in [(1, 12.706), (12, 2.179), (13, 2.160), (30, 2.042), (120, 1.980)] {
            assert!((student(freedom) - t).abs() < 2e-3, "{freedom}: {}", student(freedom));
        }
    }
}
