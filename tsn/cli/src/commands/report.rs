//! A page with plots and tables of runs that lie on disk, and its numbers as CSV and JSON.

use crate::args;
use crate::files::{check_outputs, note, print, write_output};
use crate::report::Report;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the page.
pub(crate) fn report(args: &args::Report) -> Result<()> {
    let (json, csv) = (args.output.json.as_deref(), args.output.csv.as_deref());
    check_outputs(&[("--json", json), ("--csv", csv)])?;
    let mut runs = Vec::new();
    for dir in &args.dirs {
        let found = runs_in(dir)?;
        if found.is_empty() {
            bail!("{}: neither a run with results nor a directory that holds some", dir.display());
        }
        // A run that is named twice counts once.
        runs.extend(found.into_iter().filter(|run| !runs.contains(run)).collect::<Vec<_>>());
    }
    let target = args.out.clone().unwrap_or_else(|| args.dirs[0].clone());
    let report = Report::read(&runs)?;
    let page = report.write(&target)?;
    if let Some(path) = json {
        write_output(path, &report.json()?)?;
    }
    if let Some(path) = csv {
        write_output(path, &report.csv())?;
    }
    match args.output.silent() {
        true => Ok(()),
        false => print(&format!("{}: {} runs\n", page.display(), report.runs())),
    }
}

/// The directory itself if it holds results, else those of its children that do, by name.
fn runs_in(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join("results.json").is_file() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let (mut runs, mut begun) = (Vec::new(), 0);
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.join("results.json").is_file() {
            runs.push(path);
        } else if path.join("config.json").is_file() {
            begun += 1;
        }
    }
    if begun > 0 {
        note(&format!("{}: left out, without results so far: {begun}", dir.display()));
    }
    runs.sort();
    Ok(runs)
}
