//! One HTML page from run directories: tables and inline SVG, no script and nothing loaded from elsewhere.
//!
//! `run` reads a directory, `group` puts the seeds of one strategy together, `statistics` is every number over seeds, also
//! as CSV and JSON. `summary`, `comparison` and `detail` are the sections, `plots`, `marks` and `page` are what they are
//! made of. Every text of a run goes through [`page::escape`].

mod comparison;
mod detail;
mod group;
mod marks;
pub(crate) mod page;
mod plots;
mod run;
mod statistics;
mod summary;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};
use tsn::file::replace_file;

use crate::files::{make_dir, note};
use crate::settings::SCHEMA;
use group::Group;
use run::{Run, Version};
use statistics::Measure;

/// Above this many runs their sections start folded.
const OPEN_RUNS: usize = 4;

/// Runs that are reported on together.
pub(crate) struct Report {
    runs: Vec<Run>,
}

impl Report {
    /// Reads run directories.
    ///
    /// A run needs `results.json`; any other file and any entry may be missing, and the page says so.
    ///
    /// # Errors
    /// No run, a run without results, broken JSON, or a file that cannot be read; the message names it.
    pub(crate) fn read(runs: &[PathBuf]) -> anyhow::Result<Report> {
        if runs.is_empty() {
            bail!("a report needs at least one run directory");
        }
        let mut kept = Vec::new();
        for dir in runs {
            let run = Run::read(dir)?;
            match group::original(&run, &kept) {
                Some(other) => {
                    note(&format!(
                        "{} is left out: its settings, seed and scores are those of {}",
                        dir.display(),
                        other.name
                    ));
                }
                None => kept.push(run),
            }
        }
        Ok(Report { runs: kept })
    }

    /// Writes `dir/report.html` and `dir/report.csv`, and returns the path of the page.
    ///
    /// # Errors
    /// A file that cannot be written; the message names it.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        make_dir(dir)?;
        let path = dir.join("report.html");
        replace_file(&path, render(&self.runs)?.as_bytes())?;
        replace_file(&dir.join("report.csv"), self.csv().as_bytes())?;
        Ok(path)
    }

    /// Every statistic, one line each.
    pub(crate) fn csv(&self) -> String {
        statistics::csv(&statistics::rows(&group::of(&self.runs)))
    }

    /// Every statistic, and what every run came to.
    ///
    /// # Errors
    /// None that a report of finite numbers has.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        let groups = group::of(&self.runs);
        let scores = |run: &Run, version: Version| -> Value {
            let of = |measure: Measure| {
                let values = measure.of(run, version)?;
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                Some((measure.key().to_owned(), json!({"mean": mean, "tasks": values})))
            };
            Value::Object(Measure::ALL.into_iter().filter_map(of).collect())
        };
        let run = |group: &Group<'_>, run: &Run| {
            json!({
                "directory": run.name, "suite": run.suite, "strategy": group.label, "seed": run.seed(),
                "task_names": run.tasks, "imported": run.imported(), "complete": run.complete(),
                "raw": scores(run, Version::Raw), "normalised": scores(run, Version::Normalised),
                "success": scores(run, Version::Success),
                "episode_scores": (0..run.tasks.len()).map(|task| run.episodes(task)).collect::<Vec<_>>(),
                "memory_per_task": run.memory_per_task(),
            })
        };
        let runs = groups.iter().flat_map(|group| group.runs.iter().map(|one| run(group, one)));
        let document = json!({
            "schema": SCHEMA, "runs": runs.collect::<Vec<_>>(), "statistics": statistics::rows(&groups),
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    /// Number of runs.
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }
}

/// Reads runs and writes their page into a directory.
///
/// # Errors
/// As [`Report::read`] and [`Report::write`].
pub(crate) fn write(dir: &Path, runs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    Report::read(runs)?.write(dir)
}

fn render(runs: &[Run]) -> anyhow::Result<String> {
    let groups = group::of(runs);
    let mut body = summary::header(runs, &groups);
    body += &summary::table(&groups);
    body += &comparison::statistics(&groups);
    body += &comparison::differences(&groups);
    body += &comparison::episodes(&groups);
    body += &comparison::comparison(&groups)?;
    for (at, group) in groups.iter().enumerate() {
        body += &section(at, group, runs.len() <= OPEN_RUNS)?;
    }
    body += page::GLOSSARY;
    Ok(page::document(&summary::title(runs), &body))
}

/// One strategy: what its seeds have in common, then every run.
fn section(at: usize, group: &Group<'_>, open: bool) -> anyhow::Result<String> {
    let mut html = format!("<section id=\"strategy-{at}\"><h2>{}</h2>\n", page::escape(&group.label));
    html += &detail::forgetting(group)?;
    for run in &group.runs {
        html += &detail::run(run, open)?;
    }
    Ok(html + "</section>\n")
}
