//! The command line.

use crate::commands::adapt::AdaptArgs;
use crate::import::flags::Import;
use crate::profile::flags::ProfileArgs;
use crate::settings::parse_profile;
use crate::sweep::grid::{Vary, parse_seeds, parse_vary};
use clap::{Args, Parser, Subcommand};
use shared::parse_size;
use std::path::PathBuf;
use tsn::suite::Suite;
use tsn::{Profile, Strategy};

mod learn;
mod shared;

pub(crate) use learn::Learn;
pub(crate) use shared::{Output, Place, Tuning, at_least_one, threads};

const TOP: &str = "\
{about}

{usage}

Commands:
{subcommands}

Without a command the demo runs; `tsn-affinity help demo` lists its options.
Results go to stdout, progress to stderr. Exit codes: 0 done, 1 negative result or
stopped before the end, 2 unusable input, 3 missing baseline, 70 internal or device.

Example:
  tsn-affinity --suite demo --steps 4 --batch 4 --episodes 1 --no-reference --out runs/first";

/// Learns tasks one after another in sparse masks over shared weights, without forgetting.
#[derive(Parser)]
#[command(version, help_template = TOP, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub demo: Demo,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Learn a built-in CartPole suite with several strategies and compare them
    Demo(Demo),
    /// Learn the tasks of a spec, or a built-in suite, with one strategy
    Train(Train),
    /// Train over strategies, seeds and settings, several runs at a time
    Sweep(Sweep),
    /// Go on with a run that was stopped or killed, to the same bits
    Resume(Resume),
    /// Play every task of a bank
    Eval(Eval),
    /// Find a mask for an unseen task from a few demonstrations
    Adapt(AdaptArgs),
    /// Say why a logged episode is routed as it is, task by task
    Explain(Explain),
    /// Show what a bank holds: tasks, copies, masks, sources, memory
    Inspect(Inspect),
    /// Take over runs and models of the reference implementation
    #[command(subcommand)]
    Import(Import),
    /// Check, convert or make datasets
    #[command(subcommand)]
    Data(Data),
    /// Show what this machine offers and verify a kernel
    Doctor(Doctor),
    /// Write a page with plots and tables of some runs, and their numbers
    Report(Report),
    /// Time kernels, checked against f64, and hold them against this machine's limits
    Profile(ProfileArgs),
}

#[derive(Args)]
#[command(after_help = "\
* default

Example:
  tsn-affinity demo --suite cartpole_conflict --steps 4 --episodes 1 --no-reference --json -")]
pub(crate) struct Demo {
    /// A CartPole suite that comes along (? lists them)
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = Suite::parse)]
    pub suite: Suite,
    /// As --strategy of train, one or several (tsn_affinity,naive)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "tsn_affinity,naive", hide_default_value = true, value_parser = Strategy::parse)]
    pub strategies: Vec<Strategy>,
    #[command(flatten)]
    pub learn: Learn,
}

#[derive(Args)]
#[command(after_help = "\
* default; strategies with masks: tsn_affinity, tsn, tsn_kl, first_match, random, packnet; dense:
  naive, multi_task, single, cumulative (mix, buffer), ewc (strength, fisher), si (strength)

Example:
  tsn-affinity train --spec data/tasks.json --data data --steps 4 --episodes 1 --out runs/train")]
pub(crate) struct Train {
    /// JSON list of {name, env_id, seed, params}
    #[arg(long, value_name = "FILE", requires = "data", conflicts_with = "suite")]
    pub spec: Option<PathBuf>,
    /// Folder with <task name>/trajs.npz, *.hdf5 there, or Minari folders
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Memory for data (512M, 2G); larger observations stay on disk
    #[arg(long, value_name = "SIZE", requires = "data", value_parser = parse_size)]
    pub mem: Option<u64>,
    /// cartpole7, panda3, atari6, ... (? lists them) or a .json file
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
    /// Of a suite: smoke, standard or published steps
    #[arg(long, value_name = "NAME", requires = "suite")]
    pub budget: Option<String>,
    /// tsn_affinity*, or another (see below)
    #[arg(long, value_name = "NAME", default_value = "tsn_affinity", hide_default_value = true, value_parser = Strategy::parse)]
    pub strategy: Strategy,
    /// Run directory of strategy single whose scores are the reference
    #[arg(long, value_name = "DIR", conflicts_with = "no_reference")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub learn: Learn,
}

#[derive(Args)]
#[command(after_help = "\
Started again with the same arguments, a sweep that was stopped or killed goes on.
With strategy single, its runs come first and are the reference of the others.

Example:
  tsn-affinity sweep --out runs/sweep --seeds 0..2 -- --suite demo --steps 4 --episodes 1 --width 16")]
pub(crate) struct Sweep {
    /// Directory that gets one run directory per combination
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// As --strategy of train, several (single,tsn_affinity,naive)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "single,tsn_affinity,naive", hide_default_value = true, value_parser = Strategy::parse)]
    pub strategies: Vec<Strategy>,
    /// Numbers, or a range as 0..3
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0..3", value_parser = parse_seeds)]
    pub seeds: Vec<Vec<u64>>,
    /// An option of train and its values, as keep=0.05,0.1 or set.mix=0.3,0.5
    #[arg(long, value_name = "OPTION=LIST", value_parser = parse_vary)]
    pub vary: Vec<Vary>,
    /// Runs at a time; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub jobs: usize,
    /// Workers of a run; 0 shares the cores out
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// Arguments of every train
    #[arg(last = true, required = true, value_name = "TRAIN")]
    pub train: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity resume runs/train")]
pub(crate) struct Resume {
    /// Directory of the run
    #[arg(value_name = "RUN_DIR")]
    pub run: PathBuf,
    /// Folder of the datasets, if it moved
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Memory for data instead of the run's
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub mem: Option<u64>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args)]
#[command(after_help = "\
Rules: affinity (the filter), nearest (the state alone), first, recent, random, oracle (named).

Example:
  tsn-affinity eval runs/train/bank.safetensors --episodes 2 --route affinity --routing-data --csv -")]
pub(crate) struct Eval {
    /// The bank, for example RUN_DIR/bank.safetensors
    pub bank: PathBuf,
    /// Play these tasks instead of the bank's own list; names must match
    #[arg(long, value_name = "FILE", requires = "data")]
    pub spec: Option<PathBuf>,
    /// Folder of the datasets, if it moved
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Memory for data, such as 512M; observations beyond it stay on disk
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub mem: Option<u64>,
    /// Episodes per task
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub episodes: u64,
    /// Play without naming the task: a rule chooses it
    #[arg(long, value_name = "RULE", hide_possible_values = true)]
    pub route: Option<Rule>,
    /// Route held-out logged episodes, too; also with their own task left out
    #[arg(long)]
    pub routing_data: bool,
    /// With --routing-data: frames by their pixels, not by the number of actions
    #[arg(long, requires = "routing_data")]
    pub pixels_only: bool,
    /// Play all pairs; tasks that score within 2 % of each other are one class
    #[arg(long, requires = "route")]
    pub classes: bool,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub output: Output,
}

/// Who chooses the task; the help of `eval` explains them in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rule {
    Affinity,
    Nearest,
    First,
    Recent,
    Random,
    Oracle,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity explain runs/train/bank.safetensors --task P_default")]
pub(crate) struct Explain {
    /// The bank, for example RUN_DIR/bank.safetensors
    pub bank: PathBuf,
    /// Follow a logged episode of this task; without it, why tasks lie where they do
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Which of its held-out episodes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub episode: usize,
    /// Task spec, if not the bank's own list
    #[arg(long, value_name = "FILE", requires = "data")]
    pub spec: Option<PathBuf>,
    /// Folder of the datasets, if it moved
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity inspect runs/train/bank.safetensors")]
pub(crate) struct Inspect {
    /// The bank
    pub bank: PathBuf,
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Data {
    /// Read datasets and say what they hold, or all that is wrong with them
    Check(Check),
    /// Write a Minari, D4RL or npz dataset as npz
    Convert(Convert),
    /// Make the datasets of a benchmark, by controllers of our own
    Make(Make),
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity data check data/P_default/trajs.npz")]
pub(crate) struct Check {
    /// npz or HDF5 files (Minari, D4RL), Minari folders, or folders of datasets
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity data convert data/P_default/trajs.npz clipped.npz --clip")]
pub(crate) struct Convert {
    /// An npz or HDF5 file (Minari, D4RL), or a Minari folder
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The npz to write
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Replace rewards by their sign
    #[arg(long)]
    pub clip: bool,
}

#[derive(Args)]
#[command(after_help = "\
CartPole needs nothing else; Panda and Atari are played in a Python that has the simulators:
  tsn-affinity data make --suite panda3 --out data --episodes 200 --python .venv/bin/python

Example:
  tsn-affinity data make --suite demo --out data")]
pub(crate) struct Make {
    /// A suite that comes along (? lists them) or a .json file
    #[arg(long, value_name = "NAME", default_value = "demo")]
    pub suite: String,
    /// Folder that gets tasks.json and <task name>/{trajs.npz,meta.json}
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Episodes per task [default: 60, Panda 200, Atari 10]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub episodes: Option<usize>,
    /// Steps that an episode may have [default: Atari 400, else the limit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub frames: Option<usize>,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// CartPole's physics: corrected or official
    #[arg(long, value_name = "NAME", default_value = "corrected", value_parser = parse_profile)]
    pub profile: Profile,
    /// Python with simulators (TSN_PYTHON, else python3)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Simulators side by side (0: cores; same data for any)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub jobs: usize,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity doctor")]
pub(crate) struct Doctor {
    /// Python with simulators (TSN_PYTHON, else python3)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  tsn-affinity report runs/train --csv -")]
pub(crate) struct Report {
    /// Run directories, or directories that hold some (a sweep)
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Directory that gets report.html and report.csv instead of the first one
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
