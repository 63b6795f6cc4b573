//! `cargo xtask compare`: two files of measurements, row by row.

use crate::measure::Exit;
use crate::measure::file::File;
use crate::measure::rule::{Judged, Rule, Verdict};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Two files.
#[derive(Args)]
pub(crate) struct Compare {
    /// The base: one JSON object per line; repeated ids are rounds
    base: PathBuf,
    /// What is compared with it; its rounds pair with those of the base in order
    new: PathBuf,
    /// Compare although the machines differ
    #[arg(long)]
    cross_machine: bool,
    /// Relative change that matters
    #[arg(long, value_name = "SHARE", default_value_t = Rule::default().threshold, value_parser = share)]
    threshold: f64,
    /// Also write one JSON object per row to a file, or nothing else to stdout for -
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A share of the whole, such as 0.05.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if (0.0..1.0).contains(&x) => Ok(x),
        Ok(x) => Err(format!("{x} is outside 0..1")),
        Err(_) => Err(format!("{text} is not a number")),
    }
}

/// Runs the task.
///
/// # Errors
/// A file that cannot be read or written, or other machines without leave.
pub(crate) fn run(args: &Compare) -> Result<Exit> {
    let (base, new) = (File::read(&args.base)?, File::read(&args.new)?);
    if !args.cross_machine {
        for (path, file) in [(&args.base, &base), (&args.new, &new)] {
            ensure!(
                !file.machines.is_empty(),
                "{}: no line with a fingerprint, as `profile --json` begins",
                path.display()
            );
        }
        one_machine(&base, &new)?;
    }
    let rule = Rule { threshold: args.threshold, ..Rule::default() };
    let comparison = Comparison::new(&base, &new, &rule);
    comparison.deliver(args.json.as_deref())?;
    if comparison.rows.is_empty() {
        eprintln!("xtask: {} and {} have no row in common", args.base.display(), args.new.display());
        return Ok(Exit::Unusable);
    }
    Ok(Exit::Done)
}

/// Refuses files that are not of one and the same machine.
fn one_machine(base: &File, new: &File) -> Result<()> {
    match (&base.machines[..], &new.machines[..]) {
        ([a], [b]) if a == b => Ok(()),
        ([a], [b]) => {
            bail!("the files are of different machines; use --cross-machine to compare anyway\n  base {a}\n  new  {b}")
        }
        (a, b) => bail!(
            "the files name {} and {} machines, expected one each; use --cross-machine to compare anyway",
            a.len(),
            b.len()
        ),
    }
}

/// All rows of two sides.
#[derive(Clone, Default)]
pub(crate) struct Comparison {
    pub(crate) rows: BTreeMap<String, Judged>,
    only_base: Vec<String>,
    only_new: Vec<String>,
    failed: Vec<String>,
}

impl Comparison {
    /// Pairs the rounds of equal ids in order; rounds that one side lacks are left out.
    pub(crate) fn new(base: &File, new: &File, rule: &Rule) -> Comparison {
        let mut rows = BTreeMap::new();
        for (id, olds) in &base.rows {
            let Some(news) = new.rows.get(id) else { continue };
            let pairs: Vec<_> = olds.iter().zip(news).map(|(a, b)| (a.p20_ns, b.p20_ns)).collect();
            rows.extend(rule.judge(&pairs).map(|judged| (id.clone(), judged)));
        }
        let only = |one: &File, other: &File| {
            one.rows.keys().filter(|id| !other.rows.contains_key(*id)).cloned().collect::<Vec<_>>()
        };
        let failures = |side: &str, file: &File| {
            file.failed.iter().map(|(id, why)| format!("{side} {id}: {why}")).collect::<Vec<_>>()
        };
        let failed = [failures("base", base), failures("new", new)].concat();
        Comparison { rows, only_base: only(base, new), only_new: only(new, base), failed }
    }

    /// Prints the table and writes the lines to a file, or prints the lines alone for `-`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn deliver(&self, json: Option<&Path>) -> Result<()> {
        if json == Some(Path::new("-")) {
            print!("{}", self.json_lines());
            return Ok(());
        }
        print!("{}", self.table());
        match json {
            Some(path) => std::fs::write(path, self.json_lines()).with_context(|| path.display().to_string()),
            None => Ok(()),
        }
    }

    /// How many rows have a verdict.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.rows.values().filter(|row| row.verdict == verdict).count()
    }

    /// For the terminal: aligned columns, then what is not in both.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0).max(2);
        let mut out = String::new();
        if !self.rows.is_empty() {
            out += &format!(
                "{:<width$}  {:>10}  {:>10}  {:>6}  {:<14}  {:>6}  {:>6}  verdict\n",
                "id", "base", "new", "ratio", "95 %", "spread", "rounds"
            );
        }
        for (id, row) in &self.rows {
            let interval = row.interval.map_or("-".into(), |(low, high)| format!("{low:.3}..{high:.3}"));
            let spread = row.spread.map_or("-".into(), |s| format!("{:.1} %", 100.0 * s));
            out += &format!(
                "{id:<width$}  {:>10}  {:>10}  {:>6.3}  {interval:<14}  {spread:>6}  {:>6}  {}\n",
                time(row.base_ns),
                time(row.new_ns),
                row.ratio,
                row.rounds,
                row.verdict
            );
        }
        let lists =
            [("only in base", &self.only_base), ("only in new", &self.only_new), ("without numbers", &self.failed)];
        for (title, lines) in lists.iter().filter(|(_, lines)| !lines.is_empty()) {
            out += &format!("{title}:\n");
            lines.iter().for_each(|line| out += &format!("  {line}\n"));
        }
        out
    }

    /// One object per row.
    pub(crate) fn json_lines(&self) -> String {
        let line = |(id, row): (&String, &Judged)| {
            let json = json!({
                "schema": 1, "reason": "comparison", "id": id, "rounds": row.rounds, "unit": "ns",
                "base": row.base_ns, "new": row.new_ns, "ratio": row.ratio,
                "lower_bound": row.interval.map(|i| i.0), "upper_bound": row.interval.map(|i| i.1),
                "rel_stdev": row.spread, "verdict": row.verdict.to_string(),
            });
            format!("{json}\n")
        };
        self.rows.iter().map(line).collect()
    }
}

/// A time with three or four digits and a unit.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::file::tests::{MACHINE, row};

    fn file(lines: &[String]) -> File {
        File::parse(&lines.join("\n")).unwrap()
    }

    fn rounds(id: &str, times: &[f64]) -> Vec<String> {
        times.iter().map(|ns| row(id, *ns)).collect()
    }

    #[test]
    fn rounds_pair_in_order() {
        // Each pair differs by 10 % while the machine drifts by 60 %; the round without a partner is left out.
        let base = file(&rounds("a", &[100.0, 130.0, 160.0]));
        let new = file(&rounds("a", &[110.0, 143.0, 176.0, 9.0]));
        let found = Comparison::new(&base, &new, &Rule::default());
        let judged = found.rows["a"];
        assert_eq!((judged.rounds, judged.verdict), (3, Verdict::Slower));
        assert!((judged.ratio - 1.1).abs() < 1e-9 && judged.spread.unwrap() < 1e-6);
        assert_eq!((found.count(Verdict::Slower), found.count(Verdict::Same)), (1, 0));
    }

    #[test]
    fn what_is_on_one_side_is_listed() {
        let failed = r#"{"schema":1,"reason":"benchmark-failed","id":"f","why":"no device"}"#.to_owned();
        let (base, new) = (file(&[row("a", 1.0), row("b", 1.0)]), file(&[row("b", 1.0), row("c", 1.0), failed]));
        let found = Comparison::new(&base, &new, &Rule::default());
        assert_eq!((found.only_base, found.only_new), (vec!["a".to_owned()], vec!["c".to_owned()]));
        assert_eq!(found.failed, ["new f: no device"]);
        assert_eq!(found.rows.len(), 1);
    }

    #[test]
    fn other_machines_are_refused() {
        let (here, there) = (file(&[MACHINE.into()]), file(&[MACHINE.replace("\"a\"", "\"b\"")]));
        assert!(one_machine(&here, &here).is_ok());
        let error = one_machine(&here, &there).unwrap_err().to_string();
        assert!(error.contains("--cross-machine") && error.contains(r#""cpu_model":"b""#), "{error}");
        assert!(one_machine(&here, &file(&[])).unwrap_err().to_string().contains("1 and 0 machines"));
    }

    #[test]
    fn the_table_and_the_lines_carry_the_verdict() {
        let (base, new) = (file(&rounds("a", &[1.5e3; 3])), file(&rounds("a", &[3e3, 3.001e3, 2.999e3])));
        let found = Comparison::new(&base, &new, &Rule::default());
        assert!(
            found.table().contains("1.50 us") && found.table().contains("2.000") && found.table().contains("slower")
        );
        let json: serde_json::Value = serde_json::from_str(found.json_lines().trim()).unwrap();
        assert_eq!((json["verdict"].as_str(), json["rounds"].as_u64()), (Some("slower"), Some(3)));
    }

    #[test]
    fn a_run_says_by_its_exit_code_that_nothing_is_in_common() {
        let folder = std::env::temp_dir().join(format!("xtask-compare-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, id: &str| {
            let path = folder.join(name);
            std::fs::write(&path, format!("{MACHINE}\n{}\n", row(id, 1.0))).unwrap();
            path
        };
        let (a, b, json) = (write("a", "x"), write("b", "y"), folder.join("json"));
        let args = |base: &PathBuf, new: &PathBuf| Compare {
            base: base.clone(),
            new: new.clone(),
            cross_machine: false,
            threshold: 0.05,
            json: Some(json.clone()),
        };
        assert_eq!(run(&args(&a, &b)).unwrap(), Exit::Unusable);
        assert_eq!(run(&args(&a, &a)).unwrap(), Exit::Done);
        assert!(std::fs::read_to_string(&json).unwrap().contains("\"verdict\":\"unusable\""));
        assert!(run(&args(&a, &folder.join("none"))).unwrap_err().to_string().contains("none"));
        std::fs::write(folder.join("empty"), "").unwrap();
        let error = run(&args(&a, &folder.join("empty"))).unwrap_err().to_string();
        assert!(error.contains("empty: no line with a fingerprint"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn shares_are_below_one() {
        assert_eq!(share("0.05"), Ok(0.05));
        assert!(share("5").is_err() && share("nan").is_err() && share("x").is_err());
    }
}
