//! One line of results: a measured case, or why there is none. Its JSON uses cargo-criterion's documented field names
//! where the meaning is the same.

use super::SCHEMA;
use super::case::{Case, Made};
use super::ceilings::Ceilings;
use super::measure::{Cache, Samples};
use super::statistics::{Estimate, Summary};
use super::verify::Checked;
use serde::Serialize;
use std::collections::BTreeMap;

/// Work of one call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Throughput {
    pub per_iteration: u64,
    /// `elements` are floating point operations on kept weights, `bytes` the least traffic.
    pub unit: &'static str,
}

/// A goal of the project's anchors for a case, and how far the measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// Nanoseconds that the median should not exceed.
    pub goal_ns: f64,
    /// Goal over median: 1 or more meets it.
    pub ratio: f64,
    pub meets: bool,
}

/// A measured case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    schema: u32,
    reason: &'static str,
    pub id: String,
    pub op: String,
    pub backend: &'static str,
    pub device: String,
    pub dtype: String,
    pub variant: String,
    pub threads: usize,
    pub shape: BTreeMap<char, u32>,
    pub density: f64,
    pub mask_kind: String,
    pub cache: &'static str,
    pub seed: u64,
    /// Calls of each sample.
    pub iteration_count: Vec<u64>,
    /// Nanoseconds of each sample, all its calls together.
    pub measured_values: Vec<f64>,
    pub unit: &'static str,
    pub throughput: [Throughput; 2],
    /// The mean, as in cargo-criterion without a regression.
    pub typical: Estimate,
    pub mean: Estimate,
    pub median: Estimate,
    pub median_abs_dev: Estimate,
    pub min_ns: f64,
    pub p20_ns: f64,
    pub p80_ns: f64,
    pub rel_stdev: f64,
    pub gflops_dense: f64,
    pub gflops_effective: f64,
    pub gbps: f64,
    pub percent_compute: f64,
    pub percent_bandwidth: f64,
    /// Level of memory that `percent_bandwidth` is a share of.
    pub bandwidth_level: &'static str,
    pub flop_per_byte: f64,
    /// `None` for whole steps: their calls are checked one by one.
    pub error: Option<f64>,
    pub tolerance: Option<f64>,
    pub verified: String,
    pub timer: &'static str,
    pub host_ns: f64,
    pub prepare_ns: Option<f64>,
    /// When the variant prepared: `before` the samples, or in `every call`.
    pub prepared: &'static str,
    pub clock_mhz_before: Option<f64>,
    pub clock_mhz_after: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
}

/// A case without a result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failed {
    schema: u32,
    reason: &'static str,
    pub id: String,
    pub why: String,
}

/// What a case came to.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Done(Box<Row>),
    Failed(Failed),
}

/// How a case is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Kind of device.
    pub backend: &'static str,
    pub threads: usize,
    pub cache: Cache,
    /// Weights count as changed: what a variant prepares from them is made in every call.
    pub fresh: bool,
}

impl Manner {
    /// The end of an id: `_w2` for two workers, `_fresh`, `_cold`.
    pub(crate) fn suffix(self) -> String {
        let workers = if self.threads == 1 { String::new() } else { format!("_w{}", self.threads) };
        let fresh = if self.fresh { "_fresh" } else { "" };
        workers + fresh + if self.cache == Cache::Cold { "_cold" } else { "" }
    }
}

/// Name of a case and everything about it that is not measured.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub id: String,
    pub op: String,
    pub dtype: String,
    pub variant: String,
    pub shape: BTreeMap<char, u32>,
    pub mask_kind: String,
    pub density: f64,
    pub seed: u64,
    pub manner: Manner,
    /// Median nanoseconds of what the variant prepares from its weights, if it prepares anything.
    pub prepare_ns: Option<f64>,
    pub dense_flops: u64,
    pub kept_flops: u64,
    pub bytes: u64,
}

impl About {
    /// Of a kernel call.
    pub(crate) fn call(case: &Case, made: &Made, variant: &str, manner: Manner, prepare_ns: Option<f64>) -> About {
        About {
            id: id(case, variant, manner),
            op: case.op.name.to_owned(),
            dtype: dtype_name(case.dtype),
            variant: variant.to_owned(),
            shape: case.sizes.iter().copied().collect(),
            mask_kind: match (&case.density, &case.learned) {
                (None, _) => "none".to_owned(),
                (Some(_), Some((name, _))) => name.clone(),
                (Some(_), None) => case.kind.name(),
            },
            density: made.density,
            seed: case.seed,
            manner,
            prepare_ns,
            dense_flops: made.dense_flops,
            kept_flops: made.kept_flops,
            bytes: made.bytes,
        }
    }
}

/// `f32`.
pub(crate) fn dtype_name(dtype: tsn::dt::autograd::engine::kernels::DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// `masked_gemm/cpu_f32_tiles_avx512/r3840_o512_i128_d50` and a suffix.
pub(crate) fn id(case: &Case, variant: &str, manner: Manner) -> String {
    let (op, dtype) = (case.op.name, dtype_name(case.dtype));
    format!("{op}/{}_{dtype}_{variant}/{}{}", manner.backend, case.label(), manner.suffix())
}

impl Outcome {
    /// A case without a result.
    pub(crate) fn failed(id: String, why: String) -> Outcome {
        Outcome::Failed(Failed { schema: SCHEMA, reason: "benchmark-failed", id, why })
    }

    /// A measured case. A figure that is not a number makes it a failure.
    pub(crate) fn new(
        about: About,
        checked: Checked,
        samples: Samples,
        clocks: [Option<f64>; 2],
        ceilings: &Ceilings,
    ) -> Outcome {
        let summary = Summary::new(&samples.each_ns());
        let median_ns = summary.median.estimate;
        // Per nanosecond is billions per second.
        let rate = |work: u64| if median_ns > 0.0 { work as f64 / median_ns } else { 0.0 };
        let percent = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let level = ceilings.level(about.bytes, about.manner.cache == Cache::Cold);
        let (effective, gbps) = (rate(about.kept_flops), rate(about.bytes));
        let peak = ceilings.peak(&about.dtype);
        let elements = Throughput { per_iteration: about.kept_flops, unit: "elements" };
        let row = Row {
            schema: SCHEMA,
            reason: "benchmark-complete",
            id: about.id,
            op: about.op,
            backend: about.manner.backend,
            device: ceilings.device.clone(),
            dtype: about.dtype,
            variant: about.variant,
            threads: about.manner.threads,
            shape: about.shape,
            density: about.density,
            mask_kind: about.mask_kind,
            cache: about.manner.cache.name(),
            seed: about.seed,
            iteration_count: samples.iterations,
            measured_values: samples.totals_ns,
            unit: "ns",
            throughput: [elements, Throughput { per_iteration: about.bytes, unit: "bytes" }],
            typical: summary.mean,
            mean: summary.mean,
            median: summary.median,
            median_abs_dev: summary.median_abs_dev,
            min_ns: summary.min,
            p20_ns: summary.p20,
            p80_ns: summary.p80,
            rel_stdev: summary.rel_stdev,
            gflops_dense: rate(about.dense_flops),
            gflops_effective: effective,
            gbps,
            percent_compute: percent(effective, peak),
            percent_bandwidth: percent(gbps, level.map_or(0.0, |l| l.read_gbps)),
            bandwidth_level: level.map_or("none", |l| l.name),
            flop_per_byte: if about.bytes > 0 { about.kept_flops as f64 / about.bytes as f64 } else { 0.0 },
            error: checked.error.map(|[error, _]| error),
            tolerance: checked.error.map(|[_, tolerance]| tolerance),
            verified: checked.verified,
            timer: if about.manner.backend == "cpu" { "wall" } else { "timestamps" },
            host_ns: samples.host_ns,
            prepare_ns: about.prepare_ns,
            prepared: if about.manner.fresh { "every call" } else { "before" },
            clock_mhz_before: clocks[0],
            clock_mhz_after: clocks[1],
            goal: None,
        };
        let figures =
            [row.median.estimate, row.mean.estimate, row.rel_stdev, row.percent_compute, row.percent_bandwidth];
        match figures.iter().all(|x| x.is_finite()) {
            true => Outcome::Done(Box::new(row)),
            false => Outcome::failed(row.id, "a figure is not a number".to_owned()),
        }
    }

    /// Name of the case.
    pub(crate) fn id(&self) -> &str {
        match self {
            Outcome::Done(row) => &row.id,
            Outcome::Failed(failed) => &failed.id,
        }
    }
}

impl Row {
    /// Sets the goal.
    pub(crate) fn set_goal(&mut self, goal_ns: f64) {
        let ratio = if self.median.estimate > 0.0 { goal_ns / self.median.estimate } else { 0.0 };
        self.goal = Some(Goal { goal_ns, ratio, meets: ratio >= 1.0 });
    }
}
