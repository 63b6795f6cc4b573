//! Options of everything that learns, and the learner's options that they mean.

use super::shared::{Output, Place, at_least_one};
use crate::files::note;
use crate::set::Setting;
use crate::settings::{parse_mode, parse_profile, parse_schedule, parse_selection};
use clap::Args;
use std::path::PathBuf;
use tsn::affinity::Mode;
use tsn::options::Quantise;
use tsn::{Baseline, KeepSchedule, Options, Profile, Selection, Strategy};

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
