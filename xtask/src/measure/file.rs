//! The files of measurements: one JSON object per line, every object with `"schema":1`.
//!
//! `reason` tells the lines apart: `fingerprint` (machine, revision), `benchmark-complete` (a row) and
//! `benchmark-failed` (a row without numbers, with `why`). Other reasons are for other readers. A file may hold several
//! rounds: the second row of an id is its second round. Field names are those of cargo-criterion's messages.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the format.
const SCHEMA: u64 = 1;
/// Parts of a fingerprint that tell machines apart; the rest is revision, date, load and measured ceilings.
const MACHINE: &[&str] = &["cpu_model", "cpu_features", "isa", "cores", "caches", "os", "arch", "gpu", "driver"];

/// One row of one round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Time that a fifth of the samples stay below, in ns per call: noise of a shared machine only adds.
    pub(crate) p20_ns: f64,
    /// Half of the samples stay below; `p20_ns` if the row does not say.
    pub(crate) median_ns: f64,
}

/// What is known about all rounds of one or more files.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// What tells machines apart, of every fingerprint. Usually one.
    pub(crate) machines: Vec<Value>,
    /// Rounds of every id, in order.
    pub(crate) rows: BTreeMap<String, Vec<Row>>,
    /// Reasons of rows without numbers.
    pub(crate) failed: BTreeMap<String, String>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file and the line that is not in this format.
    pub(crate) fn read(path: &Path) -> Result<File> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        File::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads lines.
    ///
    /// # Errors
    /// Names the line that is not in this format.
    pub(crate) fn parse(text: &str) -> Result<File> {
        let mut file = File::default();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            file.line(line).with_context(|| format!("line {}", at + 1))?;
        }
        Ok(file)
    }

    /// Appends the rounds of another file.
    pub(crate) fn append(&mut self, later: File) {
        for machine in later.machines {
            self.machine(machine);
        }
        for (id, rounds) in later.rows {
            self.rows.entry(id).or_default().extend(rounds);
        }
        self.failed.extend(later.failed);
    }

    /// Keeps the lesser time of two runs of the same round.
    pub(crate) fn lesser(&mut self, other: File) {
        for (id, rounds) in other.rows {
            let own = self.rows.entry(id).or_default();
            for (at, row) in rounds.into_iter().enumerate() {
                match own.get_mut(at) {
                    Some(least) if least.p20_ns <= row.p20_ns => {}
                    Some(least) => *least = row,
                    None => own.push(row),
                }
            }
        }
        other.machines.into_iter().for_each(|machine| self.machine(machine));
        self.failed.extend(other.failed);
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let json: Value = serde_json::from_str(line)?;
        ensure!(json["schema"] == SCHEMA, "schema is {}, expected {SCHEMA}", json["schema"]);
        let id = || json["id"].as_str().map(str::to_owned).context("a row without id");
        match json["reason"].as_str() {
            Some("fingerprint") => {
                // In an object of its own, or among the other fields of the line.
                let fields = json["machine"].as_object().or(json.as_object());
                let mut machine = fields.cloned().unwrap_or_default();
                machine.retain(|key, _| MACHINE.contains(&key.as_str()));
                ensure!(!machine.is_empty(), "a fingerprint without any of {}", MACHINE.join(", "));
                self.machine(Value::Object(machine));
            }
            Some("benchmark-complete") => {
                let id = id()?;
                let row = Row::parse(&json).with_context(|| id.clone())?;
                self.rows.entry(id).or_default().push(row);
            }
            Some("benchmark-failed") => {
                self.failed.insert(id()?, json["why"].as_str().unwrap_or("no reason given").to_owned());
            }
            Some(_) => {}
            None => bail!("no reason"),
        }
        Ok(())
    }

    fn machine(&mut self, machine: Value) {
        if !self.machines.contains(&machine) {
            self.machines.push(machine);
        }
    }
}

impl Row {
    fn parse(json: &Value) -> Result<Row> {
        let unit = json["unit"].as_str().unwrap_or("ns");
        ensure!(unit == "ns", "unit is {unit}, expected ns");
        let p20_ns = match json["p20_ns"].as_f64() {
            Some(ns) => ns,
            None => quantile(samples(json)?, 0.2).context("neither p20_ns nor samples")?,
        };
        ensure!(p20_ns.is_finite() && p20_ns > 0.0, "p20 is {p20_ns} ns, expected a positive time");
        let median_ns = json["median"]["estimate"].as_f64().filter(|ns| *ns > 0.0).unwrap_or(p20_ns);
        Ok(Row { p20_ns, median_ns })
    }
}

/// Nanoseconds per call of every sample.
fn samples(json: &Value) -> Result<Vec<f64>> {
    let numbers = |key: &str| -> Result<Vec<f64>> {
        let list = json[key].as_array().with_context(|| format!("no {key}"))?;
        list.iter().map(|v| v.as_f64().with_context(|| format!("{key} holds {v}"))).collect()
    };
    let (values, counts) = (numbers("measured_values")?, numbers("iteration_count")?);
    ensure!(values.len() == counts.len(), "{} values for {} iteration counts", values.len(), counts.len());
    ensure!(counts.iter().all(|n| *n > 0.0), "a sample without iterations");
    Ok(values.iter().zip(&counts).map(|(ns, n)| ns / n).collect())
}

/// The value that a share `q` of the values stays at or below; `None` without values.
pub(crate) fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((q * last as f64).round() as usize).copied()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MACHINE: &str = r#"{"schema":1,"reason":"fingerprint","machine":{"cpu_model":"a","load":1.5}}"#;

    pub(crate) fn row(id: &str, p20: f64) -> String {
        format!(r#"{{"schema":1,"reason":"benchmark-complete","id":"{id}","unit":"ns","p20_ns":{p20}}}"#)
    }

    #[test]
    fn rounds_keep_their_order_and_failures_their_reason() {
        let failed = r#"{"schema":1,"reason":"benchmark-failed","id":"c","why":"no device"}"#;
        let other = r#"{"schema":1,"reason":"group-complete"}"#;
        let lines = [MACHINE, &row("a", 2.0), &row("b", 5.0), failed, other, "", MACHINE, &row("a", 3.0)];
        let file = File::parse(&lines.join("\n")).unwrap();
        let times = |id: &str| file.rows[id].iter().map(|r| r.p20_ns).collect::<Vec<_>>();
        assert_eq!((times("a"), times("b")), (vec![2.0, 3.0], vec![5.0]));
        assert_eq!(file.failed["c"], "no device");
        // The load is not part of a machine; two equal fingerprints are one machine.
        assert_eq!(file.machines, [serde_json::json!({"cpu_model": "a"})]);
        let flat = r#"{"schema":1,"reason":"fingerprint","cpu_model":"a","revision":"r"}"#;
        assert_eq!(File::parse(flat).unwrap().machines, file.machines);
    }

    #[test]
    fn the_lesser_of_two_runs_is_a_round() {
        let file = |lines: &[String]| File::parse(&lines.join("\n")).unwrap();
        let mut round = file(&[row("a", 2.0), row("b", 5.0)]);
        round.lesser(file(&[row("a", 3.0), row("b", 4.0), row("c", 1.0)]));
        let times: Vec<f64> = round.rows.values().map(|rounds| rounds[0].p20_ns).collect();
        assert_eq!(times, [2.0, 4.0, 1.0]);
        round.append(file(&[row("a", 7.0)]));
        assert_eq!(round.rows["a"].len(), 2);
    }

    #[test]
    fn samples_stand_in_for_the_quantile() {
        let line = r#"{"schema":1,"reason":"benchmark-complete","id":"a","iteration_count":[2,2,2,2,2,2],
            "measured_values":[10,4,6,8,100,12],"unit":"ns","median":{"estimate":4.5}}"#;
        let file = File::parse(&line.replace('\n', " ")).unwrap();
        assert_eq!(file.rows["a"], [Row { p20_ns: 3.0, median_ns: 4.5 }]);
    }

    #[test]
    fn what_is_not_in_the_format_names_its_line() {
        let fault = |line: &str| format!("{:#}", File::parse(&format!("{MACHINE}\n{line}")).unwrap_err());
        assert!(fault("{").starts_with("line 2"));
        assert!(fault(r#"{"schema":2}"#).contains("schema is 2"));
        assert!(fault(r#"{"schema":1}"#).contains("no reason"));
        assert!(fault(r#"{"schema":1,"reason":"fingerprint"}"#).contains("without any of cpu_model"));
        assert!(fault(&row("a", 0.0)).contains("positive"));
        assert!(fault(&row("a", 1.0).replace("\"ns\"", "\"ms\"")).contains("unit is ms"));
        assert!(fault(&row("a", 1.0).replace("\"id\"", "\"name\"")).contains("without id"));
        let mismatch =
            r#"{"schema":1,"reason":"benchmark-complete","id":"a","iteration_count":[1],"measured_values":[]}"#;
        assert!(fault(mismatch).contains("0 values for 1"));
        assert!(fault(&mismatch.replace("[1]", "[]")).contains("neither"));
    }

    #[test]
    fn quantiles_are_values() {
        assert_eq!(quantile(vec![], 0.5), None);
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 1.0), Some(3.0));
    }
}
