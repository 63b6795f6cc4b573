//! A page with plots of runs that lie on disk.

use crate::args::Report;
use crate::files::print;
use crate::report;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the page.
pub(crate) fn report(args: &Report) -> Result<()> {
    let mut runs = Vec::new();
    for dir in &args.dirs {
        let found = runs_in(dir)?;
        if found.is_empty() {
            bail!("{}: neither a run with results nor a directory that holds some", dir.display());
        }
        runs.extend(found);
    }
    let target = args.out.clone().unwrap_or_else(|| args.dirs[0].clone());
    let page = report::write(&target, &runs)?;
    print(&format!("{}: {} runs\n", page.display(), runs.len()))
}

/// The directory itself if it holds results, else those of its children that do, by name.
fn runs_in(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join("results.json").is_file() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.join("results.json").is_file() {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}
