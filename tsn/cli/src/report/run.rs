//! What a run directory says, as far as it says it: everything but `results.json` is optional.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;
use tsn::Strategy;
use tsn::metrics::Scores;

/// Larger numbers are as useless in a plot as infinity.
const LARGEST: f64 = 1e100;

/// Which scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// As the environment gives them.
    Raw,
    /// 0 is a random policy, 1 a model trained on the task alone.
    Normalised,
    /// Share of episodes that accomplish the task.
    Success,
}

impl Version {
    pub(super) const ALL: [Version; 3] = [Version::Raw, Version::Normalised, Version::Success];

    /// Key in files.
    pub(super) fn key(self) -> &'static str {
        match self {
            Version::Raw => "raw",
            Version::Normalised => "normalised",
            Version::Success => "success",
        }
    }
}

/// A setting as text. What baselines are set to has the names that `--set` gives it, and what is said of data begins with `data_`.
fn scalars(key: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) if key == "baseline" => {
            fields.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!("{key}_{name}"), shown(value))).collect(),
        Value::Array(_) => Vec::new(),
        _ => vec![(key.to_owned(), shown(value))],
    }
}

/// One run.
pub(super) struct Run {
    /// Name of its directory.
    pub(super) name: String,
    pub(super) suite: String,
    pub(super) strategy: String,
    pub(super) tasks: Vec<String>,
    /// `matrix[i][j]`: score on task `j` after task `i`; rows and entries may be missing.
    pub(super) matrix: Vec<Vec<Option<f64>>>,
    /// The same of success rates; empty where no task defines success.
    success: Vec<Vec<Option<f64>>>,
    /// Points `[step, loss]` per learned task.
    pub(super) losses: Vec<Vec<[f64; 2]>>,
    pub(super) routes: Vec<Route>,
    /// Bytes per item.
    pub(super) memory: Vec<(String, f64)>,
    /// Scalar settings, as text, those of baselines and of data among them.
    pub(super) settings: BTreeMap<String, String>,
    /// What is missing, for the reader of the page.
    pub(super) notes: Vec<String>,
    results: Value,
    config: Value,
}

/// Where a task went.
pub(super) struct Route {
    pub(super) task: usize,
    pub(super) copy: Option<f64>,
    pub(super) source: Option<usize>,
    pub(super) created: Option<bool>,
    pub(super) warm_start: Option<bool>,
    /// Earlier tasks and what was measured of them.
    pub(super) scores: Vec<(usize, Value)>,
}

impl Run {
    /// Reads a run directory.
    ///
    /// # Errors
    /// Missing results, broken JSON, unreadable files.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Run> {
        let Some(results) = json(&dir.join("results.json"))? else {
            bail!("{}: not found; is this a run directory?", dir.join("results.json").display());
        };
        let mut notes = Vec::new();
        let imported = results.get("imported").is_some_and(|imported| !imported.is_null());
        let mut optional = |file: &str, without: &str| -> anyhow::Result<Value> {
            let value = json(&dir.join(file))?;
            // A record of another program has one file, and says so.
            if value.is_none() && !imported {
                notes.push(format!("{file} is missing: {without}."));
            }
            Ok(value.unwrap_or(Value::Null))
        };
        let config = optional("config.json", "device, date and commit are unknown")?;
        let steps = optional("per_step.json", "no learning curves")?;
        let routing = optional("routing.json", "no routing decisions")?;

        let either = |key: &str| [&results, &config].into_iter().find_map(|file| text(file, key));
        let suite = either("suite").unwrap_or_else(|| "unknown suite".into());
        let strategy =
            text(&results, "name").or(text(&config, "strategy")).unwrap_or_else(|| "unknown strategy".into());
        // Not one row with ours: the program is a difference, whatever the settings say.
        let strategy = if imported { format!("{strategy} (imported)") } else { strategy };
        let matrix = rows(results.get("perf_matrix"));
        let success = rows(results.get("success_matrix"));
        let mut tasks: Vec<String> = list(results.get("task_names")).iter().map(shown).collect();
        let widest = matrix.iter().map(Vec::len).chain([matrix.len()]).max().unwrap_or(0);
        for number in tasks.len()..widest {
            tasks.push(format!("task {number}"));
        }
        if tasks.is_empty() {
            notes.push("results.json names no task.".into());
        }
        if matrix.iter().flatten().all(Option::is_none) {
            notes.push("No task was played: the run has no scores, only losses.".into());
        }
        if results.get("complete").and_then(Value::as_bool) == Some(false) {
            notes.push("The run is not complete.".into());
        }
        if let Some(from) = results.get("imported").and_then(|imported| text(imported, "from")) {
            notes.push(format!("Imported from {from}: not run by this program."));
        }
        let losses: Vec<_> = entries(&steps).iter().map(|entry| points(entry.get("losses"))).collect();
        if !steps.is_null() && losses.iter().all(Vec::is_empty) {
            notes.push("per_step.json holds no losses.".into());
        }
        let routes = entries(&routing).iter().enumerate().map(|(at, entry)| route(entry, at, &tasks)).collect();
        let settings = if results["settings"].is_object() { &results["settings"] } else { &config };
        let settings = settings.as_object().into_iter().flatten();
        let settings = settings.flat_map(|(key, value)| scalars(key, value)).collect();
        Ok(Run {
            name: dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned(),
            memory: memory(&results),
            suite,
            strategy,
            tasks,
            matrix,
            success,
            losses,
            routes,
            settings,
            notes,
            results,
            config,
        })
    }

    /// Score on task `on` after task `after`.
    pub(super) fn score(&self, after: usize, on: usize) -> Option<f64> {
        *self.matrix.get(after)?.get(on)?
    }

    /// The same in one of its versions.
    pub(super) fn entry(&self, version: Version, after: usize, on: usize) -> Option<f64> {
        match version {
            Version::Raw => self.score(after, on),
            Version::Normalised => self.normalised(on, self.score(after, on)?),
            Version::Success => *self.success.get(after)?.get(on)?,
        }
    }

    /// Score of an untrained model.
    pub(super) fn untrained(&self, version: Version, on: usize) -> Option<f64> {
        match version {
            Version::Raw => self.reference("untrained", on),
            Version::Normalised => self.normalised(on, self.reference("untrained", on)?),
            Version::Success => number(self.results.get("references")?.get("success")?.get("untrained")?.get(on)),
        }
    }

    /// `(score - random) / (single - random)`.
    fn normalised(&self, on: usize, score: f64) -> Option<f64> {
        // Models trained alone are their own reference.
        let own = || self.score(on, on).filter(|_| self.strategy == Strategy::Single.name());
        let (random, single) = (self.reference("random", on)?, self.reference("single", on).or_else(own)?);
        Some((score - random) / (single - random)).filter(|score| score.is_finite())
    }

    fn reference(&self, of: &str, task: usize) -> Option<f64> {
        number(self.results.get("references")?.get(of)?.get(task))
    }

    /// All scores of a version; `None` without a task.
    pub(super) fn scores(&self, version: Version) -> Option<Scores> {
        let tasks = self.tasks.len();
        let entry = |after: usize, on: usize| self.entry(version, after, on).unwrap_or(f64::NAN);
        let rows: Vec<Vec<f64>> = (0..tasks).map(|after| (0..tasks).map(|on| entry(after, on)).collect()).collect();
        Scores::new(&rows).ok()
    }

    /// True if any entry of a version is known.
    pub(super) fn has(&self, version: Version) -> bool {
        let tasks = self.tasks.len();
        (0..tasks).any(|after| (0..tasks).any(|on| self.entry(version, after, on).is_some()))
    }

    /// Seed of the run, if it is recorded.
    pub(super) fn seed(&self) -> Option<u64> {
        let recorded = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let settings = self.results.get("settings").and_then(|settings| settings.get("seed"));
        [self.results.get("seed"), settings, self.config.get("seed")].into_iter().flatten().find_map(recorded)
    }

    /// True for a record of another program.
    pub(super) fn imported(&self) -> bool {
        self.results.get("imported").is_some_and(|imported| !imported.is_null())
    }

    /// All tasks are learned and played, as far as the record tells.
    pub(super) fn complete(&self) -> bool {
        self.results.get("complete").and_then(Value::as_bool).unwrap_or(self.matrix.len() == self.tasks.len())
    }

    /// A number of `metrics`.
    pub(super) fn metric(&self, key: &str) -> Option<f64> {
        number(self.results.get("metrics")?.get(key))
    }

    /// Scores of the episodes that a task was played for at the end; `None` if one is missing.
    pub(super) fn episodes(&self, task: usize) -> Option<Vec<f64>> {
        let last = self.tasks.len().checked_sub(1)?;
        let scores = list(self.results.get("episode_scores")?.get(last)?.get(task)).iter();
        let scores: Option<Vec<f64>> = scores.map(|score| number(Some(score))).collect();
        scores.filter(|scores| !scores.is_empty())
    }

    /// Bytes of one kind that a task added.
    pub(super) fn added(&self, kind: &str, task: usize) -> Option<f64> {
        number(self.results.get("memory_per_task")?.get(task)?.get(kind))
    }

    /// The record of what every task added; null if there is none.
    pub(super) fn memory_per_task(&self) -> &Value {
        self.results.get("memory_per_task").unwrap_or(&Value::Null)
    }

    /// A number per task of `metrics`, `references` or the top level.
    pub(super) fn per_task(&self, key: &str, task: usize) -> Option<f64> {
        let inside = |part: &str| self.results.get(part).and_then(|part| part.get(key));
        let found = self.results.get(key).or_else(|| inside("metrics")).or_else(|| inside("references"))?;
        number(found.get(task))
    }

    /// Mean over the tasks that have it.
    pub(super) fn mean_per_task(&self, key: &str) -> Option<f64> {
        let values: Vec<f64> = (0..self.tasks.len()).filter_map(|task| self.per_task(key, task)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Number of copies.
    pub(super) fn copies(&self) -> Option<f64> {
        number(self.results.get("copies"))
    }

    /// Did every task stay bit for bit as it was learned? `None` where that is not promised, or not known.
    pub(super) fn bit_identical(&self) -> Option<bool> {
        match self.results.get("bit_identical")? {
            Value::Bool(same) => Some(*same),
            Value::Array(each) if !each.is_empty() => Some(each.iter().all(|same| same.as_bool() == Some(true))),
            _ => None,
        }
    }

    /// A fact of the run, from its configuration or its results.
    pub(super) fn fact(&self, keys: &[&str]) -> Option<String> {
        let files = [&self.config, &self.results, self.results.get("settings").unwrap_or(&Value::Null)];
        keys.iter().find_map(|key| files.into_iter().find_map(|file| text(file, key)))
    }

    /// Where its data come from.
    pub(super) fn data(&self) -> Option<String> {
        let Some(data) = self.config.get("data").filter(|data| data.is_object()) else {
            return self.fact(&["data_source", "data", "source"]);
        };
        let source = data.get("source")?.as_str()?;
        Some(match data.get("episodes").and_then(Value::as_u64) {
            Some(episodes) => format!("{source}, {episodes} episodes a task"),
            None => source.to_owned(),
        })
    }

    /// Number and name of a task.
    pub(super) fn task(&self, number: usize) -> String {
        self.tasks.get(number).map_or(format!("{number}"), |name| format!("{number} {name}"))
    }
}

/// A finite number, small enough to plot.
pub(super) fn number(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|value| value.abs() <= LARGEST)
}

/// The contents of a JSON file; `None` if there is no such file.
fn json(path: &Path) -> anyhow::Result<Option<Value>> {
    match fs::read(path) {
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes);
            value.map(Some).with_context(|| format!("{}: not valid JSON", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list, or the first list of objects inside an object.
fn entries(value: &Value) -> &[Value] {
    let inside = || value.as_object().and_then(|parts| parts.values().find(|part| part[0].is_object()));
    list(Some(value).filter(|value| value.is_array()).or_else(inside))
}

fn rows(value: Option<&Value>) -> Vec<Vec<Option<f64>>> {
    list(value).iter().map(|row| list(Some(row)).iter().map(|entry| number(Some(entry))).collect()).collect()
}

fn points(value: Option<&Value>) -> Vec<[f64; 2]> {
    let point = |entry: &Value| Some([number(entry.get(0))?, number(entry.get(1))?]);
    list(value).iter().filter_map(point).collect()
}

/// A task by its number or its name.
fn task_number(value: Option<&Value>, tasks: &[String]) -> Option<usize> {
    match value? {
        Value::String(name) => tasks.iter().position(|task| task == name),
        value => value.as_u64().map(|number| number as usize).filter(|number| *number < tasks.len()),
    }
}

fn route(entry: &Value, at: usize, tasks: &[String]) -> Route {
    let flag = |key: &str| entry.get(key).and_then(Value::as_bool);
    let named = task_number(entry.get("name"), tasks).or(task_number(entry.get("task"), tasks));
    let scores = list(entry.get("scores")).iter();
    let scores = scores.filter_map(|score| Some((task_number(score.get("task"), tasks)?, score.clone())));
    Route {
        task: named.unwrap_or(at),
        copy: number(entry.get("copy")),
        source: task_number(entry.get("source"), tasks),
        created: flag("created"),
        warm_start: flag("warm_start").or(flag("warm_started")),
        scores: scores.collect(),
    }
}

fn memory(results: &Value) -> Vec<(String, f64)> {
    let items = results.get("memory").and_then(Value::as_object).into_iter().flatten();
    items.filter_map(|(item, bytes)| Some((item.clone(), number(Some(bytes))?))).collect()
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).filter(|value| !value.is_null() && !value.is_object()).map(shown)
}

/// A value without the quotes of a string.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
