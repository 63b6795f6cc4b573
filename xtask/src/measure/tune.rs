//! `cargo xtask tune`: the crossover table of this machine, from the example `tune` of the benches.
//!
//! The table is JSON for review, with the machine and a hash of the kernels it was measured with; `--ship` makes it the
//! one in the source.

use crate::measure::Exit;
use anyhow::{Context, Result, ensure};
use clap::Args;
use kernels::crossover::KERNEL_HASH;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The table in the source.
const SHIPPED: &str = "kernels/src/crossover/shipped.rs";

/// Where the table goes.
#[derive(Args)]
pub(crate) struct Tune {
    /// Writes the table to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also makes it the default of the kernels
    #[arg(long)]
    ship: bool,
}

/// Runs the task.
///
/// # Errors
/// A benchmark that does not build or run, or a file that cannot be written.
pub(crate) fn run(root: &Path, args: &Tune) -> Result<Exit> {
    let fresh = args.out.as_ref().filter(|path| !path.exists());
    if let Some(path) = &args.out {
        // Before minutes of measuring, which would be lost.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("--out {}", path.display()))?;
    }
    let table = measured(root).inspect_err(|_| {
        // Nothing is left of a file that stayed empty; that it stays, if it cannot be removed, is less than the cause.
        fresh.map(std::fs::remove_file);
    })?;
    let text = serde_json::to_string_pretty(&table)? + "\n";
    match &args.out {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string())?,
        None => print!("{text}"),
    }
    if args.ship {
        std::fs::write(root.join(SHIPPED), shipped(&table)?).context(SHIPPED)?;
        println!("{SHIPPED} rewritten");
    }
    Ok(Exit::Done)
}

/// What the example measures.
fn measured(root: &Path) -> Result<Value> {
    let line = ["run", "--release", "--quiet", "--locked", "-p", "tsn-benches", "--example", "tune"];
    let out = Command::new("cargo").args(line).current_dir(root).output().context("cargo run")?;
    ensure!(out.status.success(), "the example tune: {}", String::from_utf8_lossy(&out.stderr).trim());
    table(std::str::from_utf8(&out.stdout)?, KERNEL_HASH)
}

/// The example's lines as one object.
fn table(lines: &str, hash: u64) -> Result<Value> {
    let (mut machine, mut entries) = (Value::Null, Vec::new());
    for line in lines.lines() {
        let mut json: Value = serde_json::from_str(line).context("the example tune")?;
        let fields = json.as_object_mut().context("a line that is no object")?;
        fields.remove("schema");
        match fields.remove("reason").as_ref().and_then(Value::as_str) {
            Some("fingerprint") => machine = json,
            Some("crossover") => entries.push(json),
            other => anyhow::bail!("the example tune prints {other:?}"),
        }
    }
    ensure!(!entries.is_empty(), "the example tune prints no entry");
    Ok(json!({"schema": 1, "machine": machine, "kernel_hash": format!("{hash:016x}"), "entries": entries}))
}

/// The table as Rust.
fn shipped(table: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a table without names");
    let cpu = text(&table["machine"]["cpu_model"])?;
    let (cores, hash) = (&table["machine"]["cores"], text(&table["kernel_hash"])?);
    let mut source = format!(
        "//! Measured on {cpu}, {cores} cores, kernels {hash} (`cargo xtask tune --ship` rewrites this file).\n\n\
         use super::Entry;\nuse crate::simd::Isa;\n\nconst ANY: usize = usize::MAX;\n\n\
         pub(super) const ENTRIES: &[Entry] = &[\n"
    );
    for entry in table["entries"].as_array().context("a table without entries")? {
        let isa = match entry["isa"].as_str() {
            Some("scalar") => "Scalar",
            Some("avx2") => "Avx2",
            Some("avx512") => "Avx512",
            Some("amx") => "Amx",
            Some("neon") => "Neon",
            other => anyhow::bail!("unknown instruction set {other:?}"),
        };
        let bound = |key: &str| entry[key].as_u64().map_or("ANY".to_owned(), |n| n.to_string());
        let keep = entry["lists_below_keep"].as_f64().filter(|x| (0.0..=1.0).contains(x)).context("a bad density")?;
        source += &format!(
            "    entry({:?}, Isa::{isa}, {}, {}, {keep:?}),\n",
            text(&entry["op"])?,
            bound("rows_up_to"),
            bound("width_up_to")
        );
    }
    source += "];\n\nconst fn entry(op: &'static str, isa: Isa, rows_up_to: usize, width_up_to: usize, \
               lists_below_keep: f32) -> Entry {\n    Entry { op, isa, rows_up_to, width_up_to, lists_below_keep }\n}\n";
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"schema":1,"reason":"fingerprint","cpu_model":"a cpu","cores":2}
{"schema":1,"reason":"crossover","op":"masked_gemm","isa":"avx2","rows_up_to":16,"width_up_to":null,"lists_below_keep":0.5}"#;

    #[test]
    fn the_table_becomes_rust() {
        let table = table(LINES, 255).unwrap();
        assert_eq!((&table["kernel_hash"], &table["machine"]["cores"]), (&json!("00000000000000ff"), &json!(2)));
        let source = shipped(&table).unwrap();
        assert!(source.contains("    entry(\"masked_gemm\", Isa::Avx2, 16, ANY, 0.5),\n"), "{source}");
        assert!(source.starts_with("//! Measured on a cpu, 2 cores, kernels 00000000000000ff"));
    }

    #[test]
    fn the_generated_source_looks_like_the_one_in_the_tree() {
        let tree = std::fs::read_to_string(crate::root().join(SHIPPED)).unwrap();
        let ends = |source: &str| {
            let (head, rest) = source.split_once("= &[\n").unwrap();
            let (_, tail) = rest.split_once("];\n").unwrap();
            (head.split_once('\n').unwrap().1.to_owned(), tail.to_owned())
        };
        assert_eq!(ends(&shipped(&table(LINES, 0).unwrap()).unwrap()), ends(&tree));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(table("", 0).is_err() && table("x", 0).is_err());
        assert!(table(r#"{"schema":1,"reason":"other"}"#, 0).is_err());
        assert!(shipped(&table(&LINES.replace("0.5", "1.5"), 0).unwrap()).is_err());
        assert!(shipped(&table(&LINES.replace("avx2", "mmx"), 0).unwrap()).is_err());
    }
}
