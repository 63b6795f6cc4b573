//! Tells the program what it was built from and with, for the fingerprint of measurements.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // Looking must not write the index: that would count as a change at the next build.
    let git = |args: &[&str]| output("git", &[&["--no-optional-locks"], args].concat());
    let compiler = output(&env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), &["--version"]);
    let revision = git(&["rev-parse", "HEAD"]);
    let dirty = match (&revision, git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(_), Some(changes)) => Some(if changes.is_empty() { "no" } else { "yes" }),
        _ => None,
    };
    let unknown = || "unknown".to_owned();
    println!("cargo::rustc-env=TSN_COMPILER={}", compiler.unwrap_or_else(unknown));
    println!("cargo::rustc-env=TSN_REVISION={}", revision.unwrap_or_else(unknown));
    println!("cargo::rustc-env=TSN_DIRTY={}", dirty.unwrap_or("unknown"));
    println!("cargo::rustc-env=TSN_BUILD_PROFILE={}", env::var("PROFILE").unwrap_or_else(|_| unknown()));
    // A commit and a change of the code both make another program.
    for place in ["HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", place]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for folder in ["../../kernels/src", "../../engine/src", "../../autograd/src", "../../dt/src", "../src", "src"] {
        if Path::new(folder).exists() {
            println!("cargo::rerun-if-changed={folder}");
        }
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
