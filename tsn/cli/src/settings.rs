//! Everything that decides the bits of a run, as it lies in `config.json` and in a bank, and back.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tsn::affinity::{Mode, Thresholds};
use tsn::dt::config::{Action, Config, Observation, Time};
use tsn::dt::env::cartpole::Derived;
use tsn::options::{HALF, Quantise};
use tsn::{Bank, Baseline, Fisher, KeepSchedule, Options, Profile, Selection, Strategy, WarmStart};

/// Version of every file in a run directory.
pub(crate) const SCHEMA: u32 = 1;

/// Settings of one run. Two runs with equal settings end with equal bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the list of tasks.
    pub suite: String,
    /// How tasks are learned.
    pub strategy: String,
    /// Affinity measure.
    pub mode: String,
    /// Semantics.
    pub profile: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// Evaluation episodes per task and matrix entry.
    pub episodes: u64,
    /// Density of a mask.
    pub keep_ratio: f64,
    schedule: String,
    selection: String,
    /// Optimiser steps per task.
    pub steps: u64,
    /// Windows in a batch.
    pub batch: u32,
    /// Peak learning rate.
    pub lr: f64,
    warmup: u64,
    floor: f64,
    weight_decay: f32,
    max_norm: Option<f32>,
    score_lr_scale: f32,
    fix_mask_after: f64,
    warm_start: String,
    warm_start_amount: Option<f32>,
    /// Left out at its default, so that runs from before it existed keep their hash.
    #[serde(default = "half", skip_serializing_if = "is_half")]
    inherit: f64,
    /// Centres per tensor, steps and rate of their tuning; `None` keeps every weight.
    quantise: Option<(u32, u64, f64)>,
    max_copies: Option<usize>,
    threshold_action: f64,
    threshold_latent: f64,
    threshold_hybrid: f64,
    threshold_cosine: f64,
    threshold_kl: f64,
    announced: usize,
    /// `[width]` or `[channels, height, width]`.
    observation: Vec<u32>,
    action: String,
    action_width: u32,
    /// Width of a token.
    pub width: u32,
    /// Blocks.
    pub layers: u32,
    heads: u32,
    context: u32,
    dropout: f32,
    max_ep_len: u32,
    time: String,
    include_embeddings: bool,
    /// Settings that `cumulative`, `ewc` and `si` alone have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseline: Option<BaselineEntry>,
    /// Where the trajectories come from.
    pub data: DataSource,
    /// The tasks, in order.
    pub tasks: Vec<TaskEntry>,
}

/// Settings of a dense baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct BaselineEntry {
    strength: f32,
    fisher: String,
    fisher_batches: [u32; 2],
    accumulate: bool,
    damping: f32,
    cap: Option<f32>,
    mix: f64,
    buffer: usize,
}

/// Where trajectories come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataSource {
    /// `generated` or `files`.
    pub source: String,
    /// Generated episodes per task.
    pub episodes: Option<usize>,
    /// Seed they were generated with.
    pub seed: Option<u64>,
}

/// One task of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskEntry {
    /// Unique name.
    pub name: String,
    /// Environment, for example `CartPole-v1`.
    pub env_id: String,
    /// Evaluation episode `e` starts from `seed + e`.
    pub seed: u64,
    /// What is set on the environment.
    pub params: Map<String, Value>,
    /// SHA-256 of its trajectories as read, whatever the file's compression.
    pub data_sha256: String,
}

impl Settings {
    /// Settings of a run over some tasks.
    pub(crate) fn new(
        suite: &str,
        options: &Options,
        config: &Config,
        episodes: u64,
        data: DataSource,
        tasks: Vec<TaskEntry>,
    ) -> Settings {
        let (warm_start, warm_start_amount) = match options.warm_start {
            WarmStart::Never => ("never", None),
            WarmStart::Nudge(amount) => ("nudge", Some(amount)),
            WarmStart::Replace(amount) => ("replace", Some(amount)),
        };
        let (action, action_width) = match config.action {
            Action::Discrete(n) => ("discrete", n),
            Action::Continuous(d) => ("continuous", d),
        };
        let Thresholds { action: threshold_action, latent, hybrid, cosine, kl } = options.thresholds;
        Settings {
            schema: SCHEMA,
            suite: suite.to_owned(),
            strategy: options.strategy.name().to_owned(),
            mode: word(&MODES, &options.mode),
            profile: word(&PROFILES, &options.profile),
            seed: options.seed,
            episodes,
            keep_ratio: options.keep_ratio,
            schedule: word(&SCHEDULES, &options.schedule),
            selection: word(&SELECTIONS, &options.selection),
            steps: options.steps,
            batch: options.batch,
            lr: options.lr,
            warmup: options.warmup,
            floor: options.floor,
            weight_decay: options.weight_decay,
            max_norm: options.max_norm,
            score_lr_scale: options.score_lr_scale,
            fix_mask_after: options.fix_mask_after,
            warm_start: warm_start.to_owned(),
            warm_start_amount,
            inherit: options.inherit,
            quantise: options.quantise.map(|q| (q.clusters, q.tune_steps, q.tune_rate)),
            max_copies: options.max_copies,
            threshold_action,
            threshold_latent: latent,
            threshold_hybrid: hybrid,
            threshold_cosine: cosine,
            threshold_kl: kl,
            announced: options.announced,
            observation: match config.observation {
                Observation::Vector(width) => vec![width],
                Observation::Image { channels, height, width } => vec![channels, height, width],
            },
            action: action.to_owned(),
            action_width,
            width: config.width,
            layers: config.layers,
            heads: config.heads,
            context: config.context,
            dropout: config.dropout,
            max_ep_len: config.max_ep_len,
            time: if config.time == Time::Learned { "learned" } else { "sinusoidal" }.to_owned(),
            include_embeddings: config.include_embeddings,
            baseline: has_baseline(options.strategy).then(|| {
                let Baseline { strength, fisher, fisher_batches, accumulate, damping, cap, mix, buffer } =
                    options.baseline;
                let fisher = word(&FISHERS, &fisher);
                BaselineEntry { strength, fisher, fisher_batches, accumulate, damping, cap, mix, buffer }
            }),
            data,
            tasks,
        }
    }

    /// The learner's options.
    pub(crate) fn options(&self) -> Result<Options> {
        let strategy = Strategy::parse(&self.strategy)?;
        let amount = self.warm_start_amount.unwrap_or(0.0);
        let options = Options {
            profile: meaning("profile", &PROFILES, &self.profile)?,
            strategy,
            mode: meaning("mode", &MODES, &self.mode)?,
            keep_ratio: self.keep_ratio,
            schedule: meaning("schedule", &SCHEDULES, &self.schedule)?,
            selection: meaning("selection", &SELECTIONS, &self.selection)?,
            steps: self.steps,
            batch: self.batch,
            lr: self.lr,
            warmup: self.warmup,
            floor: self.floor,
            weight_decay: self.weight_decay,
            max_norm: self.max_norm,
            score_lr_scale: self.score_lr_scale,
            fix_mask_after: self.fix_mask_after,
            warm_start: match &*self.warm_start {
                "never" => WarmStart::Never,
                "nudge" => WarmStart::Nudge(amount),
                "replace" => WarmStart::Replace(amount),
                other => bail!("warm_start {other:?} does not work: expected never, nudge or replace"),
            },
            inherit: self.inherit,
            quantise: self.quantise.map(|(clusters, tune_steps, tune_rate)| Quantise {
                clusters,
                tune_steps,
                tune_rate,
            }),
            max_copies: self.max_copies,
            thresholds: Thresholds {
                action: self.threshold_action,
                latent: self.threshold_latent,
                hybrid: self.threshold_hybrid,
                cosine: self.threshold_cosine,
                kl: self.threshold_kl,
            },
            baseline: match &self.baseline {
                Some(entry) => Baseline {
                    strength: entry.strength,
                    fisher: meaning("fisher", &FISHERS, &entry.fisher)?,
                    fisher_batches: entry.fisher_batches,
                    accumulate: entry.accumulate,
                    damping: entry.damping,
                    cap: entry.cap,
                    mix: entry.mix,
                    buffer: entry.buffer,
                },
                None => Baseline::new(strategy, meaning("profile", &PROFILES, &self.profile)?, false),
            },
            announced: self.announced,
            seed: self.seed,
        };
        options.validate()?;
        Ok(options)
    }

    /// The model.
    pub(crate) fn config(&self) -> Result<Config> {
        let observation = match *self.observation.as_slice() {
            [width] => Observation::Vector(width),
            [channels, height, width] => Observation::Image { channels, height, width },
            _ => bail!("observation {:?} does not work: expected one size or three", self.observation),
        };
        let action = match &*self.action {
            "discrete" => Action::Discrete(self.action_width),
            "continuous" => Action::Continuous(self.action_width),
            other => bail!("action {other:?} does not work: expected discrete or continuous"),
        };
        let config = Config {
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: self.context,
            dropout: self.dropout,
            max_ep_len: self.max_ep_len,
            time: match &*self.time {
                "learned" => Time::Learned,
                "sinusoidal" => Time::Sinusoidal,
                other => bail!("time {other:?} does not work: expected learned or sinusoidal"),
            },
            include_embeddings: self.include_embeddings,
            ..Config::new(observation, action)
        };
        config.validate()?;
        Ok(config)
    }

    /// One text per setting, as a bank keeps them.
    pub(crate) fn flat(&self) -> Result<BTreeMap<String, String>> {
        let Value::Object(fields) = serde_json::to_value(self)? else { bail!("settings are no object") };
        Ok(fields.into_iter().map(|(key, value)| (key, value.to_string())).collect())
    }

    /// The settings a bank keeps.
    pub(crate) fn of_bank(bank: &Bank) -> Result<Settings> {
        let mut fields = Map::new();
        for (key, text) in &bank.config {
            let value = serde_json::from_str(text).with_context(|| format!("the bank's setting {key:?} is no JSON"))?;
            fields.insert(key.clone(), value);
        }
        serde_json::from_value(Value::Object(fields)).context("the bank's settings are not those of a run")
    }

    /// The first setting, with both values, that makes a run of strategy `single` no reference for `other`.
    pub(crate) fn unlike_single(&self, other: &Settings) -> Result<Option<(String, String, String)>> {
        let (ours, theirs) = (self.flat()?, other.flat()?);
        let matters = |name: &&String| !(OF_MASKS.contains(&name.as_str()) || name.starts_with("threshold_"));
        let differs = |name: &&String| ours.get(*name) != theirs.get(*name);
        let text = |map: &BTreeMap<String, String>, name: &str| {
            let value = map.get(name).map_or("absent", String::as_str);
            if value.len() <= 60 { value.to_owned() } else { format!("another ({} characters)", value.len()) }
        };
        let first = theirs.keys().filter(matters).find(differs);
        Ok(first.map(|name| (name.clone(), text(&ours, name), text(&theirs, name))))
    }

    /// SHA-256 over all settings.
    pub(crate) fn hash(&self) -> Result<String> {
        Ok(Bank { config: self.flat()?, ..Bank::default() }.config_hash())
    }

    /// Names of the tasks.
    pub(crate) fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|t| t.name.clone()).collect()
    }

    /// What a profile means for physics whose derived constants can be stale.
    pub(crate) fn derived(profile: Profile) -> Derived {
        if profile == Profile::Official { Derived::Stale } else { Derived::Refreshed }
    }
}

fn half() -> f64 {
    HALF
}

fn is_half(share: &f64) -> bool {
    *share == HALF
}

/// Settings that a dense model trained on one task alone does not have.
const OF_MASKS: [&str; 15] = [
    "strategy",
    "mode",
    "keep_ratio",
    "schedule",
    "selection",
    "score_lr_scale",
    "fix_mask_after",
    "warm_start",
    "warm_start_amount",
    "inherit",
    "quantise",
    "max_copies",
    "announced",
    "baseline",
    "schema",
];

const PROFILES: [(&str, Profile); 2] = [("corrected", Profile::Corrected), ("official", Profile::Official)];
const MODES: [(&str, Mode); 6] = [
    ("action", Mode::Action),
    ("latent", Mode::Latent),
    ("hybrid", Mode::Hybrid),
    ("hybrid_abs", Mode::HybridAbs),
    ("cosine", Mode::Cosine),
    ("kl", Mode::Kl),
];
const SCHEDULES: [(&str, KeepSchedule); 3] = [
    ("constant", KeepSchedule::Constant),
    ("equal_remaining", KeepSchedule::EqualRemaining),
    ("new_budget", KeepSchedule::NewBudget),
];
const FISHERS: [(&str, Fisher); 2] = [("per_window", Fisher::PerWindow), ("batch_mean", Fisher::BatchMean)];
const SELECTIONS: [(&str, Selection); 3] =
    [("free", Selection::Free), ("any", Selection::Any), ("split", Selection::Split)];

/// The profile of a name.
pub(crate) fn parse_profile(name: &str) -> Result<Profile> {
    meaning("profile", &PROFILES, name)
}

/// True if a strategy has settings that others lack.
fn has_baseline(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Cumulative | Strategy::Ewc | Strategy::Si)
}

/// The Fisher information of a name.
pub(crate) fn parse_fisher(name: &str) -> Result<Fisher> {
    meaning("fisher", &FISHERS, name)
}

/// The schedule of a name.
pub(crate) fn parse_schedule(name: &str) -> Result<KeepSchedule> {
    meaning("schedule", &SCHEDULES, name)
}

/// The selection of a name.
pub(crate) fn parse_selection(name: &str) -> Result<Selection> {
    meaning("select", &SELECTIONS, name)
}

/// The affinity mode of a name. `kl` is left out: it belongs to strategy `tsn_kl`, which keeps the frames it needs.
pub(crate) fn parse_mode(name: &str) -> Result<Mode> {
    meaning("mode", &MODES[..5], name)
}

fn word<T: PartialEq>(table: &[(&str, T)], value: &T) -> String {
    table.iter().find(|(_, v)| v == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
}

fn meaning<T: Copy>(what: &str, table: &[(&str, T)], name: &str) -> Result<T> {
    match table.iter().find(|(word, _)| *word == name) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
            bail!("{what} {name} does not work: expected {}", words.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_from_a_bank() {
        for mut options in [
            Options::corrected(Strategy::Tsn),
            Options::official(Strategy::TsnAffinity),
            Options::corrected(Strategy::Ewc),
            Options { inherit: 0.9, warm_start: WarmStart::Nudge(0.3), ..Options::corrected(Strategy::FirstMatch) },
            Options {
                baseline: Baseline::new(Strategy::Si, Profile::Official, true),
                ..Options::official(Strategy::Si)
            },
        ] {
            options.lr = 0.1 + 0.2;
            options.seed = u64::MAX;
            let config = Config::new(Observation::Vector(4), Action::Discrete(2));
            let data = DataSource { source: "generated".into(), episodes: Some(6), seed: Some(7) };
            let params = [("tau".to_owned(), Value::from(0.015))].into_iter().collect();
            let (name, env_id) = ("A \"quoted\"".to_owned(), "CartPole-v1".to_owned());
            let task = TaskEntry { name, env_id, seed: 3, params, data_sha256: "0".repeat(64) };
            let settings = Settings::new("demo", &options, &config, 10, data, vec![task]);
            let bank = Bank { config: settings.flat().unwrap(), ..Bank::default() };
            let back = Settings::of_bank(&bank).unwrap();
            assert_eq!(back, settings);
            assert_eq!(bank.config.contains_key("inherit"), options.inherit != HALF);
            assert_eq!(back.options().unwrap(), options);
            assert_eq!(back.config().unwrap(), config);
            assert_eq!(back.hash().unwrap(), bank.config_hash());
        }
    }
}
