//! `cargo xtask peers`: ours beside other libraries, as tables in Markdown, with the goals of `benches/goals.csv`.
//!
//! Ids are joined by op and shape. Ours are rows of the backend `cpu`, those of others `rival` (libraries in the same
//! process) and `peer` (other programs). A time is the median over the rounds of a row's median. What ran on two workers
//! has the same on one beside it, from a file that holds rows of ours alone: beside other libraries caches are colder.

use crate::measure::Exit;
use crate::measure::compare::time;
use crate::measure::file::{File, Row, quantile};
use crate::measure::goals::{Goal, goals};
use anyhow::Result;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// End of cases on two workers.
const TWO_WORKERS: &str = "_w2";
/// The column for the same case on one.
const ONE_WORKER: &str = "one_worker";

/// Files to join.
#[derive(Args)]
pub(crate) struct Peers {
    /// Ours and those of others. A case that several files have of ours is taken from the first of them: name rivals first,
    /// so that they stand beside what ran in their process
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs the task.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn run(args: &Peers) -> Result<Exit> {
    let files = args.files.iter().map(|path| File::read(path)).collect::<Result<Vec<_>>>()?;
    let cases = join(&files);
    if cases.is_empty() {
        eprintln!("xtask: no case has both a row of ours and one of others");
        return Ok(Exit::Unusable);
    }
    let goals = goals()?;
    print!("{}{}", tables(&cases, &goals), summary(&cases, &goals));
    Ok(Exit::Done)
}

/// The times of one op at one shape.
#[derive(Default)]
struct Case {
    /// Variant and time of the fastest of ours, and the file it is from.
    ours: Option<(String, f64, usize)>,
    others: BTreeMap<String, f64>,
}

impl Case {
    fn ours_ns(&self) -> Option<f64> {
        self.ours.as_ref().map(|(_, ns, _)| *ns)
    }

    /// How many times faster than the fastest of others whose names are among these; of all if there are none.
    fn ratio(&self, names: &[String]) -> Option<(f64, &str)> {
        let named = self.others.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
        let (name, ns) = named.min_by(|a, b| a.1.total_cmp(b.1))?;
        Some((ns / self.ours_ns()?, name))
    }
}

/// All cases that have both a row of ours and one of others.
fn join(files: &[File]) -> BTreeMap<String, Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let mut alone: BTreeMap<String, f64> = BTreeMap::new();
    for (nth, file) in files.iter().enumerate() {
        let ours_only = file.rows.keys().filter_map(|id| parts(id)).all(|(_, backend, _)| backend == "cpu");
        for (id, rounds) in &file.rows {
            let Some((name, backend, who)) = parts(id) else { continue };
            let Some(ns) = quantile(rounds.iter().map(|row: &Row| row.median_ns).collect(), 0.5) else { continue };
            if ours_only && who != "plain" {
                let least = alone.entry(name.clone()).or_insert(ns);
                *least = least.min(ns);
            }
            let case = cases.entry(name).or_default();
            match (backend, &case.ours) {
                // The plain loop is there to be right.
                ("cpu", _) if who == "plain" => {}
                ("cpu", Some((_, least, from))) if *from < nth || *least <= ns => {}
                ("cpu", _) => case.ours = Some((who.to_owned(), ns, nth)),
                _ => {
                    case.others.insert(who.to_owned(), ns);
                }
            }
        }
    }
    let one = |name: &str| alone.get(name.strip_suffix(TWO_WORKERS)?).copied();
    let singles: Vec<(String, f64)> = cases.keys().filter_map(|name| Some((name.clone(), one(name)?))).collect();
    for (name, ns) in singles {
        if let Some(case) = cases.get_mut(&name) {
            case.others.insert(ONE_WORKER.to_owned(), ns);
        }
    }
    cases.retain(|_, case| case.ours.is_some() && !case.others.is_empty());
    cases
}

/// One table per op, a line per case.
fn tables(cases: &BTreeMap<String, Case>, goals: &[Goal]) -> String {
    let op = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
    let mut text = String::new();
    for group in cases.keys().map(|name| op(name)).collect::<BTreeSet<_>>() {
        let rows: Vec<_> = cases.iter().filter(|(name, _)| op(name) == group).collect();
        let columns: BTreeSet<&String> = rows.iter().flat_map(|(_, case)| case.others.keys()).collect();
        text += &format!("## {group}\n\n| case | ours |");
        columns.iter().for_each(|column| text += &format!(" {column} |"));
        text += " best other / ours | goal | of goal |\n|---|---|";
        columns.iter().for_each(|_| text += "---|");
        text += "---|---|---|\n";
        for (name, case) in rows {
            let Some((variant, ns, _)) = &case.ours else { continue };
            let shape = name.split_once(' ').map_or(name.as_str(), |(_, shape)| shape);
            text += &format!("| {shape} | {} ({variant}) |", time(*ns));
            for column in &columns {
                text += &case.others.get(*column).map_or(" |".to_owned(), |ns| format!(" {} |", time(*ns)));
            }
            let best = case.ratio(&[]).map_or(String::new(), |(ratio, who)| format!(" {ratio:.2} ({who})"));
            let goal = goals.iter().find(|goal| goal.case == *name);
            text += &format!("{best} |{} |\n", goal.map_or(" |".to_owned(), |goal| judged(goal, case)));
        }
        text.push('\n');
    }
    text
}

/// The goal and how much of it is reached.
fn judged(goal: &Goal, case: &Case) -> String {
    match case.ratio(&goal.peers) {
        Some((ratio, who)) => format!(" {} ({who}) | {:.2}", goal.ratio, ratio / goal.ratio),
        None => format!(" {} |", goal.ratio),
    }
}

/// Which goals are met, missed, and without figures.
fn summary(cases: &BTreeMap<String, Case>, goals: &[Goal]) -> String {
    let (mut met, mut missed, mut unknown) = (0, Vec::new(), Vec::new());
    for goal in goals {
        let found = cases.get(&goal.case).and_then(|case| Some((case.ratio(&goal.peers)?, case.ours_ns()?)));
        match found {
            Some(((ratio, _), _)) if ratio >= goal.ratio => met += 1,
            Some(((ratio, who), ns)) => missed.push(format!(
                "| {} | {} | {ratio:.2} ({who}) | {} | {:.2} |\n",
                goal.case,
                time(ns),
                goal.ratio,
                ratio / goal.ratio
            )),
            None => unknown.push(format!("- {} (against {})\n", goal.case, goal.peers.join(", "))),
        }
    }
    let mut text = format!("## Goals\n\n{met} of {} are met.\n\n", goals.len());
    if !missed.is_empty() {
        text += &format!(
            "Missed:\n\n| case | ours | ratio | goal | of goal |\n|---|---|---|---|---|\n{}\n",
            missed.concat()
        );
    }
    if !unknown.is_empty() {
        text += &format!("Not measured:\n\n{}", unknown.concat());
    }
    text
}

/// Case, backend, and variant or library of `op/backend_dtype_variant/shape_density`. Other element types than f32 are
/// part of the case, a density of all weights is not.
fn parts(id: &str) -> Option<(String, &str, &str)> {
    let [op, how, shape] = id.split('/').collect::<Vec<_>>()[..] else { return None };
    let [backend, dtype, who] = how.splitn(3, '_').collect::<Vec<_>>()[..] else { return None };
    let shape = shape.replace("_d100", "");
    let dtype = if dtype == "f32" { String::new() } else { format!(" {dtype}") };
    Some((format!("{op} {shape}{dtype}"), backend, who))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::file::tests::row;

    fn file(rows: &[(&str, f64)]) -> File {
        File::parse(&rows.iter().map(|(id, ns)| row(id, *ns)).collect::<Vec<_>>().join("\n")).unwrap()
    }

    fn goal(case: &str, ratio: f64, peers: &[&str]) -> Goal {
        Goal { case: case.to_owned(), ratio, peers: peers.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn cases_are_joined_by_op_and_shape() {
        let ours = file(&[
            ("gemm/cpu_f32_plain/r1_o2_d100", 1.0),
            ("gemm/cpu_f32_tiles/r1_o2_d100", 30.0),
            ("gemm/cpu_f32_tiles_avx2/r1_o2_d100", 20.0),
            ("gemm/rival_f32_faer/r1_o2_d100", 50.0),
            ("topk/cpu_f32_lanes/o1_d50", 7.0),
        ]);
        let peers = file(&[
            ("gemm/peer_f32_torch_csr/r1_o2", 25.0),
            ("gemm/peer_f32_torch_csr/r1_o2", 35.0),
            ("gemm/peer_f32_torch_csr/r1_o2", 30.0),
            ("gemm/cpu_f32_tiles/r1_o2", 0.5),
            ("gemm/peer_f32_torch/r9_o2", 1.0),
        ]);
        let cases = join(&[ours, peers]);
        let text = tables(&cases, &[goal("gemm r1_o2", 5.0, &["faer", "none"])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "## gemm");
        assert_eq!(lines[2], "| case | ours | faer | torch_csr | best other / ours | goal | of goal |");
        assert_eq!(
            lines[4..],
            ["| r1_o2 | 20.0 ns (tiles_avx2) | 50.0 ns | 30.0 ns | 1.50 (torch_csr) | 5 (faer) | 0.50 |", ""]
        );
    }

    #[test]
    fn two_workers_stand_beside_one() {
        let cases =
            join(&[file(&[("gemm/cpu_f32_tiles/r1_o2_d100", 30.0), ("gemm/cpu_f32_tiles/r1_o2_d100_w2", 20.0)])]);
        assert_eq!(cases.len(), 1);
        assert_eq!(cases["gemm r1_o2_w2"].ratio(&[]), Some((1.5, ONE_WORKER)));
        let rivals = file(&[("gemm/cpu_f32_tiles/r1_o2_d100", 60.0), ("gemm/rival_f32_faer/r1_o2_d100", 70.0)]);
        let alone = file(&[("gemm/cpu_f32_tiles/r1_o2_d100", 30.0), ("gemm/cpu_f32_tiles/r1_o2_d100_w2", 20.0)]);
        assert_eq!(join(&[rivals, alone])["gemm r1_o2_w2"].ratio(&[]), Some((1.5, ONE_WORKER)));
    }

    #[test]
    fn goals_are_met_missed_or_without_figures() {
        let cases = join(&[file(&[("a/cpu_f32_x/r1", 10.0), ("a/peer_f32_torch/r1", 20.0), ("a/peer_f32_b/r1", 5.0)])]);
        let goals = [
            goal("a r1", 2.0, &["torch"]),
            goal("a r1", 2.5, &["torch"]),
            goal("a r1", 2.0, &["other"]),
            goal("a r2", 1.0, &[]),
        ];
        let text = summary(&cases, &goals);
        assert!(text.contains("1 of 4 are met"), "{text}");
        assert!(text.contains("| a r1 | 10.0 ns | 2.00 (torch) | 2.5 | 0.80 |\n\nNot measured"), "{text}");
        assert!(text.ends_with("- a r1 (against other)\n- a r2 (against )\n"), "{text}");
    }

    #[test]
    fn nothing_in_common_is_no_table() {
        assert!(join(&[file(&[("gemm/cpu_f32_a/r1", 1.0)]), file(&[("gemm/peer_f32_b/r2", 1.0)])]).is_empty());
        assert!(parts("gemm/cpu/r1").is_none() && parts("gemm").is_none());
        assert_eq!(parts("gemm/cpu_bf16_a/r1_d50").unwrap().0, "gemm r1_d50 bf16");
    }
}
