//! Files stay readable in one go. Tests at the end of a file are not counted.

use crate::scan::File;

const LONG: usize = 500;
const TOO_LONG: usize = 800;

/// Warnings and complaints about long files.
pub(crate) fn check(files: &[File]) -> (Vec<String>, Vec<String>) {
    let (mut long, mut too_long) = (Vec::new(), Vec::new());
    for File { path, text } in files {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        match lines {
            n if n > TOO_LONG => too_long.push(format!("{path}: {n} lines of code, at most {TOO_LONG}")),
            n if n > LONG => long.push(format!("{path}: {n} lines of code; past {LONG} a file is two ideas")),
            _ => {}
        }
    }
    (long, too_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(code: usize, tests: usize) -> (usize, usize) {
        let text = format!("{}#[cfg(test)]\n{}", "a\n".repeat(code), "b\n".repeat(tests));
        let (long, too_long) = check(&[File { path: "a.rs".into(), text }]);
        (long.len(), too_long.len())
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(counts(LONG, 400), (0, 0));
        assert_eq!(counts(LONG + 1, 0), (1, 0));
        assert_eq!(counts(TOO_LONG + 1, 0), (0, 1));
    }
}
