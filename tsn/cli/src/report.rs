//! One HTML page from run directories: tables and inline SVG, no script and nothing loaded from elsewhere.
//!
//! `run` reads a directory, `group` puts the seeds of one strategy together, `summary` and `detail` are the sections,
//! `plots` and `page` are what they are made of. Every text of a run goes through [`page::escape`].

mod detail;
mod group;
pub(crate) mod page;
mod plots;
mod run;
mod summary;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use group::Group;
use run::Run;

/// Above this many runs their sections start folded.
const OPEN_RUNS: usize = 4;

/// Writes `dir/report.html` about `runs`, and returns its path.
///
/// A run needs `results.json`; any other file and any entry may be missing, and the page says so.
///
/// # Errors
/// No run, a run without results, broken JSON, or a file that cannot be read or written; the message names it.
pub(crate) fn write(dir: &Path, runs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    if runs.is_empty() {
        bail!("a report needs at least one run directory");
    }
    let runs: Vec<Run> = runs.iter().map(|dir| Run::read(dir)).collect::<anyhow::Result<_>>()?;
    let html = render(&runs)?;
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    let path = dir.join("report.html");
    let unfinished = dir.join("report.html.part");
    fs::write(&unfinished, html).with_context(|| format!("{}: cannot be written", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("{}: cannot be replaced", path.display()))?;
    Ok(path)
}

fn render(runs: &[Run]) -> anyhow::Result<String> {
    let groups = group::of(runs);
    let mut body = summary::header(runs, &groups);
    body += &summary::table(&groups);
    body += &summary::comparison(&groups)?;
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
