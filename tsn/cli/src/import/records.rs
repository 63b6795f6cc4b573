//! Records of runs: `results.json`, or rows of a CSV with a column `perf_matrix`.
//!
//! A record becomes a `results.json` of ours as far as it goes: names, matrix, settings, seed, and where it came from.
//! Nothing else is believed: a report forms every metric from the matrix anew.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::settings::SCHEMA;

/// Columns of a CSV that say how a run was made; the others are names, results or sources.
const SETTINGS: [&str; 8] = [
    "benchmark",
    "reuse_mode",
    "threshold",
    "keep_ratio",
    "keep_schedule",
    "quantized",
    "shared_frozen_after_first",
    "steps_per_task",
];

/// A run as `results.json` will tell it.
pub(crate) struct Record {
    pub(crate) suite: String,
    pub(crate) strategy: String,
    pub(crate) tasks: Vec<String>,
    pub(crate) matrix: Vec<Vec<Option<f64>>>,
    pub(crate) results: Value,
}

/// The records of a file; `suite` names their list of tasks if they do not.
///
/// # Errors
/// A file that is neither, or an entry that is not a square matrix with a name per task; the message names it.
pub(crate) fn read(path: &Path, suite: Option<&str>) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    match text.trim_start().starts_with('{') {
        true => Ok(vec![of_json(path, &text, suite)?]),
        false => of_csv(path, &text, suite),
    }
}

fn of_json(path: &Path, text: &str, suite: Option<&str>) -> Result<Record> {
    let place = path.display().to_string();
    let value: Value = serde_json::from_str(text).with_context(|| format!("{place}: not valid JSON"))?;
    let known = [
        "name",
        "strategy",
        "task_names",
        "perf_matrix",
        "metrics",
        "settings",
        "seed",
        "train_seed",
        "suite",
        "schema",
    ];
    let mut settings = match value.get("settings") {
        Some(Value::Object(settings)) => settings.clone(),
        _ => Map::new(),
    };
    for (key, value) in value.as_object().into_iter().flatten() {
        if !(known.contains(&key.as_str()) || value.is_array() || value.is_object()) {
            settings.insert(key.clone(), value.clone());
        }
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    // A seed of null is as good as none.
    let said = |key: &str| [value.get(key), settings.get(key)].into_iter().flatten().find(|seed| !seed.is_null());
    let seed = ["seed", "train_seed"].into_iter().find_map(said).cloned().unwrap_or(Value::Null);
    let suite = suite.map(str::to_owned).or_else(|| text("suite"));
    let strategy = text("name").or_else(|| text("strategy"));
    let tasks = value.get("task_names").cloned().unwrap_or(Value::Null);
    let matrix = value.get("perf_matrix").cloned().unwrap_or(Value::Null);
    let parts = Parts { suite, strategy, seed, tasks, matrix, settings, more: Map::new() };
    parts.finish(&place)
}

fn of_csv(path: &Path, text: &str, suite: Option<&str>) -> Result<Vec<Record>> {
    let file = path.display();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().with_context(|| format!("{file}: not CSV"))?.clone();
    for column in ["strategy", "task_order", "perf_matrix"] {
        if !head.iter().any(|name| name == column) {
            let found: Vec<&str> = head.iter().take(8).collect();
            bail!(
                "{file}: expected results.json, or CSV with a column {column}; the first line has {}",
                found.join(", ")
            );
        }
    }
    let mut records = Vec::new();
    for (at, row) in reader.records().enumerate() {
        let row = row.with_context(|| format!("{file}: row {}", at + 1))?;
        let place = format!("{file}, row {}", at + 1);
        let cell = |column: &str| {
            let at = head.iter().position(|name| name == column)?;
            row.get(at).map(str::trim).filter(|text| !text.is_empty())
        };
        let Some(matrix) = cell("perf_matrix") else { continue };
        let matrix = serde_json::from_str(matrix).with_context(|| format!("{place}: perf_matrix"))?;
        let tasks = cell("task_order").map_or(Value::Null, |names| json!(names.split('|').collect::<Vec<_>>()));
        let of = |column: &str| Some((column.to_owned(), Value::from(cell(column)?)));
        let settings: Map<String, Value> = SETTINGS.iter().filter_map(|column| of(column)).collect();
        let suite = suite.or(cell("protocol")).or(cell("benchmark")).map(str::to_owned);
        let seed = cell("train_seed").and_then(|seed| seed.parse::<u64>().ok());
        let mut more = Map::new();
        if let Some(copies) = cell("n_copies").and_then(|n| n.parse::<u64>().ok()) {
            more.insert("copies".into(), copies.into());
        }
        let parts = Parts {
            suite,
            strategy: cell("strategy").map(str::to_owned),
            seed: seed.map_or(Value::Null, Value::from),
            tasks,
            matrix,
            settings,
            more,
        };
        records.push(parts.finish(&place)?);
    }
    if records.is_empty() {
        bail!("{file}: no row has a perf_matrix");
    }
    Ok(records)
}

/// What a record says, not yet held against each other.
struct Parts {
    suite: Option<String>,
    strategy: Option<String>,
    seed: Value,
    tasks: Value,
    matrix: Value,
    settings: Map<String, Value>,
    more: Map<String, Value>,
}

impl Parts {
    fn finish(self, place: &str) -> Result<Record> {
        let Some(strategy) = self.strategy else { bail!("{place}: no name of a strategy") };
        let tasks: Option<Vec<String>> =
            self.tasks.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        let Some(tasks) = tasks.filter(|tasks| !tasks.is_empty()) else {
            bail!("{place}: task_names: expected a list of names, found {}", kind(&self.tasks))
        };
        let Some(rows) = self.matrix.as_array() else {
            bail!("{place}: perf_matrix: expected a list of rows, found {}", kind(&self.matrix))
        };
        let n = tasks.len();
        if rows.len() != n {
            bail!("{place}: perf_matrix: expected {n} rows, one per task, found {}", rows.len());
        }
        let mut matrix = Vec::with_capacity(n);
        for (at, row) in rows.iter().enumerate() {
            let Some(row) = row.as_array().filter(|row| row.len() == n) else {
                let found = row.as_array().map_or_else(|| kind(row).to_owned(), |row| format!("{}", row.len()));
                bail!("{place}: perf_matrix, row {at}: expected {n} scores, found {found}");
            };
            let score = |score: &Value| match score {
                Value::Null => Ok(None),
                score => match score.as_f64().filter(|score| score.is_finite()) {
                    Some(score) => Ok(Some(score)),
                    None => bail!("{place}: perf_matrix, row {at}: expected a number or null, found {score}"),
                },
            };
            matrix.push(row.iter().map(score).collect::<Result<Vec<_>>>()?);
        }
        let suite = self.suite.unwrap_or_else(|| "imported".to_owned());
        let mut results = json!({
            "schema": SCHEMA, "name": strategy, "suite": suite, "task_names": tasks, "perf_matrix": matrix,
            "seed": self.seed, "settings": self.settings, "imported": {"from": place},
        });
        if let Some(fields) = results.as_object_mut() {
            fields.extend(self.more);
        }
        Ok(Record { suite, strategy, tasks, matrix, results })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table() {
        let path = std::env::temp_dir().join(format!("tsn-records-{}.csv", std::process::id()));
        let csv = "strategy,protocol,train_seed,n_copies,keep_ratio,ACC,task_order,perf_matrix\n\
            tsn,five,1,2,0.5,99,a|b,\"[[1.5, 0.0], [1.0, -2]]\"\nnaive,five,0 (not recorded),,,,a|b,\"[[1, null], [0, 2]]\"\n\
            ewc,five,,,,,a|b,\n";
        std::fs::write(&path, csv).unwrap();
        let records = read(&path, None).unwrap();
        assert_eq!(records.len(), 2, "a row without a matrix is no record");
        assert_eq!(records[0].matrix, [[Some(1.5), Some(0.0)], [Some(1.0), Some(-2.0)]]);
        let results = &records[0].results;
        assert_eq!((&results["seed"], &results["copies"]), (&json!(1), &json!(2)));
        assert_eq!(results["settings"], json!({"keep_ratio": "0.5"}));
        assert_eq!((records[1].suite.as_str(), &records[1].results["seed"]), ("five", &Value::Null));
        assert_eq!(records[1].matrix[0], [Some(1.0), None]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_seed_of_null_hides_no_other() {
        let path = std::env::temp_dir().join(format!("tsn-seeds-{}.json", std::process::id()));
        let matrix = r#""task_names": ["a"], "perf_matrix": [[1]]"#;
        for (seeds, expected) in [
            (r#""seed": null, "train_seed": 3"#, json!(3)),
            (r#""seed": null, "settings": {"seed": 4}"#, json!(4)),
            (r#""seed": 5, "train_seed": 3"#, json!(5)),
            (r#""seed": null"#, Value::Null),
        ] {
            std::fs::write(&path, format!(r#"{{"strategy": "x", "lr": 0.1, {seeds}, {matrix}}}"#)).unwrap();
            let results = read(&path, None).unwrap().remove(0).results;
            assert_eq!(results["seed"], expected, "{seeds}");
            let settings = results["settings"].as_object().unwrap();
            assert!(settings.contains_key("lr"), "{seeds}");
            assert!(!(settings.contains_key("strategy") || settings.contains_key("train_seed")), "{seeds}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_record_is_named() {
        let path = std::env::temp_dir().join(format!("tsn-no-record-{}.json", std::process::id()));
        for (text, part) in [
            ("{}", "no name"),
            (r#"{"name": "x", "task_names": "a"}"#, "task_names: expected a list of names, found a text"),
            (r#"{"name": "x", "task_names": true}"#, "task_names: expected a list of names, found true or false"),
            (r#"{"name": "x", "task_names": ["a"]}"#, "perf_matrix: expected a list of rows, found nothing"),
            (
                r#"{"name": "x", "task_names": ["a"], "perf_matrix": [[1], [2]]}"#,
                "expected 1 rows, one per task, found 2",
            ),
            (r#"{"name": "x", "task_names": ["a"], "perf_matrix": [[1, 2]]}"#, "row 0: expected 1 scores, found 2"),
            (r#"{"name": "x", "task_names": ["a"], "perf_matrix": [["1"]]}"#, "expected a number or null, found \"1\""),
            ("{", "not valid JSON"),
            ("a,b\n1,2\n", "a column strategy; the first line has a, b"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = format!("{:#}", read(&path, None).err().unwrap());
            assert!(message.contains(part) && message.contains("tsn-no-record"), "{message}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
