//! One file per command.

pub(crate) mod adapt;
pub(crate) mod bank;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod import;
mod make;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod routing;
pub(crate) mod train;

use crate::args::{Learn, Output, Place};
use crate::files::{stamp, write_output};
use crate::problem::Problem;
use crate::record::{Results, RunConfig};
use crate::settings::{SCHEMA, Settings};
use crate::summary;
use crate::tune::Table;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use tsn::dt::autograd::engine::Device;
use tsn::dt::config::{Action, Config};
use tsn::{Options, Strategy};

/// The program did what was asked, and the answer is no: exit code 1.
#[derive(Debug)]
pub(crate) struct Negative(pub String);

impl fmt::Display for Negative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Negative {}

/// Opens a device with the workers asked for.
fn open_device(place: &Place) -> Result<Device> {
    let device = Device::open(place.device())?;
    Ok(if place.threads() == 0 || place.device() != "cpu" { device } else { Device::cpu(place.threads()) })
}

/// The device with a table instead of the shipped one.
fn tuned(device: Device, table: Option<&Table>) -> Result<Device> {
    match table {
        Some(table) => Ok(device.with_crossover(table.crossover()?)),
        None => Ok(device),
    }
}

/// The standard model of a problem with the sizes the user asked for.
fn model(problem: &Problem, learn: &Learn) -> Result<Config> {
    let base = problem.config;
    let config = Config {
        width: learn.width.unwrap_or(base.width),
        layers: learn.layers.unwrap_or(base.layers),
        context: learn.context.unwrap_or(base.context),
        ..base
    };
    config.validate()?;
    Ok(config)
}

fn run_config(
    problem: &Problem,
    config: &Config,
    options: &Options,
    learn: &Learn,
    episodes: u64,
) -> Result<RunConfig> {
    let (data, entries) = (problem.data.clone(), problem.entries.clone());
    let options = learn.with_settings(options, matches!(config.action, Action::Continuous(_)));
    let options = &Options { announced: problem.tasks.len(), ..options };
    options.validate()?;
    let settings = Settings::new(&problem.suite, options, config, episodes, data, entries);
    Ok(RunConfig {
        config_hash: settings.hash()?,
        settings,
        data_directory: None,
        reference_directory: None,
        memory_cap: None,
        // Its own matrix is the reference of a dense model per task.
        reference: !learn.no_reference && options.strategy != Strategy::Single,
        device: learn.place.device().to_owned(),
        threads: learn.place.threads(),
        played: problem.tasks.iter().filter(|t| t.environment.is_some()).map(|t| t.name.clone()).collect(),
        python: learn.place.python.as_deref().map(program).transpose()?,
        crossover: None,
        checkpoint_every: learn.checkpoint_every,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: Some(env!("TSN_REVISION")).filter(|revision| *revision != "unknown").map(str::to_owned),
        started: stamp(true),
    })
}

/// Name of a run without number and time.
fn stem(suite: &str, what: &str, options: &Options) -> String {
    let tag = format!("{:?}", options.profile).to_lowercase();
    format!("{suite}__{what}__{tag}")
}

/// A stop is told with the way to go on.
fn explain_stop(error: anyhow::Error, dir: &Path) -> anyhow::Error {
    match error.downcast_ref::<tsn::Error>() {
        Some(stopped @ tsn::Error::Stopped { .. }) => {
            Negative(format!("{stopped}; go on with: tsn-affinity resume {}", dir.display())).into()
        }
        _ => error,
    }
}

/// What `--json` writes.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    suite: &'a str,
    wall_s: f64,
    bit_identical: Option<bool>,
    run_directory: &'a Path,
    strategies: BTreeMap<&'a str, &'a Results>,
}

/// Writes `--json` and `--csv`, and fails if masks did not keep their promise.
fn deliver(all: &[Results], wall_s: f64, dir: &Path, output: &Output) -> Result<()> {
    let masked: Vec<bool> = all.iter().filter_map(|r| r.bit_identical).collect();
    let bit_identical = (!masked.is_empty()).then(|| masked.iter().all(|same| *same));
    if let Some(path) = &output.json {
        let suite = all.first().map_or("", |r| r.suite.as_str());
        let strategies = all.iter().map(|r| (r.name.as_str(), r)).collect();
        let document = Document { schema: SCHEMA, suite, wall_s, bit_identical, run_directory: dir, strategies };
        write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
    }
    if let Some(path) = &output.csv {
        write_output(path, &summary::csv(all))?;
    }
    match bit_identical {
        Some(false) => Err(Negative("an earlier task changed while a later one was learned".into()).into()),
        _ => Ok(()),
    }
}

/// A program as it is from anywhere; a name alone is looked for when it is started.
fn program(path: &Path) -> Result<PathBuf> {
    if path.parent() == Some(Path::new("")) { Ok(path.to_owned()) } else { absolute(path) }
}

/// The path as it is from anywhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
