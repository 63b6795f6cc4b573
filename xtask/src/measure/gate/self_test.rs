//! How often the gate cries wolf, and how often it sees one.
//!
//! Both sides are the example `gate_rows` of the benches, so the timings, the processes and the rule are real. For the
//! detections one side does a tenth more work in one row; the other rows stay equal, and an alarm on one of them counts
//! as false.

use super::rounds::{Side, settle};
use super::{measurements, shell};
use crate::measure::Exit;
use crate::measure::rule::{Rule, Verdict};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// False alarms per hundred equal gates, and detections per hundred planted ones.
const FALSE_ALARMS: usize = 1;
const DETECTIONS: usize = 95;

/// Counts over the gates of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    gates: usize,
    /// Gates with a slower row that is equal.
    false_alarms: usize,
    /// Gates that call the planted row slower.
    detected: usize,
    rows: usize,
    unusable: usize,
    /// Sums of the planted rows' ratios.
    ratio: f64,
}

/// Runs `runs` gates of each kind and prints what they said.
///
/// # Errors
/// A benchmark that does not build or run.
pub(super) fn run(root: &Path, rule: &Rule, rounds: usize, runs: usize) -> Result<Exit> {
    let build = ["build", "--release", "--quiet", "--locked", "-p", "tsn-benches", "--example", "gate_rows"];
    let target = root.join("target");
    shell(Command::new("cargo").args(build).arg("--target-dir").arg(&target).current_dir(root))?;
    let program = target.join("release/examples").join(format!("gate_rows{}", std::env::consts::EXE_SUFFIX));
    let known = measurements(&mut Command::new(&program))?;
    let ids: Vec<String> = known.rows.into_keys().collect();

    let (mut equal, mut planted) = (Count::default(), Count::default());
    let start = Instant::now();
    for nth in 0..runs {
        for plant in [None, Some(ids.get(nth % ids.len()).context("gate_rows printed no rows")?)] {
            let found = settle(rule, rounds, &[], &mut |side, only| {
                let mut command = Command::new(&program);
                if let Some(id) = plant.filter(|_| side == Side::New) {
                    command.args(["--planted", id]);
                }
                // A row that is not run cannot be planted, but the example accepts its name.
                measurements(command.args(only))
            })?;
            let count = if plant.is_some() { &mut planted } else { &mut equal };
            let slower = |id: &&String| found.rows[*id].verdict == Verdict::Slower;
            count.gates += 1;
            count.rows += found.rows.len();
            count.unusable += found.count(Verdict::Unusable);
            count.false_alarms += usize::from(found.rows.keys().any(|id| plant != Some(id) && slower(&id)));
            if let Some(id) = plant {
                count.detected += usize::from(slower(&id));
                count.ratio += found.rows[id].ratio;
            }
        }
        eprintln!("{} of {runs}: {}", nth + 1, line(&equal, &planted));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("rows: {}", ids.join(", "));
    println!("rounds {rounds}, threshold {:.0} %, {seconds:.0} s", 100.0 * rule.threshold);
    println!("{}", line(&equal, &planted));
    println!("planted rows: mean ratio {:.3}", planted.ratio / planted.gates as f64);
    let unusable = |c: &Count| 100.0 * c.unusable as f64 / c.rows as f64;
    println!("rows without a verdict: equal {:.1} %, planted {:.1} %", unusable(&equal), unusable(&planted));
    Ok(if good(&equal, &planted) { Exit::Done } else { Exit::Slower })
}

fn line(equal: &Count, planted: &Count) -> String {
    format!(
        "equal: {} of {} gates slower; planted +10 %: {} of {} detected, {} with a false alarm",
        equal.false_alarms, equal.gates, planted.detected, planted.gates, planted.false_alarms
    )
}

/// The promise of the gate, at any number of runs.
fn good(equal: &Count, planted: &Count) -> bool {
    equal.false_alarms * 100 <= FALSE_ALARMS * equal.gates.max(100)
        && planted.detected * 100 >= DETECTIONS * planted.gates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_is_one_and_ninety_five_of_a_hundred() {
        let count = |false_alarms, detected| Count { gates: 100, false_alarms, detected, ..Count::default() };
        assert!(good(&count(1, 0), &count(0, 95)));
        assert!(!good(&count(2, 0), &count(0, 100)));
        assert!(!good(&count(0, 0), &count(0, 94)));
    }
}
