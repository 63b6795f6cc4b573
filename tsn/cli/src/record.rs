//! The files of a run directory as values, and how they are written and read back.

use crate::files::{read_json, write_json};
use crate::settings::{SCHEMA, Settings};
use crate::tune::Table;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tsn::Strategy;
use tsn::affinity::Row;
use tsn::file::replace_file;
use tsn::learner::TaskReport;
use tsn::metrics::Scores;
use tsn::route::Route;

/// `config.json`: what decides the bits, and the circumstances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunConfig {
    /// What decides the bits.
    #[serde(flatten)]
    pub settings: Settings,
    /// Hash of the settings.
    pub config_hash: String,
    /// Folder of the datasets; none for generated data.
    pub data_directory: Option<PathBuf>,
    /// Run of strategy `single` whose scores are this run's reference.
    #[serde(default)]
    pub reference_directory: Option<PathBuf>,
    /// Bytes of memory for data; observations beyond it stay on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cap: Option<u64>,
    /// References are trained too.
    pub reference: bool,
    /// Device name.
    pub device: String,
    /// Workers; 0 means one per core.
    pub threads: usize,
    /// Tasks that had an environment to be played in when the run began.
    #[serde(default)]
    pub played: Vec<String>,
    /// Python with simulators, if it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<PathBuf>,
    /// Crossover table instead of the shipped one: it decides bits as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossover: Option<Table>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Version of this program.
    pub program_version: String,
    /// Revision it was built from.
    pub git_commit: Option<String>,
    /// When the run began, UTC.
    pub started: String,
}

impl RunConfig {
    /// Reads a run's configuration.
    ///
    /// # Errors
    /// If there is none, or its settings are not those the run began with.
    pub(crate) fn read(dir: &Path) -> Result<RunConfig> {
        let path = dir.join("config.json");
        if !dir.is_dir() {
            bail!("{} is no run directory: there is no such directory", dir.display());
        }
        if !path.is_file() {
            bail!("{} is no run directory: it has no config.json", dir.display());
        }
        let config: RunConfig = read_json(&path)?;
        if config.settings.schema != SCHEMA {
            let found = config.settings.schema;
            bail!("{}: schema {found}, this build reads {SCHEMA}; use the build that wrote it", path.display());
        }
        let hash = config.settings.hash()?;
        if hash != config.config_hash {
            bail!(
                "{}: the settings changed since the run began (hash {}, was {}); restore them or start a new run",
                path.display(),
                &hash[..12],
                config.config_hash.get(..12).unwrap_or("missing")
            );
        }
        Ok(config)
    }
}

/// `gen/task_N.json`: what learning one task did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TaskFile {
    /// Number in the sequence.
    pub number: usize,
    /// Name.
    pub name: String,
    /// Copy it lives in.
    pub copy: usize,
    /// Closest earlier task.
    pub source: Option<usize>,
    /// The copy is new.
    pub created: bool,
    /// Scores started from the source's mask.
    pub warm_start: bool,
    /// Set mask bits over maskable weights and biases.
    pub density: f64,
    /// Newly claimed weights over all maskable ones.
    pub newly_claimed: f64,
    /// Occupied share of its copy's weights.
    pub occupied: f64,
    /// Loss on some held-out windows, as the router compares it.
    pub own_loss: f64,
    /// Loss on all held-out windows.
    pub held_out_loss: f64,
    /// The same loss of a guess that ignores the state.
    pub constant_loss: f64,
    /// Share of held-out steps whose greedy action is not the logged one (discrete).
    pub disagreement_logged: Option<f64>,
    /// Share of held-out steps whose greedy action is not the undisturbed controller's.
    pub disagreement: Option<f64>,
    /// Mean loss of the first and the last tenth of the steps.
    pub loss_ends: [f64; 2],
    /// Up to 200 points `(step, loss)`.
    pub losses: Vec<(u64, f32)>,
    /// Learning time, over all parts of an interrupted task that this process saw.
    pub time_s: f64,
    /// Hash of what later tasks must leave alone.
    pub fingerprint: String,
    /// Measures of every earlier task.
    pub scores: Vec<ScoreRow>,
}

/// One line of `routing.json`: an earlier task as seen by a new one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the measures are named and explained in the crate that computes them")]
pub(crate) struct ScoreRow {
    pub task: usize,
    pub copy: usize,
    pub action: Option<f64>,
    pub own_error: Option<f64>,
    pub scaled_error: Option<f64>,
    pub chance_ratio: Option<f64>,
    pub latent: Option<f64>,
    pub latent_per_dim: Option<f64>,
    pub cosine: Option<f64>,
    pub kl: Option<f64>,
    pub score: f64,
}

impl ScoreRow {
    /// From the router's row.
    pub(crate) fn new(row: &Row) -> ScoreRow {
        let c = &row.candidate;
        ScoreRow {
            task: c.task,
            copy: c.copy,
            action: c.action,
            own_error: c.own_error,
            scaled_error: row.scaled_error,
            chance_ratio: row.chance_ratio,
            latent: c.latent,
            latent_per_dim: row.latent_per_dim,
            cosine: c.cosine,
            kl: c.kl,
            score: row.score,
        }
    }
}

impl TaskFile {
    /// The learner's report, without the router's measures.
    pub(crate) fn report(&self) -> TaskReport {
        let TaskFile { copy, source, created, warm_start, .. } = *self;
        TaskReport {
            number: self.number,
            name: self.name.clone(),
            route: Route { copy, source, created, warm_start, scores: Vec::new() },
            warm_started: warm_start,
            density: self.density,
            newly_claimed: self.newly_claimed,
            occupied: self.occupied,
            own_loss: self.own_loss,
            losses: self.loss_ends,
            time_s: self.time_s,
            fingerprint: self.fingerprint.clone(),
        }
    }
}

/// `results.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Strategy.
    pub name: String,
    /// Name of the list of tasks.
    pub suite: String,
    /// Task names in order.
    pub task_names: Vec<String>,
    /// Row `i`: scores after task `i`; null where a task was not played.
    pub perf_matrix: Vec<Vec<Option<f64>>>,
    /// Row `i`: share of episodes that accomplished the task, after task `i`; absent if no task defines success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success_matrix: Vec<Vec<Option<f64>>>,
    /// `[i][j]`: score of each episode of task `j` after task `i`; absent if no task was played, or not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub episode_scores: Vec<Vec<Vec<Option<f64>>>>,
    /// Row `i`: held-out loss on tasks `0..=i` after task `i`, for lists with a task that cannot be played.
    pub loss_matrix: Vec<Vec<Option<f64>>>,
    /// Summary figures.
    pub metrics: Metrics,
    /// Scores outside the matrix.
    pub references: ReferenceScores,
    /// Mask density of each task.
    pub density: Vec<f64>,
    /// Newly claimed share of each task.
    pub newly_claimed: Vec<f64>,
    /// Occupied share of the task's copy once it was learned.
    pub occupied: Vec<f64>,
    /// Number of copies.
    pub copies: usize,
    /// Copy of each task.
    pub task_copy: Vec<usize>,
    /// Source of each task.
    pub sources: Vec<Option<usize>>,
    /// At the end of the run: share of held-out steps whose action is not the undisturbed controller's.
    pub disagreement: Vec<Option<f64>>,
    /// At the end of the run: share of held-out steps whose action is not the logged one.
    pub disagreement_logged: Vec<Option<f64>>,
    /// Held-out loss when a task was learned.
    pub own_loss: Vec<f64>,
    /// Held-out loss at the end of the run.
    pub final_loss: Vec<Option<f64>>,
    /// Held-out loss of a guess that ignores the state.
    pub constant_loss: Vec<f64>,
    /// Learning time of each task.
    pub time_per_task_s: Vec<f64>,
    /// Weights, norms, outputs and scores of every task are bit for bit what they were; null for dense strategies.
    pub bit_identical: Option<bool>,
    /// Bytes per item.
    pub memory: BTreeMap<String, u64>,
    /// Bytes per item that each task added.
    #[serde(default)]
    pub memory_per_task: Vec<BTreeMap<String, u64>>,
    /// Seed.
    pub seed: u64,
    /// Wall time over all parts of the run.
    pub wall_s: f64,
    /// All tasks are learned and played, and the references are there if they were asked for.
    pub complete: bool,
    /// What decided the bits.
    pub settings: Settings,
}

/// Summary figures; null where an entry they need is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(non_snake_case, reason = "the keys of published run records")]
#[allow(missing_docs, reason = "defined in tsn::metrics")]
pub(crate) struct Metrics {
    pub ACC: Option<f64>,
    pub BWT: Option<f64>,
    pub Forgetting: Option<f64>,
    pub forgetting_official: Option<f64>,
    pub forgetting_diag: Option<f64>,
    pub FWT: Option<f64>,
    pub avg_score: Option<f64>,
    pub forget_pct: Option<f64>,
    pub intransigence: Option<f64>,
    pub memory_factor: Option<f64>,
    pub memory_factor_with_te: Option<f64>,
    pub norm: Vec<Option<f64>>,
    pub norm_ref: Vec<Option<f64>>,
    pub gap: Vec<Option<f64>>,
    pub retention: Vec<Option<f64>>,
}

/// Scores outside the matrix, one per task as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReferenceScores {
    /// Uniformly random actions.
    pub random: Vec<Option<f64>>,
    /// A dense model trained on this task alone, with as many steps.
    pub single: Vec<Option<f64>>,
    /// An untrained model.
    pub untrained: Vec<Option<f64>>,
    /// Success rates of the same; absent if no task defines success.
    #[serde(default, skip_serializing_if = "SuccessRates::is_unknown")]
    pub success: SuccessRates,
}

/// Success rates outside the matrix, one per task as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SuccessRates {
    /// Uniformly random actions.
    pub random: Vec<Option<f64>>,
    /// A dense model trained on this task alone.
    pub single: Vec<Option<f64>>,
    /// An untrained model.
    pub untrained: Vec<Option<f64>>,
}

impl SuccessRates {
    fn is_unknown(&self) -> bool {
        [&self.random, &self.single, &self.untrained].into_iter().flatten().all(Option::is_none)
    }
}

impl ReferenceScores {
    /// The scores of another run's models, one per task.
    ///
    /// # Errors
    /// If that run is not finished, is of another strategy, or differs in a setting that single models have.
    pub(crate) fn of_run(dir: &Path, settings: &Settings) -> Result<ReferenceScores> {
        let config = RunConfig::read(dir)?;
        let results: Results = read_json(&dir.join("results.json"))?;
        if results.name != Strategy::Single.name() || !results.complete {
            bail!(
                "{}: expected a finished run of strategy single, found {}",
                dir.display(),
                match results.complete {
                    true => format!("strategy {}", results.name),
                    false => "one that is not finished".to_owned(),
                }
            );
        }
        if let Some((name, theirs, ours)) = config.settings.unlike_single(settings)? {
            bail!("{}: cannot be the reference: {name} is {theirs} there and {ours} here", dir.display());
        }
        let diagonal = |matrix: &[Vec<Option<f64>>]| -> Vec<Option<f64>> {
            matrix.iter().enumerate().map(|(i, row)| row.get(i).copied().flatten()).collect()
        };
        let success = SuccessRates { single: diagonal(&results.success_matrix), ..results.references.success };
        Ok(ReferenceScores { single: diagonal(&results.perf_matrix), success, ..results.references })
    }
}

#[derive(Serialize)]
struct Step<'a> {
    task: &'a str,
    #[serde(rename = "ACC")]
    acc: Option<f64>,
    #[serde(rename = "BWT")]
    bwt: Option<f64>,
    #[serde(rename = "Forgetting")]
    forgetting: Option<f64>,
    losses: &'a [(u64, f32)],
}

#[derive(Serialize)]
struct Routing<'a> {
    name: &'a str,
    copy: usize,
    source: Option<usize>,
    created: bool,
    warm_start: bool,
    scores: &'a [ScoreRow],
}

/// Path of a task's report.
pub(crate) fn task_path(dir: &Path, number: usize) -> PathBuf {
    dir.join("gen").join(format!("task_{number}.json"))
}

/// Writes everything that follows from the results and the task reports. `results.json` is last: it says how far the
/// run is.
pub(crate) fn write_all(dir: &Path, results: &Results, tasks: &[TaskFile]) -> Result<()> {
    let rows = &results.perf_matrix;
    let mut csv = String::from("after_task \\ on_task");
    results.task_names.iter().for_each(|name| _ = write!(csv, ",{}", quoted(name)));
    csv.push('\n');
    for (name, row) in results.task_names.iter().zip(rows) {
        csv.push_str(&quoted(name));
        row.iter().for_each(|score| _ = write!(csv, ",{}", score.map_or_else(String::new, |s| format!("{s:.6}"))));
        csv.push('\n');
    }
    replace_file(&dir.join("matrix.csv"), csv.as_bytes())?;

    let scores = square(rows, results.task_names.len())?;
    let step = |(number, task): (usize, &'_ TaskFile)| (number, task.name.clone());
    let names: Vec<(usize, String)> = tasks.iter().take(rows.len()).enumerate().map(step).collect();
    let steps: Vec<Step<'_>> = names
        .iter()
        .map(|(i, name)| Step {
            task: name,
            acc: scores.acc_at(*i),
            bwt: scores.bwt_at(*i),
            forgetting: scores.forgetting_at(*i),
            losses: &tasks[*i].losses,
        })
        .collect();
    write_json(&dir.join("per_step.json"), &steps)?;
    let mut csv = String::from("task,ACC,BWT,Forgetting,first_loss,last_loss\n");
    let cell = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.6}"));
    for (step, task) in steps.iter().zip(tasks) {
        let [first, last] = task.loss_ends;
        let (acc, bwt, forgetting) = (cell(step.acc), cell(step.bwt), cell(step.forgetting));
        _ = writeln!(csv, "{},{acc},{bwt},{forgetting},{first:.6},{last:.6}", quoted(step.task));
    }
    replace_file(&dir.join("per_step.csv"), csv.as_bytes())?;

    let routing: Vec<Routing<'_>> = tasks
        .iter()
        .map(|t| Routing {
            name: &t.name,
            copy: t.copy,
            source: t.source,
            created: t.created,
            warm_start: t.warm_start,
            scores: &t.scores,
        })
        .collect();
    write_json(&dir.join("routing.json"), &routing)?;
    write_json(&dir.join("results.json"), results)
}

/// The rows so far as a square matrix; what is missing is not known.
pub(crate) fn square(rows: &[Vec<Option<f64>>], tasks: usize) -> Result<Scores> {
    let known = |row: &Vec<Option<f64>>| row.iter().map(|s| s.unwrap_or(f64::NAN)).collect();
    let mut values: Vec<Vec<f64>> = rows.iter().map(known).collect();
    values.resize(tasks.max(1), vec![f64::NAN; tasks.max(1)]);
    Ok(Scores::new(&values)?)
}

/// Adds a line to `progress.tsv`.
pub(crate) fn log(dir: &Path, event: &str, detail: &str) -> Result<()> {
    let path = dir.join("progress.tsv");
    let line = format!("{}\t{event}\t{detail}\n", crate::files::stamp(true));
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|source| tsn::Error::Io { doing: "write", path, source }.into())
}

/// A CSV field.
pub(crate) fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
