//! Many runs of `train` over strategies, seeds and settings, each a process and a directory of its own.
//!
//! A sweep keeps no state beside `sweep.json`: what is finished, interrupted or not begun shows in the directories, so
//! a sweep that was killed goes on when it is started again.

pub(crate) mod grid;
mod jobs;

use crate::args::{Cli, Command, Sweep};
use crate::commands::Negative;
use crate::commands::train::check_options;
use crate::files::{make_dir, print, read_json, write_json};
use crate::monitor::stop_on_signals;
use crate::report;
use anyhow::{Context, Result, bail};
use clap::Parser as _;
use grid::Grid;
use jobs::{Outcome, Workers};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Runs what is left of a sweep, then writes the page of all its runs.
///
/// # Errors
/// Settings that `train` would refuse, before anything starts; [`Negative`] if a run failed or was stopped.
pub(crate) fn sweep(args: &Sweep) -> Result<()> {
    let begin = Instant::now();
    let grid = Grid {
        strategies: args.strategies.iter().map(|s| s.name().to_owned()).collect(),
        seeds: args.seeds.concat(),
        vary: args.vary.clone(),
        train: args.train.clone(),
    };
    check(&grid)?;
    let path = args.out.join("sweep.json");
    if path.exists() {
        let before: Grid = read_json(&path)?;
        if before != grid {
            bail!("{}: another sweep began here; give it another --out, or repeat its arguments", path.display());
        }
    } else {
        make_dir(&args.out)?;
        write_json(&path, &grid)?;
    }
    let cells = grid.cells();
    let stop = Arc::default();
    stop_on_signals(&stop)?;
    let workers = Workers::new(args.jobs, args.threads, &args.out, stop);
    let outcomes = workers.run(&cells)?;
    let count = |wanted: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    let failed = count(&|outcome| matches!(outcome, Outcome::Failed { .. }));
    let left = count(&|outcome| matches!(outcome, Outcome::Left));
    let finished: Vec<_> = cells
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Done))
        .map(|(cell, _)| args.out.join(&cell.name))
        .collect();
    if !finished.is_empty() {
        let page = report::write(&args.out, &finished)?;
        print(&format!(
            "{} of {} runs finished, {:.1} s; plots in {}\n",
            finished.len(),
            cells.len(),
            begin.elapsed().as_secs_f64(),
            page.display()
        ))?;
    }
    match (failed, left) {
        (0, 0) => Ok(()),
        (0, _) => Err(Negative(format!("stopped with {left} runs to go; the same command goes on")).into()),
        _ => {
            let named = cells.iter().zip(&outcomes).find_map(|(cell, outcome)| match outcome {
                Outcome::Failed { why, .. } => Some(format!("{}: {why}", cell.name)),
                _ => None,
            });
            let told = format!("{failed} of {} runs failed, the first is {}", cells.len(), named.unwrap_or_default());
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed { refused: true, .. })) {
                bail!("{told}");
            }
            Err(Negative(told).into())
        }
    }
}

/// Refuses a sweep of which any run would be refused for its arguments.
fn check(grid: &Grid) -> Result<()> {
    let strategies = &grid.strategies;
    if let Some(twice) = (1..strategies.len()).find(|at| strategies[..*at].contains(&strategies[*at])) {
        bail!("--strategies names {} twice", strategies[twice]);
    }
    if let Some(twice) = (1..grid.seeds.len()).find(|at| grid.seeds[..*at].contains(&grid.seeds[*at])) {
        bail!("--seeds names {} twice", grid.seeds[twice]);
    }
    for own in ["strategy", "seed", "out", "json", "csv", "reference", "threads", "quiet"] {
        let flag = format!("--{own}");
        if grid.train.iter().any(|argument| *argument == flag || argument.starts_with(&format!("{flag}="))) {
            bail!("{flag} is set by the sweep: leave it out of the arguments of train");
        }
        if grid.vary.iter().any(|vary| vary.option == own) {
            bail!("--vary {own}: the sweep sets this itself");
        }
    }
    let cells = grid.cells();
    if let Some(twice) = (1..cells.len()).find(|at| cells[..*at].iter().any(|other| other.name == cells[*at].name)) {
        bail!("--vary asks for {} twice", cells[twice].name);
    }
    for cell in cells {
        let words = std::iter::once("tsn-affinity".into()).chain(cell.words(Path::new("")));
        match Cli::try_parse_from(words) {
            Err(error) => bail!("{}: {}", cell.name, error.to_string().lines().next().unwrap_or_default()),
            Ok(Cli { command: Some(Command::Train(args)), .. }) => {
                check_options(&args).with_context(|| cell.name.clone())?;
            }
            Ok(_) => {}
        }
    }
    Ok(())
}
