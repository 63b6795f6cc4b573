//! The program of a revision, built in a worktree of its own, and that of the working tree.

use super::shell;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "tsn-affinity";

/// The program of a revision. The inner error says why there is no baseline: no such revision, or its program has no
/// command `profile`.
///
/// # Errors
/// If git or the build fails.
pub(super) fn base(root: &Path, rev: &str) -> Result<Result<PathBuf, String>> {
    let commit = git(root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{rev}^{{commit}}")])?;
    let Some(commit) = commit else { return Ok(Err(format!("{rev} is not a revision"))) };
    let tree = root.join("target/gate").join(&commit);
    if !tree.join("Cargo.toml").is_file() {
        // Forgets worktrees whose folders are gone, as after cargo clean.
        git(root, &["worktree", "prune"])?;
        let path = tree.to_str().with_context(|| format!("{} is not UTF-8", tree.display()))?;
        let made = git(root, &["worktree", "add", "--quiet", "--detach", "--force", path, &commit])?;
        ensure!(made.is_some(), "git worktree add {path} {commit} failed");
    }
    let program = build(&tree)?;
    let has = Command::new(&program).args(["profile", "--help"]).output().with_context(|| format!("{program:?}"))?;
    Ok(match has.status.success() {
        true => Ok(program),
        false => Err(format!("{PROGRAM} of {rev} ({commit}) has no command profile")),
    })
}

/// The program as it is now.
///
/// # Errors
/// If the build fails.
pub(super) fn working_tree(root: &Path) -> Result<PathBuf> {
    build(root)
}

/// Builds in the tree's own target folder, so that the programs of two revisions stay apart.
fn build(tree: &Path) -> Result<PathBuf> {
    let target = tree.join("target");
    eprintln!("building {PROGRAM} in {}", tree.display());
    let fixed = ["build", "--release", "--quiet", "--locked", "-p", PROGRAM, "--target-dir"];
    shell(Command::new("cargo").args(fixed).arg(&target).current_dir(tree))?;
    Ok(target.join("release").join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX)))
}

/// What git prints; `None` if it fails.
fn git(root: &Path, args: &[&str]) -> Result<Option<String>> {
    let out = Command::new("git").args(args).current_dir(root).output().context("git")?;
    Ok(out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_revision_is_no_baseline() {
        let root = crate::root();
        for rev in ["no-such-revision", "--help", ""] {
            let why = base(&root, rev).unwrap().unwrap_err();
            assert_eq!(why, format!("{rev} is not a revision"));
        }
    }
}
