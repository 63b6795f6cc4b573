//! Timing of calls in turn, and rows of the JSON format that `cargo xtask compare` reads.
//!
//! Calls that are compared are sampled A B C A B C in one process, so that what the machine does meanwhile meets all of
//! them. A sample is as many calls as fill a given time; the row keeps every sample.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Least time of one sample.
    pub sample: Duration,
    /// Samples of each call.
    pub samples: usize,
}

/// Times of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Calls per sample.
    pub calls: u64,
    /// Nanoseconds per call of each sample, in order.
    pub ns: Vec<f64>,
}

/// Times all calls in turn, after a warm-up of one sample each.
pub fn interleaved(calls: &mut [&mut dyn FnMut()], effort: Effort) -> Vec<Samples> {
    let start = |call: &mut &mut dyn FnMut()| {
        let (mut calls, mut spent) = (1, timed(call, 1));
        while spent < effort.sample && calls < 1 << 30 {
            // Aims a little over the time, from the last guess.
            let scale = effort.sample.as_secs_f64() / spent.as_secs_f64().max(1e-9);
            calls = (calls as f64 * (1.1 * scale).clamp(1.2, 100.0)).ceil() as u64;
            spent = timed(call, calls);
        }
        Samples { calls, ns: Vec::with_capacity(effort.samples) }
    };
    let mut all: Vec<Samples> = calls.iter_mut().map(start).collect();
    for _ in 0..effort.samples {
        for (call, samples) in calls.iter_mut().zip(&mut all) {
            let spent = timed(call, samples.calls);
            samples.ns.push(spent.as_secs_f64() * 1e9 / samples.calls as f64);
        }
    }
    all
}

fn timed(call: &mut dyn FnMut(), calls: u64) -> Duration {
    let start = Instant::now();
    (0..calls).for_each(|_| call());
    start.elapsed()
}

impl Samples {
    /// The value that a share `q` of the samples stays at or below.
    ///
    /// # Panics
    /// Without samples.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.ns.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(q * (sorted.len() - 1) as f64).round() as usize]
    }

    /// The row of a call that does `flops` effective operations and moves at least `bytes`. The id is
    /// `op/backend_dtype_variant/shape_density`.
    ///
    /// # Panics
    /// Without samples, or if the id has other than three parts.
    pub fn row(&self, id: &str, flops: u64, bytes: u64) -> Value {
        let n = self.ns.len() as f64;
        let mean = self.ns.iter().sum::<f64>() / n;
        let stdev = (self.ns.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
        let median = self.quantile(0.5);
        let away = Samples { calls: 1, ns: self.ns.iter().map(|x| (x - median).abs()).collect() };
        let half = 1.96 * stdev / n.sqrt();
        let estimate =
            |x: f64, low: f64, high: f64| json!({"estimate": x, "lower_bound": low, "upper_bound": high, "unit": "ns"});
        // The median's interval from ranks, the binomial's normal approximation.
        let rank = |sign: f64| self.quantile((0.5 + sign * 0.98 / n.sqrt()).clamp(0.0, 1.0));
        let middle = estimate(median, rank(-1.0), rank(1.0));
        let parts: Vec<&str> = id.split('/').collect();
        let [op, how, _] = parts[..] else { panic!("{id} is not op/backend_dtype_variant/shape_density") };
        let mut how = how.splitn(3, '_');
        let mut next = || how.next().unwrap_or_default();
        json!({
            "schema": 1, "reason": "benchmark-complete", "id": id, "unit": "ns",
            "iteration_count": vec![self.calls; self.ns.len()],
            "measured_values": self.ns.iter().map(|ns| ns * self.calls as f64).collect::<Vec<f64>>(),
            "throughput": [{"per_iteration": flops, "unit": "elements"}, {"per_iteration": bytes, "unit": "bytes"}],
            "typical": middle, "median": middle, "mean": estimate(mean, mean - half, mean + half),
            "median_abs_dev": estimate(away.quantile(0.5), away.quantile(0.5), away.quantile(0.5)),
            "min_ns": self.quantile(0.0), "p20_ns": self.quantile(0.2), "p80_ns": self.quantile(0.8),
            "rel_stdev": stdev / mean, "op": op, "backend": next(), "dtype": next(), "variant": next(), "threads": 1,
        })
    }
}

/// The first line of a file: which machine, compiler profile and threads.
pub fn fingerprint() -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    // All of the machine: a program that is pinned to one of them runs on the same machine.
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    json!({
        "schema": 1, "reason": "fingerprint",
        "cpu_model": model.map_or("unknown", |(_, name)| name.trim()), "isa": kernels::Isa::detect().name(),
        "cores": if cores == 0 { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { cores },
        "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "program": "tsn-benches",
        "build_profile": if cfg!(debug_assertions) { "dev" } else { "release" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let (mut a, mut b) = (|| order.borrow_mut().push('a'), || order.borrow_mut().push('b'));
        let effort = Effort { sample: Duration::ZERO, samples: 3 };
        let all = interleaved(&mut [&mut a, &mut b], effort);
        assert!(all.iter().all(|s| s.calls == 1 && s.ns.len() == 3));
        assert_eq!(order.into_inner(), "ab".to_owned() + "ababab");
    }

    #[test]
    fn samples_last_as_long_as_asked() {
        let mut count = 0u64;
        let mut call = || count += 1;
        let effort = Effort { sample: Duration::from_micros(50), samples: 2 };
        let all = interleaved(&mut [&mut call], effort);
        assert!(all[0].calls > 1 && count > 3 * all[0].calls);
    }

    #[test]
    fn rows_hold_what_the_samples_say() {
        let samples = Samples { calls: 2, ns: vec![5.0, 1.0, 2.0, 4.0, 3.0, 100.0] };
        let row = samples.row("gemm/peer_f32_a_b/r1_d100", 7, 8);
        assert_eq!((&row["min_ns"], &row["p20_ns"], &row["p80_ns"]), (&json!(1.0), &json!(2.0), &json!(5.0)));
        assert_eq!(row["measured_values"][0], 10.0);
        assert_eq!((&row["op"], &row["backend"], &row["variant"]), (&json!("gemm"), &json!("peer"), &json!("a_b")));
        assert_eq!(row["throughput"][0]["per_iteration"], 7);
        assert!(!row.to_string().contains("null"), "{row}");
    }
}
