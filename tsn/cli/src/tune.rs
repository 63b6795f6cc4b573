//! A crossover table from a file, as `cargo xtask tune` writes it.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use tsn::dt::autograd::engine::kernels::crossover::{Entry, KERNEL_HASH};
use tsn::dt::autograd::engine::kernels::{Crossover, Isa};

/// Version of the file.
const SCHEMA: u32 = 1;
/// Longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// The file. A run keeps it in `config.json`, because another table gives other bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    schema: u32,
    machine: Machine,
    kernel_hash: String,
    entries: Vec<Line>,
}

/// Where it was measured; other fields are for readers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Machine {
    cpu_model: String,
    isa: String,
}

/// A shape class; no bound is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    op: String,
    isa: String,
    rows_up_to: Option<usize>,
    width_up_to: Option<usize>,
    lists_below_keep: f32,
}

/// [`KERNEL_HASH`] as files hold it.
pub(crate) fn kernel_hash() -> String {
    format!("{KERNEL_HASH:016x}")
}

impl Table {
    /// Reads a table that this program can use.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Table> {
        let mut text = String::new();
        let cannot = || format!("cannot read {}", path.display());
        File::open(path).with_context(cannot)?.take(LONGEST + 1).read_to_string(&mut text).with_context(cannot)?;
        ensure!(text.len() as u64 <= LONGEST, "{}: over {LONGEST} bytes, no crossover table", path.display());
        let table: Table =
            serde_json::from_str(&text).with_context(|| format!("{}: no crossover table", path.display()))?;
        table.crossover().with_context(|| path.display().to_string())?;
        Ok(table)
    }

    /// The table for this program's kernels on this CPU.
    ///
    /// # Errors
    /// A table of other kernels or another instruction set, or an entry that makes no sense.
    pub(crate) fn crossover(&self) -> Result<Crossover> {
        ensure!(self.schema == SCHEMA, "schema is {}, expected {SCHEMA}", self.schema);
        let (own, isa) = (kernel_hash(), Isa::detect().name());
        if self.kernel_hash != own {
            bail!(
                "kernel_hash is {}, but this program's is {own}: measure again with cargo xtask tune",
                self.kernel_hash
            );
        }
        if self.machine.isa != isa {
            bail!(
                "it was measured with {}, but this CPU has {isa}: measure here with cargo xtask tune",
                self.machine.isa
            );
        }
        ensure!(!self.entries.is_empty(), "it has no entries");
        let entry = |(at, line): (usize, &Line)| line.entry().with_context(|| format!("entry {at}"));
        Ok(Crossover::new(self.entries.iter().enumerate().map(entry).collect::<Result<_>>()?))
    }
}

impl Line {
    fn entry(&self) -> Result<Entry> {
        let op = Crossover::SHIPPED.entries().iter().map(|e| e.op).find(|op| *op == self.op);
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == self.isa);
        let keep = self.lists_below_keep;
        ensure!((0.0..=1.0).contains(&keep), "lists_below_keep is {keep}, outside 0..=1");
        Ok(Entry {
            op: op.with_context(|| format!("op `{}` has no crossover", self.op))?,
            isa: isa.with_context(|| format!("no instruction set `{}`", self.isa))?,
            rows_up_to: self.rows_up_to.unwrap_or(usize::MAX),
            width_up_to: self.width_up_to.unwrap_or(usize::MAX),
            lists_below_keep: keep,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(isa: &str, hash: &str) -> String {
        let machine = format!(r#"{{"cpu_model":"a","isa":"{isa}","cores":2}}"#);
        let entry = r#"{"op":"masked_gemm","isa":"scalar","rows_up_to":16,"width_up_to":null,"lists_below_keep":0.25}"#;
        format!(r#"{{"schema":1,"machine":{machine},"kernel_hash":"{hash}","entries":[{entry}]}}"#)
    }

    fn fault(text: &str) -> String {
        format!("{:#}", serde_json::from_str::<Table>(text).expect("JSON of a table").crossover().unwrap_err())
    }

    #[test]
    fn a_table_of_these_kernels_is_used() {
        let good = text(Isa::detect().name(), &kernel_hash());
        let table: Table = serde_json::from_str(&good).expect("a table");
        let crossover = table.crossover().expect("of this program");
        assert_eq!(crossover.lists_below_keep("masked_gemm", Isa::Scalar, 16, 1 << 40), 0.25);
        assert_eq!(crossover.lists_below_keep("masked_gemm", Isa::Scalar, 17, 1), 0.0);
        let again = serde_json::to_string(&table).expect("JSON");
        assert_eq!(serde_json::from_str::<Table>(&again).expect("a table"), table);
    }

    #[test]
    fn other_tables_say_why_not() {
        let isa = Isa::detect().name();
        assert!(fault(&text(isa, "00")).contains("kernel_hash is 00, but"));
        assert!(fault(&text("sse9", &kernel_hash())).contains("measured with sse9"));
        let good = text(isa, &kernel_hash());
        assert!(fault(&good.replace(":0.25", ":1.25")).contains("entry 0: lists_below_keep is 1.25"));
        assert!(fault(&good.replace("\"masked_gemm\"", "\"gelu\"")).contains("op `gelu`"));
        assert!(fault(&good.replace("\"scalar\",\"rows", "\"mmx\",\"rows")).contains("no instruction set `mmx`"));
        assert!(fault(&good.replace("\"schema\":1", "\"schema\":2")).contains("schema is 2"));
    }

    #[test]
    fn every_truncation_is_refused() {
        let good = text(Isa::detect().name(), &kernel_hash());
        (0..good.len()).for_each(|n| assert!(serde_json::from_str::<Table>(&good[..n]).is_err(), "{n}"));
    }
}
