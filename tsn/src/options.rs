//! Every setting of a learner, with the defaults of both profiles. Source: method.md, its table of measured defaults.

use crate::error::Error;
use affinity::Mode;

/// Which semantics a run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The measured defaults of this project.
    Corrected,
    /// The reference implementation, for comparisons with its published runs.
    Official,
}

/// How tasks are learned one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Disjoint subnetworks: a mask takes free weights only.
    Tsn,
    /// Subnetworks that may contain earlier weights, routed by affinity.
    TsnAffinity,
    /// Subnetworks routed by the divergence of raw observations.
    TsnKl,
    /// As [`Strategy::TsnAffinity`], but the first earlier task that is close enough is taken.
    FirstMatch,
    /// As [`Strategy::TsnAffinity`], but an earlier task is drawn at random.
    Random,
    /// As [`Strategy::Tsn`], but trained dense first and pruned by magnitude; a mask holds all earlier weights, too.
    PackNet,
    /// One dense model trained on each task in turn.
    Naive,
    /// One dense model that also sees trajectories of earlier tasks.
    Cumulative,
    /// One dense model held back where the Fisher information of earlier tasks is large.
    Ewc,
    /// One dense model held back where earlier training lowered the loss most.
    Si,
    /// One dense model trained on all tasks at once: an upper reference.
    MultiTask,
    /// A dense model per task: the reference of normalised scores.
    Single,
}

/// Every strategy, in the order of help texts.
pub const STRATEGIES: [Strategy; 12] = [
    Strategy::TsnAffinity,
    Strategy::Tsn,
    Strategy::TsnKl,
    Strategy::FirstMatch,
    Strategy::Random,
    Strategy::PackNet,
    Strategy::Naive,
    Strategy::Cumulative,
    Strategy::Ewc,
    Strategy::Si,
    Strategy::MultiTask,
    Strategy::Single,
];

impl Strategy {
    /// Name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Tsn => "tsn",
            Strategy::TsnAffinity => "tsn_affinity",
            Strategy::TsnKl => "tsn_kl",
            Strategy::FirstMatch => "first_match",
            Strategy::Random => "random",
            Strategy::PackNet => "packnet",
            Strategy::Naive => "naive",
            Strategy::Cumulative => "cumulative",
            Strategy::Ewc => "ewc",
            Strategy::Si => "si",
            Strategy::MultiTask => "multi_task",
            Strategy::Single => "single",
        }
    }

    /// The strategy of a name.
    ///
    /// # Errors
    /// [`Error::Option`] lists the names.
    pub fn parse(name: &str) -> Result<Strategy, Error> {
        STRATEGIES.into_iter().find(|s| s.name() == name).ok_or_else(|| Error::Option {
            name: "strategy",
            found: name.to_owned(),
            allowed: STRATEGIES.map(Strategy::name).join(", "),
        })
    }

    /// True if tasks live in masks.
    pub fn is_masked(self) -> bool {
        !self.goes_on() && self != Strategy::Single
    }

    /// The other tasks of a list that learning task `number` draws on.
    pub fn company<T>(self, tasks: &[T], number: usize) -> Vec<&T> {
        let others = tasks.iter().enumerate();
        match self {
            Strategy::Cumulative => tasks[..number].iter().collect(),
            Strategy::MultiTask => others.filter(|(at, _)| *at != number).map(|(_, task)| task).collect(),
            _ => Vec::new(),
        }
    }

    /// True if a task only claims weights that are free.
    pub fn is_disjoint(self) -> bool {
        matches!(self, Strategy::Tsn | Strategy::PackNet)
    }

    /// True if one dense model goes on from task to task with the moments of its optimiser.
    pub fn goes_on(self) -> bool {
        matches!(self, Strategy::Naive | Strategy::Cumulative | Strategy::Ewc | Strategy::Si | Strategy::MultiTask)
    }
}

/// How many weights a task's mask takes. Source: method.md 5.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSchedule {
    /// The same ratio for every task.
    Constant,
    /// `1 / (tasks left)`: of the free weights, for disjoint masks only.
    EqualRemaining,
    /// The same number overall, of which at most the ratio of the free part may be new.
    NewBudget,
}

/// Which weights a mask may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Free weights only.
    Free,
    /// Any weight of the copy.
    Any,
    /// Half of the mask free, half occupied, each half ranked on its own.
    Split,
}

/// Share of a mask under [`Selection::Split`] that is occupied.
pub const HALF: f64 = 0.5;

/// How the scores of a task with a source start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WarmStart {
    /// Fresh scores whatever the source.
    Never,
    /// Fresh scores plus `sign(score) * amount` on the source's mask, if the router says so.
    Nudge(f32),
    /// `0.02 N(0, 1) + amount` on the source's mask (`official`, 2.0).
    Replace(f32),
}

/// Claimed weights replaced by a few centres after a task of a masked strategy. Source: method.md 5.8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantise {
    /// Centres per tensor, at most 16.
    pub clusters: u32,
    /// Steps that train the centres alone afterwards.
    pub tune_steps: u64,
    /// Their learning rate.
    pub tune_rate: f64,
}

impl Default for Quantise {
    /// 16 centres, so that codes have 4 bits, and the shortest fine-tune that recovered most of the loss.
    fn default() -> Quantise {
        Quantise { clusters: 16, tune_steps: 100, tune_rate: 5e-4 }
    }
}

/// How the Fisher information of a task is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fisher {
    /// Mean square of the gradient of single windows.
    PerWindow,
    /// Mean square of the gradient of a batch's mean loss (`official`): too small by about the size of the batch.
    BatchMean,
}

/// Settings of the dense baselines. Source: method.md 7.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Strength of the penalty on change, `lambda`.
    pub strength: f32,
    /// Estimator of the Fisher information (`ewc`).
    pub fisher: Fisher,
    /// Batches it is estimated from, and windows in each.
    pub fisher_batches: [u32; 2],
    /// Importance is summed over tasks; otherwise that of the latest task replaces the earlier one (`ewc`).
    pub accumulate: bool,
    /// Added to the squared change of a weight, `xi` (`si`).
    pub damping: f32,
    /// Largest importance of a weight (`si`).
    pub cap: Option<f32>,
    /// Share of a batch that comes from earlier tasks (`cumulative`).
    pub mix: f64,
    /// Trajectories of earlier tasks that are kept (`cumulative`).
    pub buffer: usize,
}

impl Baseline {
    /// The published settings of a strategy for discrete or continuous actions, and the textbook estimator in place of
    /// the published one unless the profile is official.
    pub fn new(strategy: Strategy, profile: Profile, continuous: bool) -> Baseline {
        let official = profile == Profile::Official;
        Baseline {
            strength: match (strategy, continuous) {
                (Strategy::Si, false) => 1.0,
                (Strategy::Si, true) => 0.5,
                _ => 50.0,
            },
            fisher: if official { Fisher::BatchMean } else { Fisher::PerWindow },
            fisher_batches: [50, if continuous { 32 } else { 8 }],
            accumulate: !(official && continuous),
            damping: 0.1,
            cap: continuous.then_some(10.0),
            mix: 0.5,
            buffer: if continuous { 5000 } else { 500 },
        }
    }
}

/// Settings of a learner.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which semantics.
    pub profile: Profile,
    /// How tasks are learned.
    pub strategy: Strategy,
    /// Affinity measure of the router.
    pub mode: Mode,
    /// Density of a mask, `c`.
    pub keep_ratio: f64,
    /// How the ratio goes over tasks.
    pub schedule: KeepSchedule,
    /// Which weights a mask may take.
    pub selection: Selection,
    /// Optimiser steps per task.
    pub steps: u64,
    /// Windows in a batch.
    pub batch: u32,
    /// Peak learning rate of weights.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Final learning rate as a fraction of the peak.
    pub floor: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global gradient norm; `None` does not clip.
    pub max_norm: Option<f32>,
    /// Learning rate of scores relative to weights.
    pub score_lr_scale: f32,
    /// Fraction of the steps after which scores stop learning and the mask is fixed.
    pub fix_mask_after: f64,
    /// How scores start.
    pub warm_start: WarmStart,
    /// Share of the mask of a task that starts warm that is taken from occupied weights, where [`Selection::Split`] ranks
    /// the two apart; half without a warm start. More of the source's function survives, less is new.
    pub inherit: f64,
    /// Most copies; `None` does not limit them.
    pub max_copies: Option<usize>,
    /// Raw thresholds of the router per mode: action, latent, hybrid, cosine, KL.
    pub thresholds: affinity::Thresholds,
    /// Weights become codebooks after each task.
    pub quantise: Option<Quantise>,
    /// Settings of dense baselines.
    pub baseline: Baseline,
    /// Tasks announced in all; only [`KeepSchedule::EqualRemaining`] needs it.
    pub announced: usize,
    /// Seed of every random stream.
    pub seed: u64,
}

impl Options {
    /// The defaults of profile `corrected`.
    pub fn corrected(strategy: Strategy) -> Options {
        Options {
            profile: Profile::Corrected,
            strategy,
            mode: Mode::Action,
            keep_ratio: 0.08,
            schedule: KeepSchedule::Constant,
            selection: if strategy.is_disjoint() { Selection::Free } else { Selection::Split },
            steps: 500,
            batch: 64,
            lr: 2e-3,
            warmup: 50,
            floor: 0.05,
            weight_decay: 1e-4,
            max_norm: Some(1.0),
            score_lr_scale: 5.0,
            fix_mask_after: 0.5,
            warm_start: WarmStart::Nudge(0.1),
            inherit: HALF,
            max_copies: None,
            thresholds: affinity::Thresholds::SCALED,
            quantise: None,
            baseline: Baseline::new(strategy, Profile::Corrected, false),
            announced: 0,
            seed: 0,
        }
    }

    /// The settings of the reference implementation's CartPole and Atari runs.
    pub fn official(strategy: Strategy) -> Options {
        let selection = if strategy.is_disjoint() { Selection::Free } else { Selection::Any };
        Options {
            profile: Profile::Official,
            keep_ratio: 0.5,
            selection,
            steps: 2000,
            lr: 3e-4,
            warmup: 0,
            floor: 1.0,
            score_lr_scale: 1.0,
            fix_mask_after: 1.0,
            thresholds: affinity::Thresholds::ATARI,
            baseline: Baseline::new(strategy, Profile::Official, false),
            warm_start: if strategy == Strategy::TsnKl { WarmStart::Never } else { WarmStart::Replace(2.0) },
            ..Options::corrected(strategy)
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Option`] names the setting, its value and its range.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |holds: bool, name: &'static str, found: String, allowed: &str| match holds {
            true => Ok(()),
            false => Err(Error::Option { name, found, allowed: allowed.to_owned() }),
        };
        let keep = self.keep_ratio;
        check(keep > 0.0 && keep <= 1.0, "keep_ratio", keep.to_string(), "0 < keep_ratio <= 1")?;
        check(self.steps > 0, "steps", self.steps.to_string(), "at least 1")?;
        check((1..=65_536).contains(&self.batch), "batch", self.batch.to_string(), "1 to 65536")?;
        check(self.lr.is_finite() && self.lr >= 0.0, "lr", self.lr.to_string(), "a finite number, at least 0")?;
        check((0.0..=1.0).contains(&self.floor), "floor", self.floor.to_string(), "0 to 1")?;
        let decay = self.weight_decay;
        check(decay.is_finite() && decay >= 0.0, "weight_decay", decay.to_string(), "a finite number, at least 0")?;
        let fix = self.fix_mask_after;
        check((0.0..=1.0).contains(&fix), "fix_mask_after", fix.to_string(), "0 to 1")?;
        check((0.0..=1.0).contains(&self.inherit), "inherit", self.inherit.to_string(), "0 to 1")?;
        if let WarmStart::Nudge(amount) | WarmStart::Replace(amount) = self.warm_start {
            let sound = amount.is_finite() && amount >= 0.0;
            check(sound, "warm start", amount.to_string(), "a finite number, at least 0")?;
        }
        check(self.max_copies != Some(0), "max_copies", "0".into(), "at least 1")?;
        let scale = self.score_lr_scale;
        check(scale.is_finite() && scale >= 0.0, "score_lr_scale", scale.to_string(), "a finite number, at least 0")?;
        if let Some(q) = self.quantise {
            check((2..=16).contains(&q.clusters), "clusters", q.clusters.to_string(), "2 to 16")?;
            let rate = q.tune_rate;
            let sound = rate.is_finite() && rate >= 0.0;
            check(sound, "tune_rate", rate.to_string(), "a finite number, at least 0")?;
        }
        let Baseline { strength, fisher_batches: [batches, windows], damping, mix, .. } = self.baseline;
        let sound = strength.is_finite() && strength >= 0.0;
        check(sound, "strength", strength.to_string(), "a finite number, at least 0")?;
        let sound = (1..=1 << 20).contains(&batches) && (1..=4096).contains(&windows);
        check(sound, "fisher_batches", format!("{batches} of {windows}"), "1 to 1048576 of 1 to 4096 windows")?;
        let sound = damping.is_finite() && damping > 0.0;
        check(sound, "damping", damping.to_string(), "a finite number above 0")?;
        check((0.0..1.0).contains(&mix), "mix", mix.to_string(), "0 to below 1")?;
        check(self.baseline.buffer > 0, "buffer", "0".into(), "at least 1")?;
        let sound = self.strategy != Strategy::PackNet || self.selection == Selection::Free;
        check(sound, "selection", format!("{:?}", self.selection).to_lowercase(), "free for packnet")?;
        let disjoint = self.selection == Selection::Free;
        let sound = self.profile == Profile::Official || disjoint || self.schedule != KeepSchedule::EqualRemaining;
        check(sound, "schedule", "equal_remaining".into(), "constant or new_budget where masks may share weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let mut options = Options::corrected(Strategy::TsnAffinity);
        assert!(options.validate().is_ok());
        options.keep_ratio = 1.4;
        let message = options.validate().unwrap_err().to_string();
        assert!(message.contains("keep_ratio") && message.contains("1.4"), "{message}");
        let texts = [
            Options { inherit: -0.1, ..Options::corrected(Strategy::TsnAffinity) },
            Options { inherit: f64::NAN, ..Options::corrected(Strategy::TsnAffinity) },
            Options { warm_start: WarmStart::Nudge(f32::NAN), ..Options::corrected(Strategy::TsnAffinity) },
        ]
        .map(|options| options.validate().unwrap_err().to_string());
        assert!(
            texts[0].contains("inherit") && texts[1].contains("NaN") && texts[2].contains("warm start"),
            "{texts:?}"
        );
        assert!(Strategy::parse("tsn_afinity").unwrap_err().to_string().contains("tsn_affinity"));
    }
}
