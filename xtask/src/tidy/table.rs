//! Generated tables in README.md; that of ops is made from the list.

use anyhow::{Context, Result};
use kernels::Contract;
use std::fmt::Write;

/// One row for each op; a pipe in a formula must not end its cell.
pub(crate) fn render(ops: &[&Contract]) -> String {
    let mut table = String::from("| op | formula | cpu | cuda | wgsl |\n|---|---|---|---|---|\n");
    let names = |list: Vec<&str>| if list.is_empty() { "-".to_owned() } else { list.join(", ") };
    for op in ops {
        let formula = op.formula.replace('|', "\\|");
        let cpu = names(op.cpu.iter().map(|v| v.name).collect());
        let cuda = names(op.cuda.iter().map(|s| s.name).collect());
        let wgsl = names(op.wgsl.iter().map(|s| s.name).collect());
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {} | `{formula}` | {cpu} | {cuda} | {wgsl} |", op.name);
    }
    table
}

/// The text with the table between the markers `<!-- name:begin -->` and `<!-- name:end -->` replaced.
pub(crate) fn insert(readme: &str, name: &str, table: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|side| format!("<!-- {name}:{side} -->"));
    let (before, rest) = readme.split_once(&begin).with_context(|| format!("README.md has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("README.md has no {end}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_has_a_row_and_pipes_are_escaped() {
        let table = render(kernels::OPS);
        assert_eq!(table.lines().count(), 2 + kernels::OPS.len());
        for (line, op) in table.lines().skip(2).zip(kernels::OPS) {
            assert!(line.starts_with(&format!("| {} |", op.name)), "{line}");
            assert_eq!(line.replace("\\|", "").matches('|').count(), 6, "{line}");
        }
    }

    #[test]
    fn an_outdated_table_differs_and_a_fresh_one_does_not() {
        let table = render(&kernels::OPS[..2]);
        let old = "# T\n<!-- ops:begin -->\n| op |\n<!-- ops:end -->\nmore\n";
        let new = insert(old, "ops", &table).unwrap();
        assert!(new != old && new.starts_with("# T\n") && new.ends_with("\nmore\n"));
        assert_eq!(insert(&new, "ops", &table).unwrap(), new);
        assert_ne!(insert(&new, "ops", &render(&kernels::OPS[..3])).unwrap(), new);
        assert!(insert("# no markers", "ops", &table).is_err());
    }
}
