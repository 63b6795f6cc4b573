//! `cargo xtask gpu-bundle`: one folder that runs on a machine with nothing but NVIDIA's driver.
//!
//! It has a test program, the program with CUDA, and `run.sh`, which goes through the checks that only a GPU can make. With
//! `cargo-zigbuild` on the path everything is linked against an old C library; otherwise against this machine's.

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The C library of the oldest machines, from 2014 on.
const TARGET: &str = "x86_64-unknown-linux-gnu.2.17";
const LIMIT: u64 = 60 << 20;
const TEST: &str = "conformance";
const PROGRAM: &str = "tsn-affinity";
const SCRIPT: &str = include_str!("bundle/run.sh");

/// Where it goes.
#[derive(Args)]
pub(crate) struct Bundle {
    /// The folder; a bundle that is there is replaced, anything else refused
    #[arg(long, value_name = "DIR", default_value = "target/gpu-bundle")]
    out: PathBuf,
    /// Builds without optimisation of the programs, to try the bundle itself
    #[arg(long)]
    dev: bool,
    /// More arguments for cargo
    #[arg(last = true, value_name = "ARGUMENT")]
    cargo: Vec<String>,
}

/// Builds and copies.
///
/// # Errors
/// What does not build; a folder above the limit.
pub(crate) fn run(root: &Path, args: &Bundle) -> Result<()> {
    let out = root.join(&args.out);
    ensure!(replaceable(&out), "{}: not a bundle, so it is not replaced; give --out another folder", out.display());
    let zig = Command::new("cargo-zigbuild").arg("--version").output().is_ok_and(|out| out.status.success());
    let mut all = Vec::new();
    for (package, kind, name) in [("tsn-tests", "--test", TEST), ("tsn-affinity", "--bin", PROGRAM)] {
        all.push((name, program(root, zig, args, package, [kind, name])?));
    }
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    for (name, from) in &all {
        let to = out.join(name);
        std::fs::copy(from, &to).with_context(|| from.display().to_string())?;
        let status = Command::new("strip").arg(&to).status().context("strip")?;
        ensure!(status.success(), "strip {name}: {status}");
    }
    let script = out.join("run.sh");
    std::fs::write(&script, SCRIPT).with_context(|| script.display().to_string())?;
    executable(&script)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(&out)? {
        bytes += entry?.metadata()?.len();
    }
    let mib = bytes as f64 / f64::from(1 << 20);
    ensure!(bytes <= LIMIT, "{}: {mib:.1} MiB, at most {} are allowed", out.display(), LIMIT >> 20);
    println!("{}: {mib:.1} MiB; on the machine with a GPU: ./run.sh [folder for results]", out.display());
    if zig {
        println!("needs glibc {}", TARGET.rsplit_once("gnu.").map_or(TARGET, |(_, version)| version));
    } else {
        let version = all.iter().filter_map(|(_, program)| glibc(program)).max().unwrap_or_default();
        let version = version.map(|n| n.to_string()).join(".");
        println!("warning: needs glibc {version}; with cargo-zigbuild and ziglang (PyPI) older ones do");
    }
    Ok(())
}

/// Whether nothing is lost with a folder: it is absent, empty, or an earlier bundle.
fn replaceable(out: &Path) -> bool {
    // The script of an earlier version begins as this one does.
    let ours =
        |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.lines().take(2).eq(SCRIPT.lines().take(2)));
    let empty = || std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    !out.exists() || ours(&out.join("run.sh")) || empty()
}

/// The program that cargo builds.
fn program(root: &Path, zig: bool, args: &Bundle, package: &str, with: [&str; 2]) -> Result<PathBuf> {
    let test = with[0] == "--test";
    let verb = if test { ["test", "--no-run"].as_slice() } else { &["build"] };
    let mut cargo = match (zig, test) {
        (true, true) => Command::new("cargo-zigbuild"),
        _ => Command::new("cargo"),
    };
    cargo.args(if zig && !test { &["zigbuild"] } else { verb });
    cargo.args(["--locked", "-p", package, "--features", "cuda", "--message-format=json-render-diagnostics"]);
    cargo.args(with).args(&args.cargo).args(if args.dev { [].as_slice() } else { &["--release"] }).current_dir(root);
    if zig {
        cargo.args(["--target", TARGET]);
    }
    let out = cargo.stderr(std::process::Stdio::inherit()).output().context("cargo")?;
    ensure!(out.status.success(), "cargo for {package}: {}", out.status);
    let messages = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut found: Vec<_> = messages.lines().filter_map(executable_of).collect();
    ensure!(found.len() == 1, "{package}: cargo made {found:?}");
    Ok(found.remove(0))
}

/// A line of cargo's that tells of a program.
fn executable_of(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some(message.get("executable")?.as_str()?.into())
}

/// The newest version of the C library that a program asks for.
fn glibc(program: &Path) -> Option<[u32; 2]> {
    let bytes = std::fs::read(program).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let versions = text.split("GLIBC_").skip(1).filter_map(|rest| {
        let (major, rest) = rest.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some([major.parse().ok()?, minor.parse().ok()?])
    });
    versions.max()
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).with_context(|| path.display().to_string())
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_not_replaced() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(!replaceable(root) && !replaceable(&root.join("Cargo.toml")));
        // The folder of the script looks like a bundle.
        assert!(replaceable(&root.join("no-such-folder")) && replaceable(&root.join("src/bundle")));
    }

    #[test]
    fn cargo_tells_of_programs() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":"/t/a-1"}"#;
        assert_eq!(executable_of(line), Some("/t/a-1".into()));
        assert_eq!(executable_of(r#"{"target":{"name":"a"},"executable":null}"#), None);
    }
}
