//! Builds `tsn-web` for wasm32 with whatever compiler this machine has for it.
//!
//! A compiler has either the target's standard library (`rustup target add`) or its sources (`rustup component add
//! rust-src`, Debian's `rust-web-src`), of which cargo then builds it.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Names another rustc.
const VARIABLE: &str = "TSN_WEB_RUSTC";
const DEBIAN: &str = "/usr/bin/rustc";
/// Plain kernels, no gradients (`Cargo.toml`); vectors of 128 bits, which browsers have since 2023.
const FLAGS: &str = "--cfg tsn_small -C target-feature=+simd128";
/// What the flags above let the compiler use, and nothing else.
const FEATURES: [&str; 7] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-reference-types",
];

/// A compiler that can make the module.
#[derive(Debug, PartialEq)]
struct Toolchain {
    rustc: PathBuf,
    /// The standard library is there; else its sources are.
    prebuilt: bool,
    /// Panics may become traps without a message.
    traps: bool,
    /// Linker, where the compiler has none of its own.
    linker: Option<String>,
}

/// The module, after `wasm-opt` if this machine has it.
pub(crate) fn build(root: &Path) -> Result<Vec<u8>> {
    let toolchain = find()?;
    let from = if toolchain.prebuilt { "its own standard library" } else { "the standard library from its sources" };
    println!("building tsn-web for {TARGET} with {}, {from}", toolchain.rustc.display());
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--profile", "web", "--target", TARGET, "-p", "tsn-web"]);
    cargo.args(["--target-dir", "target/wasm"]).current_dir(root);
    let mut flags = FLAGS.to_owned();
    if !toolchain.prebuilt {
        cargo.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
        // Building the standard library is not stable; its compiler accepts it with this.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        // A page shows no message of a panic: a trap is all it sees.
        flags += " -Zlocation-detail=none";
        flags += if toolchain.traps { " -Zunstable-options -Cpanic=immediate-abort" } else { "" };
    }
    if let Some(linker) = &toolchain.linker {
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    cargo.env("RUSTC", &toolchain.rustc).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
    let status = cargo.status().context("cargo build")?;
    ensure!(status.success(), "cargo build of tsn-web: {status}");
    let made = root.join("target/wasm").join(TARGET).join("web/tsn_web.wasm");
    let small = root.join("target/web/tsn_web.wasm");
    match Command::new("wasm-opt").arg("-Oz").args(FEATURES).arg(&made).arg("-o").arg(&small).status() {
        Ok(status) => ensure!(status.success(), "wasm-opt: {status}"),
        Err(_) => {
            println!("wasm-opt not found (Debian package binaryen): the module stays as the compiler made it");
            std::fs::copy(&made, &small).with_context(|| made.display().to_string())?;
        }
    }
    std::fs::read(&small).with_context(|| small.display().to_string())
}

fn find() -> Result<Toolchain> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let candidates = [Some(PathBuf::from("rustc")), named, Some(PathBuf::from(DEBIAN))];
    let found = candidates.into_iter().flatten().find_map(|rustc| able(&rustc));
    found.with_context(|| {
        format!(
            "no Rust compiler for {TARGET} found, neither rustc nor {DEBIAN} nor one named by {VARIABLE}; install one \
             with `rustup component add rust-src` or `rustup target add {TARGET}`, or on Debian with `apt-get install \
             --no-install-recommends rustc-web rust-web-src lld-22`"
        )
    })
}

/// What a compiler can do, if it can make the module.
fn able(rustc: &Path) -> Option<Toolchain> {
    let ask = |args: &[&str]| -> Option<String> {
        let out = Command::new(rustc)
            .args(args)
            .env("RUSTC_BOOTSTRAP", "1")
            .output()
            .ok()
            .filter(|out| out.status.success())?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let libraries = std::fs::read_dir(ask(&["--print", "target-libdir", "--target", TARGET])?);
    let is_std = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd-");
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
    // Sources first: the module is smaller by a fifth with what is built of them.
    let prebuilt = !sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").exists();
    if prebuilt && !libraries.is_ok_and(|list| list.flatten().any(is_std)) {
        return None;
    }
    let version = ask(&["-vV"])?;
    let own = sysroot.join("lib/rustlib").join(after(&version, "host: ")?).join("bin/rust-lld");
    let linker = if own.exists() { None } else { Some(linker(after(&version, "LLVM version: ")?)?) };
    let traps = ask(&["-Zunstable-options", "-Cpanic=immediate-abort", "--print", "cfg"]).is_some();
    Some(Toolchain { rustc: rustc.to_owned(), prebuilt, traps, linker })
}

/// A linker of the system, preferably of the compiler's own LLVM.
fn linker(llvm: &str) -> Option<String> {
    let major = llvm.split('.').next()?;
    let exists = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    [format!("wasm-ld-{major}"), "wasm-ld".to_owned()].into_iter().find(exists)
}

/// The rest of the line that begins with `key`.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_version_are_found() {
        let version = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(after(version, "LLVM version: "), Some("22.1.8"));
        assert_eq!(after(version, "commit: "), None);
    }

    #[test]
    fn what_is_no_compiler_makes_no_module() {
        assert_eq!(able(Path::new("no such compiler")), None);
    }
}
