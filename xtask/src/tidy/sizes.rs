//! Files stay readable in one go: past 500 lines, tests among them, a file is two ideas.

use crate::scan::File;

const MOST: usize = 500;

/// Complaints about long files.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let lines = files.iter().map(|file| (&file.path, file.text.lines().count()));
    let long = lines.filter(|(_, lines)| *lines > MOST);
    long.map(|(path, lines)| format!("{path}: {lines} lines, at most {MOST}: split it by idea")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        let file = |path: &str, text: String| File { path: path.into(), text };
        let tests = format!("{}#[cfg(test)]\n{}", "a\n".repeat(400), "b\n".repeat(100));
        let files = [file("short.rs", "a\n".repeat(500)), file("with_tests.rs", tests)];
        assert_eq!(check(&files), ["with_tests.rs: 501 lines, at most 500: split it by idea"]);
    }
}
