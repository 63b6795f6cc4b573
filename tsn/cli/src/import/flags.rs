//! Arguments of `import`.

use crate::args::at_least_one;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Import {
    /// Make run directories of results.json files, or of a CSV with a column perf_matrix
    Run(ImportRun),
    /// Make a bank of one task of a checkpoint exported as safetensors
    Model(ImportModel),
}

#[derive(Args)]
#[command(after_help = "\
CSV: columns strategy, task_order (a|b), perf_matrix ([[..], ..]); also train_seed and settings.

Example:
  tsn-affinity import run runs/train/results.json --out runs/imported")]
pub(crate) struct ImportRun {
    /// Records of runs
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Directory that gets one run directory per record
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the list of tasks, so that runs of ours on it stand in the same plots
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
}

#[derive(Args)]
#[command(after_help = "\
A checkpoint holds the scores of the task learned last. PyTorch files are never read:
  save_file({k: v.contiguous() for k, v in state.items()}, \"model.safetensors\")
with save_file of safetensors.torch exports one.

Example:
  tsn-affinity import model model.safetensors --suite demo --task P_default --out a.bank")]
pub(crate) struct ImportModel {
    /// The checkpoint, a safetensors file with the reference's names
    pub file: PathBuf,
    /// The bank to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Its task, one of the spec or the suite
    #[arg(long, value_name = "NAME")]
    pub task: String,
    /// JSON list of {name, env_id, seed, params}
    #[arg(long, value_name = "FILE", requires = "data", conflicts_with = "suite")]
    pub spec: Option<PathBuf>,
    /// Folder of the datasets
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Suite of the task
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
    /// Generated episodes per task of a built-in suite
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = at_least_one)]
    pub data_episodes: usize,
    /// Share of each tensor that scores keep, if the file has no masks
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub keep: Option<f64>,
    /// Attention heads (4; 1 with obs_mean in the file)
    #[arg(long, value_name = "N")]
    pub heads: Option<u32>,
    /// Steps in a window
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub context: u32,
    /// Evaluation episodes to note down
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub episodes: u64,
    /// Python with simulators (TSN_PYTHON, else python3)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
}
