//! Options that several commands share, and the values that they take.

use crate::record::RunConfig;
use crate::tune::Table;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Where to compute.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// cpu, cuda[:n] or wgpu[:n] [default: cpu; resume: the run's]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Workers, 0 for one per core; same bits for any [resume: the run's]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Python with simulators (TSN_PYTHON or python3; resume: the run's)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
}

/// What chooses between two ways to compute a masked product.
#[derive(Args, Clone)]
pub(crate) struct Tuning {
    /// Crossover table of `cargo xtask tune`; the bits follow the table
    #[arg(long, value_name = "FILE", conflicts_with = "deterministic")]
    pub tune: Option<PathBuf>,
    /// Look up the shipped table, as without --tune
    #[arg(long)]
    pub deterministic: bool,
}

/// Where results go besides stdout.
#[derive(Args, Clone)]
pub(crate) struct Output {
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a table as CSV to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// No progress, no summary
    #[arg(long, short)]
    pub quiet: bool,
}

impl Place {
    pub(crate) fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("cpu")
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or(0)
    }

    /// Where a run goes on: what is not said is as it was.
    pub(crate) fn or(&self, run: &RunConfig) -> Place {
        Place {
            device: self.device.clone().or_else(|| Some(run.device.clone())),
            threads: self.threads.or(Some(run.threads)),
            python: self.python.clone().or_else(|| run.python.clone()),
        }
    }
}

impl Tuning {
    /// The table instead of the shipped one.
    ///
    /// # Errors
    /// A file that holds no table for this program on this CPU.
    pub(crate) fn table(&self) -> Result<Option<Table>> {
        let path = self.tune.as_deref().filter(|_| !self.deterministic);
        path.map(Table::read).transpose()
    }
}

impl Output {
    /// True if stdout belongs to JSON or CSV, or nothing may be printed.
    pub(crate) fn silent(&self) -> bool {
        let taken = |path: &Option<PathBuf>| path.as_deref().is_some_and(|p| p == std::path::Path::new("-"));
        self.quiet || taken(&self.json) || taken(&self.csv)
    }

    /// Refuses JSON and CSV in one place, and where they cannot be written.
    ///
    /// # Errors
    /// Names the flags.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        crate::files::check_outputs(&[("--json", self.json.as_deref()), ("--csv", self.csv.as_deref())])
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("expected 1 to 1000000".into()),
    }
}

/// Bytes: a number, alone or with K, M, G or T (powers of 1024).
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1u64,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err("expected bytes as a number with K, M, G or T, such as 512M".into()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0);
    bytes.ok_or_else(|| "expected bytes as a number with K, M, G or T, such as 512M".into())
}

pub(crate) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 0..=1024) => Ok(n),
        _ => Err("expected 0 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [("7", 7), ("3k", 3 << 10), ("512M", 512 << 20), ("2G", 2 << 30), ("1TiB", 1 << 40)];
        good.iter().for_each(|(text, bytes)| assert_eq!(parse_size(text), Ok(*bytes), "{text}"));
        for bad in ["", "M", "0", "-1", "1.5G", "3X", "99999999T", "1 G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
