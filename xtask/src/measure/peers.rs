//! `cargo xtask peers`: ours beside other libraries, as a table in Markdown.
//!
//! Ids are joined by op and shape. Ours are rows of the backend `cpu`, those of others `rival` (libraries in the same
//! process) and `peer` (other programs). A time is the median over the rounds of a row's median.

use crate::measure::Exit;
use crate::measure::compare::time;
use crate::measure::file::{File, Row, quantile};
use anyhow::Result;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Files to join.
#[derive(Args)]
pub(crate) struct Peers {
    /// Ours, and rivals measured with them
    ours: PathBuf,
    /// More rivals and peers; their own rows of the backend cpu are left out
    others: Vec<PathBuf>,
}

/// Runs the task.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn run(args: &Peers) -> Result<Exit> {
    let ours = File::read(&args.ours)?;
    let others = args.others.iter().map(|path| File::read(path)).collect::<Result<Vec<_>>>()?;
    match table(&ours, &others) {
        Some(text) => {
            print!("{text}");
            Ok(Exit::Done)
        }
        None => {
            eprintln!("xtask: no case has both a row of ours and one of others");
            Ok(Exit::Unusable)
        }
    }
}

/// The times of one op at one shape.
#[derive(Default)]
struct Case {
    /// Variant and time of the fastest of ours.
    ours: Option<(String, f64)>,
    others: BTreeMap<String, f64>,
}

/// One line per case that both sides have; `None` without any.
fn table(ours: &File, others: &[File]) -> Option<String> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for (nth, file) in std::iter::once(ours).chain(others).enumerate() {
        for (id, rounds) in &file.rows {
            let Some((name, backend, who)) = parts(id) else { continue };
            let Some(ns) = quantile(rounds.iter().map(|row: &Row| row.median_ns).collect(), 0.5) else { continue };
            let case = cases.entry(name).or_default();
            match backend {
                "cpu" if nth > 0 => {}
                // The plain loop is there to be right.
                "cpu" if who == "plain" => {}
                "cpu" if case.ours.as_ref().is_some_and(|(_, least)| *least <= ns) => {}
                "cpu" => case.ours = Some((who.to_owned(), ns)),
                _ => {
                    case.others.insert(who.to_owned(), ns);
                }
            }
        }
    }
    cases.retain(|_, case| case.ours.is_some() && !case.others.is_empty());
    let columns: BTreeSet<&String> = cases.values().flat_map(|case| case.others.keys()).collect();
    let mut text = String::from("| case | ours |");
    columns.iter().for_each(|column| text += &format!(" {column} |"));
    text += " best other / ours |\n|---|---|";
    columns.iter().for_each(|_| text += "---|");
    text += "---|\n";
    for (name, case) in &cases {
        let (variant, ns) = case.ours.as_ref()?;
        text += &format!("| {name} | {} ({variant}) |", time(*ns));
        for column in &columns {
            text += &case.others.get(*column).map_or(" |".to_owned(), |ns| format!(" {} |", time(*ns)));
        }
        let (best, least) = case.others.iter().min_by(|a, b| a.1.total_cmp(b.1))?;
        text += &format!(" {:.2} ({best}) |\n", least / ns);
    }
    (!cases.is_empty()).then_some(text)
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
        let text = table(&ours, &[peers]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| case | ours | faer | torch_csr | best other / ours |");
        assert_eq!(lines[2..], ["| gemm r1_o2 | 20.0 ns (tiles_avx2) | 50.0 ns | 30.0 ns | 1.50 (torch_csr) |"]);
    }

    #[test]
    fn nothing_in_common_is_no_table() {
        assert!(table(&file(&[("gemm/cpu_f32_a/r1", 1.0)]), &[file(&[("gemm/peer_f32_b/r2", 1.0)])]).is_none());
        assert!(parts("gemm/cpu/r1").is_none() && parts("gemm").is_none());
        assert_eq!(parts("gemm/cpu_bf16_a/r1_d50").unwrap().0, "gemm r1_d50 bf16");
    }
}
