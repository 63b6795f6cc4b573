//! `cargo xtask web`: the agent as one page, `target/web/index.html`, and with `--test` the page in a browser.

mod browser;
mod page;
mod toolchain;
mod watch;

use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most bytes of the module with CPU kernels.
const MODULE_LIMIT: usize = 350 * 1024;
/// The demo at a width that a page can carry; the other settings are those of the program's first command.
const TRAIN: [&str; 7] = ["demo", "--strategies", "tsn_affinity", "--no-reference", "--width", "64", "--quiet"];

/// What goes into the page.
#[derive(Args)]
pub(crate) struct Web {
    /// A bank of a built-in CartPole suite; without it the demo is trained, and kept in target/web
    #[arg(long, value_name = "FILE")]
    bank: Option<PathBuf>,
    /// The tsn-affinity that trains; without it one is built
    #[arg(long, value_name = "FILE", conflicts_with = "bank")]
    program: Option<PathBuf>,
    /// Plays the page in headless Chromium through chromedriver, and holds the module against its limit
    #[arg(long)]
    test: bool,
}

/// Runs the task.
///
/// # Errors
/// What cannot be built, trained or written; with `--test` what the page does wrong.
pub(crate) fn run(root: &Path, args: &Web) -> Result<()> {
    let out = root.join("target/web");
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let module = toolchain::build(root)?;
    let bank = match &args.bank {
        Some(path) => path.clone(),
        None => train(root, &out, args.program.as_deref())?,
    };
    let plan = plan(root, &bank)?;
    let bank = std::fs::read(&bank).with_context(|| bank.display().to_string())?;
    let text = page::assemble(root, &module, &bank, &plan)?;
    let index = out.join("index.html");
    std::fs::write(&index, &text).with_context(|| index.display().to_string())?;
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    println!(
        "{}: {:.1} KiB, of which wasm {:.1} KiB (limit {:.0}) and bank {:.1} KiB before base64, kernels for WebGPU {:.1} KiB",
        index.display(),
        kib(text.len()),
        kib(module.len()),
        kib(MODULE_LIMIT),
        kib(bank.len()),
        kib(plan.len())
    );
    if args.test {
        ensure!(
            module.len() <= MODULE_LIMIT,
            "the module has {} bytes, at most {MODULE_LIMIT} are allowed; with a prebuilt standard library it has too \
             many, see `rustup component add rust-src`",
            module.len()
        );
        watch::run(&index)?;
    }
    Ok(())
}

/// What the page runs on the browser's WebGPU, as JSON.
fn plan(root: &Path, bank: &Path) -> Result<String> {
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--quiet", "--locked", "-p", "tsn-web", "--features", "wgsl"]);
    command.args(["--example", "webgpu_plan", "--"]).arg(std::path::absolute(bank)?).current_dir(root);
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cargo run")?;
    ensure!(output.status.success(), "the plan for WebGPU: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The bank of the demo, trained once.
fn train(root: &Path, out: &Path, program: Option<&Path>) -> Result<PathBuf> {
    let bank = out.join("bank.safetensors");
    if bank.exists() {
        println!("{}: kept; remove it to train anew", bank.display());
        return Ok(bank);
    }
    let run = out.join("run");
    if run.exists() {
        std::fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
    }
    println!("training: tsn-affinity {}", TRAIN.join(" "));
    let mut command = Command::new(program.unwrap_or(Path::new("cargo")));
    if program.is_none() {
        command.args(["run", "--release", "--quiet", "--locked", "-p", "tsn-affinity", "--"]).current_dir(root);
    }
    let status = command.args(TRAIN).arg("--out").arg(&run).status();
    let status = status.with_context(|| command.get_program().display().to_string())?;
    ensure!(status.success(), "training: {status}");
    // One strategy makes one directory inside.
    let dirs = std::fs::read_dir(&run)?.collect::<Result<Vec<_>, _>>()?;
    let made = dirs.iter().map(|dir| dir.path().join("bank.safetensors")).find(|path| path.exists());
    let made = made.with_context(|| format!("{}: no run in it has a bank", run.display()))?;
    std::fs::copy(&made, &bank).with_context(|| made.display().to_string())?;
    Ok(bank)
}
