//! Source text without what is not code, and the list of files git knows.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracked or new file that git does not ignore.
pub(crate) struct File {
    /// Path from the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All text files of the given endings, in path order.
pub(crate) fn files(root: &Path, endings: &[&str]) -> Result<Vec<File>> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    ensure!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr).trim());
    let mut paths: Vec<String> = String::from_utf8(out.stdout)?.lines().map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    let wanted = |path: &String| endings.iter().any(|ending| path.ends_with(ending));
    let mut files = Vec::new();
    for path in paths.into_iter().filter(wanted) {
        let full: PathBuf = root.join(&path);
        // Deleted but not yet committed.
        if full.is_file() {
            let text = std::fs::read_to_string(&full).with_context(|| path.clone())?;
            files.push(File { path, text });
        }
    }
    Ok(files)
}

/// Rust source with comments and the contents of string and char literals blanked; lines stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// End of the comment or literal that begins at `at`; `at` itself if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied();
    let find = |from: usize, what: &[char]| {
        (from..chars.len()).find(|&i| chars[i..].starts_with(what)).map_or(chars.len(), |i| i + what.len())
    };
    match (chars[at], next(1)) {
        ('/', Some('/')) => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        ('/', Some('*')) => find(at + 2, &['*', '/']),
        ('r', Some('"' | '#')) if at == 0 || !is_word(chars[at - 1]) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if next(1 + hashes) != Some('"') {
                return at; // a raw identifier
            }
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            find(at + 2 + hashes, &close)
        }
        ('"', _) => quoted(chars, at, '"'),
        // A lifetime has no closing quote where a char literal has one.
        ('\'', Some('\\')) => quoted(chars, at, '\''),
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Identifiers and keywords in order.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_word(c)).filter(|w| !w.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_remains() {
        let source = "let a = \"unsafe \\\" {\"; // unsafe\nlet b = 'x'; /* unsafe\n */ r#\"unsafe \"\"#; fn f<'a>() { unsafe {} }";
        let code = code_only(source);
        assert_eq!(words(&code).filter(|w| *w == "unsafe").count(), 1);
        assert_eq!(code.lines().count(), source.lines().count());
        assert!(code.contains("fn f<'a>() { unsafe {} }"));
    }
}
