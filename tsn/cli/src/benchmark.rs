//! Benchmarks as files: a list of tasks, and how long to train on it. The usual ones come with the program. A list alone,
//! as `data make` writes it, is a benchmark without budgets.

use anyhow::{Context, Result, bail};
use dt_io::{TaskSpec, parse_spec};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files that come with the program.
const BUILT_IN: [(&str, &str); 10] = [
    ("cartpole_conflict", include_str!("../suites/cartpole_conflict.json")),
    ("cartpole_families", include_str!("../suites/cartpole_families.json")),
    ("cartpole7", include_str!("../suites/cartpole7.json")),
    ("panda3", include_str!("../suites/panda3.json")),
    ("panda_families", include_str!("../suites/panda_families.json")),
    ("panda5", include_str!("../suites/panda5.json")),
    ("atari5", include_str!("../suites/atari5.json")),
    ("atari5-breakout-first", include_str!("../suites/atari5-breakout-first.json")),
    ("atari6", include_str!("../suites/atari6.json")),
    ("atari10", include_str!("../suites/atari10.json")),
];

/// Tasks and budgets.
#[derive(Debug)]
pub(crate) struct Benchmark {
    /// Name of the list.
    pub name: String,
    /// The tasks, in order.
    pub tasks: Vec<TaskSpec>,
    budgets: BTreeMap<String, Budget>,
}

/// How long to train, and how often to play.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Optimiser steps per task.
    pub steps: u64,
    /// Windows in a batch.
    pub batch: Option<u32>,
    /// Evaluation episodes per matrix entry.
    pub episodes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tasks: Value,
    #[serde(default)]
    budgets: BTreeMap<String, Budget>,
}

impl Benchmark {
    /// A benchmark that comes with the program, or a user's file.
    ///
    /// # Errors
    /// A name that is neither, listing those there are; a file that is no benchmark, with the entry and the field.
    pub(crate) fn open(name: &str) -> Result<Benchmark> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Benchmark::parse(name, text.as_bytes());
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "json") {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("suite {name} does not exist: expected demo, {} or a .json file", names.join(", "));
        }
        let bytes = fs::read(path).with_context(|| name.to_owned())?;
        let stem = path.file_stem().map_or_else(|| "suite".into(), |stem| stem.to_string_lossy());
        Benchmark::parse(&stem, &bytes).with_context(|| name.to_owned())
    }

    fn parse(name: &str, bytes: &[u8]) -> Result<Benchmark> {
        let (tasks, budgets) = match bytes.trim_ascii_start() {
            [b'[', ..] => (parse_spec(bytes), BTreeMap::new()),
            _ => {
                let document: Document = serde_json::from_slice(bytes)?;
                (parse_spec(document.tasks.to_string().as_bytes()), document.budgets)
            }
        };
        Ok(Benchmark { name: name.to_owned(), tasks: tasks.map_err(|kind| anyhow::anyhow!("{kind}"))?, budgets })
    }

    /// The budget of a name.
    ///
    /// # Errors
    /// Lists the names there are.
    pub(crate) fn budget(&self, name: &str) -> Result<Budget> {
        match self.budgets.get(name) {
            Some(budget) => Ok(*budget),
            None => {
                let names: Vec<&str> = self.budgets.keys().map(String::as_str).collect();
                bail!("suite {} has no budget {name}: expected {}", self.name, names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::specs_of;
    use tsn::suite::Suite;

    #[test]
    fn every_benchmark_that_comes_along_has_tasks_and_the_three_budgets() {
        for (name, _) in BUILT_IN {
            let benchmark = Benchmark::open(name).unwrap();
            assert!(benchmark.tasks.len() >= 2, "{name}");
            for budget in ["smoke", "standard", "published"] {
                assert!(benchmark.budget(budget).unwrap().steps >= 500, "{name} {budget}");
            }
        }
        assert_eq!(Benchmark::open("atari5-breakout-first").unwrap().tasks[0].name, "D_Breakout");
    }

    #[test]
    fn files_and_generated_suites_agree() {
        for suite in [Suite::CartPole7, Suite::CartPoleConflict, Suite::CartPoleFamilies] {
            assert_eq!(Benchmark::open(suite.name()).unwrap().tasks, specs_of(suite));
        }
    }

    #[test]
    fn what_is_no_benchmark_is_refused() {
        let refused = |text: &str| Benchmark::parse("x", text.as_bytes()).unwrap_err().to_string();
        assert!(refused("{\"tasks\": []}").contains("at least one task"));
        assert!(refused(" []").contains("at least one task"));
        assert!(refused("{\"tasks\": [], \"budget\": {}}").contains("budget"));
        assert!(refused("{\"tasks\": [{\"name\": 3}]}").contains("entry 0"));
        assert!(Benchmark::open("panda4").unwrap_err().to_string().contains("panda3"));
        assert!(Benchmark::open("panda3").unwrap().budget("short").unwrap_err().to_string().contains("smoke"));
    }
}
