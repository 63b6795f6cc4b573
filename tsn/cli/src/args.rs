//! The command line.

use crate::commands::adapt::AdaptArgs;
use crate::files::note;
use crate::import::flags::Import;
use crate::profile::flags::ProfileArgs;
use crate::set::Setting;
use crate::settings::{parse_mode, parse_profile, parse_schedule, parse_selection};
use crate::sweep::grid::{Vary, parse_seeds, parse_vary};
use crate::tune::Table;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use tsn::affinity::Mode;
use tsn::options::Quantise;
use tsn::suite::Suite;
use tsn::{Baseline, KeepSchedule, Options, Profile, Selection, Strategy};

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

/// Settings shared by `demo` and `train`.
#[derive(Args, Clone)]
pub(crate) struct Learn {
    /// Training steps per task (demo 150, train 500)
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Windows in a batch (demo 16, train 64)
    #[arg(long, value_name = "N")]
    pub batch: Option<u32>,
    /// Peak learning rate (0.002)
    #[arg(long, value_name = "X")]
    pub lr: Option<f64>,
    /// Share of the weights in a task's mask (0.08)
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pub keep: Option<f64>,
    /// Affinity: action*, latent, hybrid, hybrid_abs or cosine
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<Mode>,
    /// Settings and rules: corrected or official
    #[arg(long, value_name = "NAME", default_value = "corrected", value_parser = parse_profile)]
    pub profile: Profile,
    /// Weights a mask may take: split*, any or free
    #[arg(long, value_name = "NAME", value_parser = parse_selection)]
    pub select: Option<Selection>,
    /// Ratio over tasks: constant*, equal_remaining or new_budget
    #[arg(long, value_name = "NAME", value_parser = parse_schedule)]
    pub schedule: Option<KeepSchedule>,
    /// inherit or nudge of warm starts, or what a strategy has (below)
    #[arg(long, value_name = "KEY=X", value_parser = Setting::parse)]
    pub set: Vec<Setting>,
    /// Share of the steps after which the mask is fixed (0.5)
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub fix_mask_after: Option<f64>,
    /// Replace each task's new weights by 16 centres per tensor
    #[arg(long)]
    pub quantise: bool,
    /// Most copies of the shared weights
    #[arg(long, value_name = "N")]
    pub max_copies: Option<usize>,
    /// Width of the model (128)
    #[arg(long, value_name = "N")]
    pub width: Option<u32>,
    /// Blocks of the model (3)
    #[arg(long, value_name = "N")]
    pub layers: Option<u32>,
    /// Steps in a window (20)
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Evaluation episodes per task (demo 5, train 10)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub episodes: Option<u64>,
    /// Generated episodes per task of a built-in suite
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = at_least_one)]
    pub data_episodes: usize,
    /// Leave out random, untrained and single-task references
    #[arg(long)]
    pub no_reference: bool,
    /// Steps between checkpoints (30 s at most)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    #[command(flatten)]
    pub place: Place,
    /// Directory of this run instead of a new one under runs/
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// Where to compute.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// cpu, cuda[:n] or wgpu[:n]
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: String,
    /// Workers; 0 is one per core (same bits for any)
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// Python with simulators (TSN_PYTHON, else python3)
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
    #[arg(long, value_name = "FILE", requires = "data", required_unless_present = "suite", conflicts_with = "suite")]
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
    /// npz or HDF5 files (Minari, D4RL), or Minari folders
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
    /// Steps of an episode [default: Atari 400, else the environment's limit]
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

impl Learn {
    /// The learner's options for a strategy; `steps` and `batch` if neither the user nor the official profile says.
    pub(crate) fn options(&self, strategy: Strategy, steps: u64, batch: u32) -> Options {
        let base = match self.profile {
            Profile::Corrected => Options { steps, batch, ..Options::corrected(strategy) },
            Profile::Official => Options::official(strategy),
        };
        Options {
            steps: self.steps.unwrap_or(base.steps),
            batch: self.batch.unwrap_or(base.batch),
            lr: self.lr.unwrap_or(base.lr),
            keep_ratio: self.keep.unwrap_or(base.keep_ratio),
            mode: self.mode.unwrap_or(base.mode),
            selection: self.select.unwrap_or(base.selection),
            schedule: self.schedule.unwrap_or(base.schedule),
            fix_mask_after: self.fix_mask_after.unwrap_or(base.fix_mask_after),
            quantise: self.quantise.then(Quantise::default),
            max_copies: self.max_copies.or(base.max_copies),
            seed: self.seed,
            ..base
        }
    }
}

impl Learn {
    /// The same options with the baseline of a model's kind of actions, and with what `--set` says.
    pub(crate) fn with_settings(&self, options: &Options, continuous: bool) -> Options {
        let strategy = options.strategy;
        let baseline = Baseline::new(strategy, self.profile, continuous);
        let mut options = Options { baseline, ..options.clone() };
        for setting in &self.set {
            if !setting.is_of(strategy) {
                note(&format!("--set: strategy {} has no {setting}", strategy.name()));
            }
            setting.apply(&mut options);
        }
        options
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

    /// Refuses JSON and CSV in one place.
    ///
    /// # Errors
    /// Names both flags.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        crate::files::apart(&[("--json", self.json.as_deref()), ("--csv", self.csv.as_deref())])
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("expected 1 to 1000000".into()),
    }
}

/// Bytes: a number, alone or with K, M, G or T (powers of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
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
    use clap::CommandFactory as _;

    #[test]
    fn sizes() {
        let good = [("7", 7), ("3k", 3 << 10), ("512M", 512 << 20), ("2G", 2 << 30), ("1TiB", 1 << 40)];
        good.iter().for_each(|(text, bytes)| assert_eq!(parse_size(text), Ok(*bytes), "{text}"));
        for bad in ["", "M", "0", "-1", "1.5G", "3X", "99999999T", "1 G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
