//! Times a call: warm-up, then samples, each of one call or of a batch if calls are short.

use super::statistics::quantile;
use std::time::{Duration, Instant};
use tsn::dt::autograd::engine::kernels::ceiling::sweep;

/// Fewest and most samples.
const SAMPLES: (f64, f64) = (5.0, 1000.0);
/// Least nanoseconds of a sample: a clock read takes about 25.
const LEAST_SAMPLE_NS: f64 = 10_000.0;
/// Most calls of a sample by the wall clock.
const MOST_BATCH: u64 = 1 << 24;
/// A cold case may take this many times its measuring time, sweeps included.
const COLD_PATIENCE: u32 = 20;

/// How long to time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spans {
    pub warm_up: Duration,
    pub measure: Duration,
}

/// What is in the caches when a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Whatever the call before left there.
    Warm,
    /// Nothing of the call's arguments: a buffer larger than the caches was read in between.
    Cold,
}

impl Cache {
    /// Name in rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        }
    }
}

/// Calls and total nanoseconds of every sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub iterations: Vec<u64>,
    pub totals_ns: Vec<f64>,
    /// Nanoseconds that the host spends on a call beside them: 0 where host and kernel share a clock.
    pub host_ns: f64,
}

impl Samples {
    fn push(&mut self, iterations: u64, total: Duration) {
        self.iterations.push(iterations);
        self.totals_ns.push(total.as_nanos() as f64);
    }

    /// Median nanoseconds per call.
    pub(crate) fn median_ns(&self) -> f64 {
        let mut each = self.each_ns();
        each.sort_by(f64::total_cmp);
        quantile(&each, 0.5)
    }

    /// Nanoseconds per call.
    pub(crate) fn each_ns(&self) -> Vec<f64> {
        self.totals_ns.iter().zip(&self.iterations).map(|(total, n)| total / *n as f64).collect()
    }
}

/// Times calls whose arguments stay where they are.
pub(crate) fn warm(spans: Spans, run: &mut dyn FnMut()) -> Samples {
    timed(spans, MOST_BATCH, &mut by_wall(run))
}

/// The wall clock's time for a number of calls.
fn by_wall(run: &mut dyn FnMut()) -> impl FnMut(u64) -> Duration {
    move |calls| {
        let start = Instant::now();
        (0..calls).for_each(|_| run());
        start.elapsed()
    }
}

/// Times calls by a clock that says how long a number of them took; batches have at most `most_batch` calls.
pub(crate) fn timed(spans: Spans, most_batch: u64, time: &mut dyn FnMut(u64) -> Duration) -> Samples {
    let call_ns = warm_up(spans, most_batch, time);
    let measure_ns = spans.measure.as_nanos() as f64;
    let count = (measure_ns / call_ns.max(LEAST_SAMPLE_NS)).clamp(SAMPLES.0, SAMPLES.1) as usize;
    let batch = ((measure_ns / count as f64).max(LEAST_SAMPLE_NS) / call_ns) as u64;
    let batch = batch.clamp(1, most_batch);
    let mut samples = Samples::default();
    (0..count).for_each(|_| samples.push(batch, time(batch)));
    samples
}

/// Times single calls, each after a sweep through `buffer`.
pub(crate) fn cold(spans: Spans, buffer: &[f32], run: &mut dyn FnMut()) -> Samples {
    cold_by(spans, MOST_BATCH, &mut || sweep(buffer), &mut by_wall(run))
}

/// Times single calls, each after `displace` has taken the caches, by a clock as [`timed`] has one.
pub(crate) fn cold_by(
    spans: Spans,
    most_batch: u64,
    displace: &mut dyn FnMut(),
    time: &mut dyn FnMut(u64) -> Duration,
) -> Samples {
    warm_up(spans, most_batch, time);
    let begin = Instant::now();
    let (mut samples, mut timed) = (Samples::default(), Duration::ZERO);
    let enough = |count: usize, timed: Duration| {
        count >= SAMPLES.1 as usize
            || (count >= SAMPLES.0 as usize
                && (timed >= spans.measure || begin.elapsed() >= COLD_PATIENCE * spans.measure))
    };
    while !enough(samples.iterations.len(), timed) {
        displace();
        let took = time(1);
        timed += took;
        samples.push(1, took);
    }
    samples
}

/// Runs until the time is over, and says how long a call took in the end.
fn warm_up(spans: Spans, most_batch: u64, time: &mut dyn FnMut(u64) -> Duration) -> f64 {
    let begin = Instant::now();
    let (mut batch, mut call_ns) = (1u64, f64::INFINITY);
    loop {
        let start = Instant::now();
        call_ns = call_ns.min(time(batch).as_nanos() as f64 / batch as f64).max(0.1);
        if begin.elapsed() >= spans.warm_up {
            return call_ns;
        }
        if start.elapsed() < spans.warm_up / 8 {
            batch = (2 * batch).min(most_batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    const SHORT: Spans = Spans { warm_up: Duration::from_millis(1), measure: Duration::from_millis(2) };

    #[test]
    fn short_calls_come_in_batches() {
        let mut calls = 0u64;
        let samples = warm(SHORT, &mut || calls = black_box(calls) + 1);
        assert!(samples.iterations.iter().all(|n| *n > 1), "{samples:?}");
        assert!((5..=1000).contains(&samples.iterations.len()));
        assert!(calls > samples.iterations.iter().sum());
        assert!(samples.each_ns().iter().all(|ns| ns.is_finite() && *ns > 0.0));
    }

    #[test]
    fn long_calls_are_timed_alone() {
        let mut run = || _ = black_box((0..300_000u64).fold(0, |a, b| black_box(a ^ b)));
        let samples = warm(SHORT, &mut run);
        assert!(samples.iterations.iter().all(|n| *n <= 100), "{samples:?}");
        let cold = cold(SHORT, &[0.0; 1024], &mut run);
        assert!(cold.iterations.len() >= 5 && cold.iterations.iter().all(|n| *n == 1));
    }
}
