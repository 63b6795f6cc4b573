//! `cargo xtask gate`: is the working tree slower than a revision?

mod revision;
mod rounds;
mod self_test;

use crate::measure::Exit;
use crate::measure::compare::{Comparison, share};
use crate::measure::file::File;
use crate::measure::rule::{Rule, Verdict};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rounds::{Measure, Side, settle};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is measured, and how long.
#[derive(Args)]
pub(crate) struct Gate {
    /// Revision that the working tree is held against
    #[arg(long, value_name = "REV", required_unless_present = "self_test")]
    base: Option<String>,
    /// Suite of `tsn-affinity profile`
    #[arg(long, value_name = "NAME", default_value = "quick")]
    suite: String,
    /// Judge only these ids of the suite
    #[arg(long, value_name = "ID", num_args = 1..)]
    only: Vec<String>,
    /// Rounds of a batch; each runs both programs twice
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Relative change that matters
    #[arg(long, value_name = "SHARE", default_value_t = Rule::default().threshold, value_parser = share)]
    threshold: f64,
    /// Milliseconds that a row is timed in each run
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    measure_ms: u32,
    /// Also write one JSON object per row to a file, or nothing else to stdout for -
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Count false alarms and detections of this gate on equal programs and on a planted slowdown
    #[arg(long, conflicts_with_all = ["base", "suite", "only", "json", "measure_ms"])]
    self_test: bool,
    /// Gates of each kind in the self-test
    #[arg(long, value_name = "N", default_value_t = 100, requires = "self_test", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
}

/// Runs the task.
///
/// # Errors
/// A program that does not build, does not run or does not print measurements.
pub(crate) fn run(root: &Path, args: &Gate) -> Result<Exit> {
    let rule = Rule { threshold: args.threshold, ..Rule::default() };
    let Some(rev) = args.base.as_deref().filter(|_| !args.self_test) else {
        return self_test::run(root, &rule, args.rounds as usize, args.runs as usize);
    };
    let base = match revision::base(root, rev)? {
        Ok(program) => program,
        Err(why) => {
            eprintln!("xtask: no baseline: {why}");
            return Ok(Exit::Missing);
        }
    };
    let new = revision::working_tree(root)?;
    let (suite, time) = (args.suite.as_str(), args.measure_ms.to_string());
    let line = ["profile", "--suite", suite, "--measure-ms", &time, "--json", "-", "--quiet"];
    let mut measure = |side: Side, ids: &[String]| {
        let program = if side == Side::Base { &base } else { &new };
        // A base whose --filter takes one text runs the whole suite.
        let narrow = (!ids.is_empty())
            .then(|| measurements(Command::new(program).args(line).args(["--filter", &filter(ids)])).ok())
            .flatten()
            .filter(|file| ids.iter().all(|id| file.rows.contains_key(id)));
        let mut file = match narrow {
            Some(file) => file,
            None => measurements(Command::new(program).args(line))?,
        };
        file.rows.retain(|id, _| ids.is_empty() || ids.contains(id));
        Ok(file)
    };
    if let Some(exit) = first_look(rev, suite, &args.only, &mut measure)? {
        return Ok(exit);
    }
    let comparison = settle(&rule, args.rounds as usize, &args.only, &mut measure)?;
    comparison.deliver(args.json.as_deref())?;
    Ok(verdict(&comparison))
}

/// Looks whether the base has what is asked for; if not, says whether it ever was asked rightly.
///
/// # Errors
/// A suite or a row that the working tree lacks, too.
fn first_look(rev: &str, suite: &str, only: &[String], measure: &mut Measure<'_>) -> Result<Option<Exit>> {
    let lacks = |file: &File| only.iter().filter(|id| !file.rows.contains_key(*id)).cloned().collect::<Vec<_>>();
    let why = match measure(Side::Base, only) {
        Ok(file) if file.rows.is_empty() && only.is_empty() => format!("{rev} has no row of suite {suite}"),
        Ok(file) if lacks(&file).is_empty() => return Ok(None),
        Ok(file) => format!("{rev} has no row {} in suite {suite}", lacks(&file).join(", ")),
        Err(error) => format!("{rev}: {error:#}"),
    };
    let missing = lacks(&measure(Side::New, only)?);
    ensure!(missing.is_empty(), "no row {} in suite {suite}", missing.join(", "));
    eprintln!("xtask: no baseline: {why}");
    Ok(Some(Exit::Missing))
}

/// Texts for `--filter` that hold for these ids: op and shape of a call, the whole id of a step.
fn filter(ids: &[String]) -> String {
    let texts = ids.iter().flat_map(|id| {
        let call = match id.split('/').collect::<Vec<_>>()[..] {
            [op, _, shape] => Some(format!("{op}/{shape}")),
            _ => None,
        };
        call.into_iter().chain([id.clone()])
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The exit of a gate: one slower row is enough; without any row that says something the input is unusable.
fn verdict(comparison: &Comparison) -> Exit {
    let count = |verdict| comparison.count(verdict);
    match (count(Verdict::Slower), count(Verdict::Unusable)) {
        (0, unusable) if unusable == comparison.rows.len() => Exit::Unusable,
        (0, _) => Exit::Done,
        _ => Exit::Slower,
    }
}

/// What a program prints.
fn measurements(command: &mut Command) -> Result<File> {
    let line = format!("{command:?}");
    let out = command.output().with_context(|| line.clone())?;
    let complaint = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{line}: {}: {}", out.status, first(&complaint));
    File::parse(std::str::from_utf8(&out.stdout)?).context(line)
}

/// The line of a complaint that says most: a usage error and a panic begin with it.
fn first(complaint: &str) -> &str {
    complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// A command whose output is for the user.
fn shell(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::file::tests::row;

    fn exit(rows: &[(&str, f64, usize)]) -> Exit {
        let lines = |new: bool| {
            let all = rows.iter().flat_map(|(id, ratio, n)| vec![row(id, if new { 100.0 * ratio } else { 100.0 }); *n]);
            File::parse(&all.collect::<Vec<_>>().join("\n")).unwrap()
        };
        verdict(&Comparison::new(&lines(false), &lines(true), &Rule::default()))
    }

    #[test]
    fn one_slower_row_is_enough_and_one_usable_row_too() {
        assert_eq!(exit(&[("a", 1.0, 3), ("b", 1.2, 3)]), Exit::Slower);
        assert_eq!(exit(&[("a", 1.0, 3), ("b", 1.2, 2)]), Exit::Done);
        assert_eq!(exit(&[("b", 1.2, 2)]), Exit::Unusable);
        assert_eq!(exit(&[]), Exit::Unusable);
    }

    #[test]
    fn what_the_base_lacks_is_told_from_what_nobody_has() {
        let sides = |base: &'static [&str], new: &'static [&str]| {
            move |side: Side, _: &[String]| {
                let rows = if side == Side::Base { base } else { new };
                ensure!(!rows.contains(&"broken"), "no such suite");
                File::parse(&rows.iter().map(|id| row(id, 1.0)).collect::<Vec<_>>().join("\n"))
            }
        };
        let look = |base, new, only: &[&str]| {
            let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
            first_look("rev", "quick", &only, &mut sides(base, new))
        };
        assert_eq!(look(&["a", "b"], &["a"], &[]).unwrap(), None);
        assert_eq!(look(&["a", "b"], &["a", "b"], &["a", "b"]).unwrap(), None);
        assert_eq!(look(&["a"], &["a", "b"], &["a", "b"]).unwrap(), Some(Exit::Missing));
        assert_eq!(look(&[], &["a"], &[]).unwrap(), Some(Exit::Missing));
        assert_eq!(look(&["broken"], &["a"], &[]).unwrap(), Some(Exit::Missing));
        assert!(look(&["a"], &["a"], &["a", "c"]).unwrap_err().to_string().contains("no row c in suite quick"));
        assert!(look(&["broken"], &["broken"], &[]).is_err());
    }

    #[test]
    fn ids_become_filters() {
        let ids = ["gemm/cpu_f32_a/r1_d100".to_owned(), "step".to_owned()];
        assert_eq!(filter(&ids), "gemm/r1_d100,gemm/cpu_f32_a/r1_d100,step");
        assert_eq!(first("\nerror: bad\n\nFor more, try --help\n"), "error: bad");
    }

    #[test]
    fn programs_that_fail_or_print_something_else_are_named() {
        let version = measurements(Command::new("cargo").arg("--version")).unwrap_err();
        assert!(format!("{version:#}").contains("line 1"), "{version:#}");
        let unknown = measurements(Command::new("cargo").arg("no-such-command")).unwrap_err();
        assert!(format!("{unknown:#}").contains("no-such-command"), "{unknown:#}");
    }
}
