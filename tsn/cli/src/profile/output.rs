//! Results as lines of JSON, as CSV, and as a table for a terminal.

use super::fingerprint::Fingerprint;
use super::row::{Outcome, Row};
use anyhow::Result;
use std::fmt::Write as _;

/// Name of a column and what fills it.
type Column = (&'static str, fn(&Row) -> String);

/// Columns of the CSV.
const COLUMNS: &[Column] = &[
    ("id", |r| r.id.clone()),
    ("op", |r| r.op.clone()),
    ("backend", |r| r.backend.to_owned()),
    ("dtype", |r| r.dtype.clone()),
    ("variant", |r| r.variant.clone()),
    ("threads", |r| r.threads.to_string()),
    ("shape", |r| r.shape.iter().map(|(l, n)| format!("{l}{n}")).collect::<Vec<_>>().join(" ")),
    ("density", |r| r.density.to_string()),
    ("mask_kind", |r| r.mask_kind.clone()),
    ("cache", |r| r.cache.to_owned()),
    ("seed", |r| r.seed.to_string()),
    ("samples", |r| r.measured_values.len().to_string()),
    ("min_ns", |r| r.min_ns.to_string()),
    ("p20_ns", |r| r.p20_ns.to_string()),
    ("median_ns", |r| r.median.estimate.to_string()),
    ("median_low_ns", |r| r.median.lower_bound.to_string()),
    ("median_high_ns", |r| r.median.upper_bound.to_string()),
    ("p80_ns", |r| r.p80_ns.to_string()),
    ("mean_ns", |r| r.mean.estimate.to_string()),
    ("rel_stdev", |r| r.rel_stdev.to_string()),
    ("gflops_dense", |r| r.gflops_dense.to_string()),
    ("gflops_effective", |r| r.gflops_effective.to_string()),
    ("gbps", |r| r.gbps.to_string()),
    ("percent_compute", |r| r.percent_compute.to_string()),
    ("percent_bandwidth", |r| r.percent_bandwidth.to_string()),
    ("bandwidth_level", |r| r.bandwidth_level.to_owned()),
    ("flop_per_byte", |r| r.flop_per_byte.to_string()),
    ("error", |r| r.error.map_or_else(String::new, |x| x.to_string())),
    ("tolerance", |r| r.tolerance.map_or_else(String::new, |x| x.to_string())),
    ("verified", |r| r.verified.clone()),
    ("prepare_ns", |r| r.prepare_ns.map_or_else(String::new, |x| x.to_string())),
    ("prepared", |r| r.prepared.to_owned()),
    ("goal_ns", |r| r.goal.map_or_else(String::new, |g| g.goal_ns.to_string())),
];

/// The fingerprint, then one object per case.
pub(crate) fn json(fingerprint: &Fingerprint, outcomes: &[Outcome]) -> Result<String> {
    let mut text = serde_json::to_string(fingerprint)? + "\n";
    for outcome in outcomes {
        text += &serde_json::to_string(outcome)?;
        text.push('\n');
    }
    Ok(text)
}

/// The fingerprint as comments, a head, one line per case; a failed case has its reason in the last column.
pub(crate) fn csv(fingerprint: &Fingerprint, outcomes: &[Outcome]) -> String {
    let mut text: String = fingerprint.text().lines().map(|line| format!("# {line}\n")).collect();
    let head: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).chain(["why"]).collect();
    text += &(head.join(",") + "\n");
    for outcome in outcomes {
        let cells: Vec<String> = match outcome {
            Outcome::Done(row) => COLUMNS.iter().map(|(_, cell)| quoted(&cell(row))).chain([String::new()]).collect(),
            Outcome::Failed(failed) => {
                let empty = std::iter::repeat_n(String::new(), COLUMNS.len() - 1);
                std::iter::once(quoted(&failed.id)).chain(empty).chain([quoted(&failed.why)]).collect()
            }
        };
        text += &(cells.join(",") + "\n");
    }
    text
}

fn quoted(cell: &str) -> String {
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    }
}

/// Columns of the table after the shape.
const HEAD: [&str; 10] = ["median", "p20", "p80", "sd %", "dense", "kept", "GB/s", "peak %", "mem %", "err/tol"];
const WIDTHS: [usize; 10] = [9, 9, 9, 5, 7, 7, 7, 6, 9, 7];

/// Groups of rows with the same op and variant, at most 120 columns wide.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let shape = |id: &str| id.rsplit('/').next().unwrap_or(id).to_owned();
    let wide = outcomes.iter().map(|o| shape(o.id()).len()).max().unwrap_or(0).clamp(12, 33);
    let mut text = format!("{:wide$}", "GFLOP/s: dense, kept");
    HEAD.iter().zip(WIDTHS).for_each(|(name, w)| _ = write!(text, " {name:>w$}"));
    text.push('\n');
    let mut group = String::new();
    for outcome in outcomes {
        let id = outcome.id();
        let of = id.rsplit_once('/').map_or("", |(group, _)| group);
        if of != group {
            group = of.to_owned();
            _ = writeln!(text, "{group}");
        }
        match outcome {
            Outcome::Done(row) => line(&mut text, row, &shape(id), wide),
            Outcome::Failed(failed) => _ = writeln!(text, "{:wide$} FAILED: {}", shape(id), failed.why),
        }
    }
    text
}

fn line(text: &mut String, row: &Row, shape: &str, wide: usize) {
    let error = match (row.error, row.tolerance) {
        (Some(error), Some(tolerance)) if tolerance > 0.0 => format!("{:.2}", error / tolerance),
        (Some(_), Some(_)) => "exact".to_owned(),
        _ => "-".to_owned(),
    };
    let cells = [
        time(row.median.estimate),
        time(row.p20_ns),
        time(row.p80_ns),
        format!("{:.1}", 100.0 * row.rel_stdev),
        format!("{:.1}", row.gflops_dense),
        format!("{:.1}", row.gflops_effective),
        format!("{:.1}", row.gbps),
        format!("{:.0}", row.percent_compute),
        format!("{:.0} {}", row.percent_bandwidth, row.bandwidth_level),
        error,
    ];
    // A long shape gets a line of its own.
    match shape.len() > wide {
        true => _ = write!(text, "{shape}\n{:wide$}", ""),
        false => _ = write!(text, "{shape:wide$}"),
    }
    cells.iter().zip(WIDTHS).for_each(|(cell, w)| _ = write!(text, " {cell:>w$}"));
    if let Some(goal) = row.goal {
        let word = if goal.meets { "meets" } else { "misses" };
        _ = write!(text, "\n{:>wide$} goal {} {word}, {:.2}x", "", time(goal.goal_ns), goal.ratio);
    }
    text.push('\n');
}

/// Four digits and a unit.
pub(crate) fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        x if x < 1e3 => (x, "ns"),
        x if x < 1e6 => (x / 1e3, "us"),
        x if x < 1e9 => (x / 1e6, "ms"),
        x => (x / 1e9, "s"),
    };
    let digits = 3 - (value.max(1.0).log10().floor() as usize).min(3);
    format!("{value:.digits$} {unit}")
}
