//! The table of results in README.md, gathered from the files that hold the measurements.
//!
//! A file of `benches/results` that shows a claim has a section `## Claims` with a table of three columns: the claim, its
//! bar, and what was seen. README.md repeats these rows with a link, so no figure is typed twice.

use crate::scan::File;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;

const SECTION: &str = "## Claims";

/// The rows of all files, in the order given.
///
/// # Errors
/// Names the file and the line that is no row of three cells.
pub(crate) fn render<'a>(files: impl Iterator<Item = &'a File>) -> Result<String> {
    let mut table = String::from("| claim | bar | seen | file |\n|---|---|---|---|\n");
    for File { path, text } in files {
        let name = path.rsplit('/').next().unwrap_or(path);
        for [claim, bar, seen] in rows(text).with_context(|| path.clone())? {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| {claim} | {bar} | {seen} | [{name}]({path}) |");
        }
    }
    Ok(table)
}

fn rows(text: &str) -> Result<Vec<[&str; 3]>> {
    let section = text.lines().skip_while(|line| *line != SECTION).skip(1).take_while(|line| !line.starts_with('#'));
    let table = section.filter(|line| line.starts_with('|')).skip(2);
    table
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            ensure!(cells.len() == 3 && !cells.contains(&""), "a claim has three cells, found: {line}");
            Ok([cells[0], cells[1], cells[2]])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String> {
        render([File { path: "benches/results/a.md".into(), text: text.into() }].iter())
    }

    #[test]
    fn rows_are_those_of_the_section() {
        let text = "# A\n| x | y |\n|---|---|\n| 1 | 2 |\n\n## Claims\n\n| claim | bar | seen |\n|---|---|---|\n| none lost | 0 | 0 of 3 |\n\n## More\n| a | b | c |\n|-|-|-|\n| 1 | 2 | 3 |\n";
        let table = of(text).unwrap();
        assert_eq!(table.lines().nth(2), Some("| none lost | 0 | 0 of 3 | [a.md](benches/results/a.md) |"));
        assert_eq!(table.lines().count(), 3);
        assert_eq!(of("# no claims\n").unwrap().lines().count(), 2);
    }

    #[test]
    fn a_row_that_lacks_a_cell_is_named() {
        for row in ["| only | two |", "| a | | c |", "| a | b | c | d |"] {
            let text = format!("## Claims\n| claim | bar | seen |\n|---|---|---|\n{row}\n");
            let error = format!("{:#}", of(&text).unwrap_err());
            assert!(error.contains("benches/results/a.md") && error.contains(row), "{error}");
        }
    }
}
