//! `cargo xtask tidy`: rules of the workspace that the compiler does not hold.
//!
//! Every gate is a pure function from texts to a list of complaints, so that its test can feed it a planted fault.

mod budget;
mod claims;
mod headers;
mod layers;
mod op_list;
mod sizes;
mod table;
mod unsafe_code;

#[cfg(test)]
pub(crate) use headers::args_fault;

use crate::scan::{File, files};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;

pub(crate) fn run(root: &Path, write: bool) -> Result<()> {
    let sources = files(root, &[".rs", ".cu", ".wgsl"])?;
    let ops = text(root, "kernels/src/ops.rs")?;
    let metadata = cargo(root, &["metadata", "--no-deps", "--format-version", "1", "--locked"])?;
    let tree = |more: &[&str]| {
        let fixed = ["tree", "-p", "tsn", "-e", "normal,build", "--prefix", "none", "--locked"];
        cargo(root, &[&fixed[..], more].concat())
    };

    let mut complaints = layers::check(&metadata)?;
    complaints.extend(budget::check("default features", &tree(&[])?, budget::DEFAULT));
    complaints.extend(budget::check("no default features", &tree(&["--no-default-features"])?, budget::BARE));
    complaints.extend(budget::check("cuda", &tree(&["--features", "cuda"])?, budget::CUDA));
    complaints.extend(budget::check("wgpu", &tree(&["--features", "wgpu"])?, budget::WGPU));
    complaints.extend(headers::check(&sources, kernels::OPS));
    complaints.extend(op_list::check(&op_files(&sources), &ops));
    complaints.extend(op_list::unique(kernels::OPS.iter().map(|op| op.name)));
    complaints.extend(unsafe_code::check(&sources));
    complaints.extend(sizes::check(&sources));
    complaints.extend(readme(root, write)?);

    for line in &complaints {
        println!("error: {line}");
    }
    match complaints.len() {
        0 => Ok(()),
        n => bail!("tidy found {n} faults"),
    }
}

fn readme(root: &Path, write: bool) -> Result<Vec<String>> {
    // The list of CPU variants is that of one architecture; the table shows x86-64.
    if !cfg!(target_arch = "x86_64") {
        println!("README.md: tables not compared: that of ops lists the variants of x86-64");
        return Ok(Vec::new());
    }
    let old = text(root, "README.md")?;
    let new = table::insert(&old, "ops", &table::render(kernels::OPS))?;
    let results = files(root, &[".md"])?;
    let results = results.iter().filter(|file| file.path.starts_with("benches/results/"));
    let new = table::insert(&new, "claims", &claims::render(results)?)?;
    if write && new != old {
        std::fs::write(root.join("README.md"), &new).context("README.md")?;
        println!("README.md: tables rewritten");
    }
    let complaint =
        "README.md: its tables are not those of kernels::OPS and of benches/results; run cargo xtask tidy --write";
    Ok((new != old && !write).then(|| complaint.to_owned()).into_iter().collect())
}

/// The sources below `kernels/src/ops`.
fn op_files(sources: &[File]) -> Vec<&File> {
    sources.iter().filter(|f| f.path.starts_with(op_list::FOLDER)).collect()
}

fn text(root: &Path, path: &str) -> Result<String> {
    std::fs::read_to_string(root.join(path)).context(path.to_owned())
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let line = || format!("cargo {}", args.join(" "));
    let out = Command::new("cargo").args(args).current_dir(root).output().with_context(line)?;
    ensure!(out.status.success(), "{}: {}", line(), String::from_utf8_lossy(&out.stderr).trim());
    String::from_utf8(out.stdout).with_context(line)
}
