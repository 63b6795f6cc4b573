//! Figures of a list of samples, with 95 % bounds.

use serde::Serialize;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};

/// Resamples of the bounds of a mean.
const RESAMPLES: usize = 1000;

/// A figure and where it lies with 95 % confidence, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub estimate: f64,
    pub lower_bound: f64,
    pub upper_bound: f64,
    pub unit: &'static str,
}

/// What is said about the nanoseconds per call of all samples.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub min: f64,
    pub p20: f64,
    pub p80: f64,
    pub mean: Estimate,
    pub median: Estimate,
    /// Median distance from the median, times 1.4826: a standard deviation that outliers do not move.
    pub median_abs_dev: Estimate,
    /// Standard deviation over mean.
    pub rel_stdev: f64,
}

impl Summary {
    /// Figures of at least one sample.
    pub(crate) fn new(samples: &[f64]) -> Summary {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len().max(1) as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let spread = sorted.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let middle = quantile(&sorted, 0.5);
        let (low, high) = median_ranks(sorted.len());
        let bound = |at: usize| sorted.get(at).copied().unwrap_or(middle);
        let mean_bounds = bootstrap(&sorted, |x| x.iter().sum::<f64>() / x.len().max(1) as f64);
        let deviation_bounds = bootstrap(&sorted, |x| {
            let mut x = x.to_vec();
            x.sort_by(f64::total_cmp);
            deviation(&x)
        });
        Summary {
            min: quantile(&sorted, 0.0),
            p20: quantile(&sorted, 0.2),
            p80: quantile(&sorted, 0.8),
            mean: nanoseconds(mean, mean_bounds),
            median: nanoseconds(middle, (bound(low), bound(high))),
            median_abs_dev: nanoseconds(deviation(&sorted), deviation_bounds),
            rel_stdev: if mean > 0.0 { spread.sqrt() / mean } else { 0.0 },
        }
    }
}

fn nanoseconds(estimate: f64, (lower_bound, upper_bound): (f64, f64)) -> Estimate {
    Estimate { estimate, lower_bound, upper_bound, unit: "ns" }
}

/// Linear between the two nearest samples; 0 without samples.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

fn deviation(sorted: &[f64]) -> f64 {
    let middle = quantile(sorted, 0.5);
    let mut far: Vec<f64> = sorted.iter().map(|x| (x - middle).abs()).collect();
    far.sort_by(f64::total_cmp);
    1.4826 * quantile(&far, 0.5)
}

/// Ranks of two samples that have the median between them with 95 % confidence, whatever the distribution (normal
/// approximation of the binomial). Few samples give the first and the last.
fn median_ranks(n: usize) -> (usize, usize) {
    let (half, width) = (n as f64 / 2.0, 0.98 * (n as f64).sqrt());
    let low = (half - width).floor().max(0.0) as usize;
    let high = ((half + width).ceil() as usize).min(n.saturating_sub(1));
    (low, high)
}

/// The middle 95 % of a figure over resamples; the same for the same samples.
fn bootstrap(samples: &[f64], figure: impl Fn(&[f64]) -> f64) -> (f64, f64) {
    let mut rng = Rng::new(0, Stream::Evaluation, [samples.len() as u32, 0]);
    // More samples need fewer resamples for equally steady bounds.
    let resamples = (RESAMPLES * 100 / samples.len().max(100)).max(100);
    let mut drawn = vec![0.0; samples.len()];
    let mut figures: Vec<f64> = (0..resamples)
        .map(|_| {
            drawn.iter_mut().for_each(|x| *x = samples[rng.below(samples.len() as u64) as usize]);
            figure(&drawn)
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    (quantile(&figures, 0.025), quantile(&figures, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_samples() {
        let samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        let s = Summary::new(&samples);
        assert_eq!((s.min, s.p20, s.median.estimate, s.p80, s.mean.estimate), (1.0, 21.0, 51.0, 81.0, 51.0));
        // Distances from 51 are 0 and twice each of 1..=50; their median is 25.
        assert!((s.median_abs_dev.estimate - 25.0 * 1.4826).abs() < 1e-9);
        // The variance of 1..=n is n (n + 1) / 12.
        assert!((s.rel_stdev - (101.0f64 * 102.0 / 12.0).sqrt() / 51.0).abs() < 1e-9);
        // Ranks 50.5 -+ 9.85 of the sorted samples, counted from 0.
        assert_eq!((s.median.lower_bound, s.median.upper_bound), (41.0, 62.0));
        // The standard error is 2.9.
        assert!(
            (44.0..=47.0).contains(&s.mean.lower_bound) && (55.0..=58.0).contains(&s.mean.upper_bound),
            "{:?}",
            s.mean
        );
    }

    #[test]
    fn few_and_equal_samples() {
        let one = Summary::new(&[7.0]);
        assert_eq!((one.min, one.median.estimate, one.median.upper_bound, one.rel_stdev), (7.0, 7.0, 7.0, 0.0));
        let five = Summary::new(&[3.0; 5]);
        assert_eq!((five.p80, five.rel_stdev, five.median_abs_dev.estimate), (3.0, 0.0, 0.0));
        let spread = Summary::new(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((spread.median.lower_bound, spread.median.upper_bound), (1.0, 5.0));
    }

    #[test]
    fn bounds_cover_the_truth() {
        let mut covered = [0, 0];
        for seed in 0..200 {
            let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
            let samples: Vec<f64> = (0..60).map(|_| 10.0 + rng.normal()).collect();
            let s = Summary::new(&samples);
            for (at, e) in [s.mean, s.median].iter().enumerate() {
                covered[at] += usize::from(e.lower_bound <= 10.0 && 10.0 <= e.upper_bound);
            }
        }
        assert!(covered.iter().all(|n| (180..=200).contains(n)), "{covered:?} of 200, 95 % expected");
    }
}
