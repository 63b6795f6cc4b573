//! `cargo xtask ci`: what has to hold before a change is handed in.

use crate::tidy;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

const TEST_BEGIN: &str = "<!-- test:begin -->";
const TEST_END: &str = "<!-- test:end -->";

pub(crate) fn run(root: &Path) -> Result<()> {
    let readme = std::fs::read_to_string(root.join("README.md")).context("README.md")?;
    let test = test_command(&readme)?;
    shell(root, "cargo fmt --all --check")?;
    shell(root, "cargo clippy --workspace --all-targets -- -D warnings")?;
    tidy::run(root, false)?;
    shell(root, test)
}

/// The one line of the fenced block between the markers.
fn test_command(readme: &str) -> Result<&str> {
    let block = readme.split_once(TEST_BEGIN).and_then(|(_, rest)| rest.split_once(TEST_END));
    let Some((block, _)) = block else { bail!("README.md has no block between {TEST_BEGIN} and {TEST_END}") };
    let lines: Vec<&str> =
        block.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("```")).collect();
    match lines[..] {
        [one] => Ok(one),
        _ => bail!("README.md has {} test commands between its markers, expected 1", lines.len()),
    }
}

fn shell(root: &Path, line: &str) -> Result<()> {
    println!("+ {line}");
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let status = Command::new(program).args(words).current_dir(root).status().with_context(|| line.to_owned())?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_command_is_the_line_between_the_markers() {
        let readme = format!("text\n{TEST_BEGIN}\n```sh\ncargo test --workspace\n```\n{TEST_END}\nmore");
        assert_eq!(test_command(&readme).unwrap(), "cargo test --workspace");
        assert!(test_command("cargo test").is_err());
        assert!(test_command(&format!("{TEST_BEGIN}\na\nb\n{TEST_END}")).is_err());
    }
}
