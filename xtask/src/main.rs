//! Developer tasks: `cargo xtask tidy`, `new-op`, `ci`, `ptx`, `gpu-bundle`, `web`, and with measurements `compare`,
//! `gate`, `peers` and `tune`.
//!
//! Nothing here is shipped; libraries are allowed.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod bundle;
mod ci;
mod measure;
mod new_op;
mod ptx;
mod scan;
mod tidy;
mod web;

// The skeleton of `new-op` is compiled and run by its tests as if it stood in `kernels`.
#[cfg(test)]
use kernels::{contract, operand, reference};

use anyhow::Result;
use clap::{Parser, Subcommand};
use measure::Exit;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Developer tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks what the compiler cannot: layers, dependency budget, headers, op list, unsafe code, sizes, README.
    Tidy {
        /// Rewrites the tables of ops and results in README.md instead of comparing them.
        #[arg(long)]
        write: bool,
    },
    /// Makes `kernels/src/ops/<name>` with a working unary op and adds it to the list.
    NewOp {
        /// Name of the op, in lower case with underscores.
        name: String,
    },
    /// Formatting, clippy, tidy and the README's test command, in this order; stops at the first failure.
    Ci,
    /// Compiles the CUDA kernels to the PTX in kernels/src/cuda/ptx; needs Python and, once, the package index, but no GPU.
    Ptx(ptx::Ptx),
    /// Makes a folder that tests and measures on a machine with nothing but NVIDIA's driver.
    GpuBundle(bundle::Bundle),
    /// Makes the page target/web/index.html: the agent in wasm, playing a bank live.
    Web(web::Web),
    /// Compares two files of measurements row by row.
    #[command(after_help = "Exit codes: 0 done, 2 unusable input or nothing in common.")]
    Compare(measure::compare::Compare),
    /// Says whether the working tree is slower than a revision, by running both programs in turn.
    #[command(after_help = "Exit codes: 0 not slower, 1 slower, 2 unusable input, 3 no baseline.")]
    Gate(measure::gate::Gate),
    /// Prints ours beside other libraries, as a table in Markdown.
    #[command(after_help = "Exit codes: 0 done, 2 unusable input or nothing in common.")]
    Peers(measure::peers::Peers),
    /// Measures where kept-weight lists overtake bits applied while packing; leave the machine idle, it takes minutes.
    Tune(measure::tune::Tune),
}

fn main() -> ExitCode {
    let root = root();
    let (done, failure) = match Args::parse().task {
        Task::Tidy { write } => check(tidy::run(&root, write)),
        Task::NewOp { name } => check(new_op::run(&root, &name)),
        Task::Ci => check(ci::run(&root)),
        Task::Ptx(args) => check(ptx::run(&root, &args)),
        Task::GpuBundle(args) => check(bundle::run(&root, &args)),
        Task::Web(args) => check(web::run(&root, &args)),
        Task::Compare(args) => (measure::compare::run(&args), Exit::Unusable.into()),
        Task::Peers(args) => (measure::peers::run(&args), Exit::Unusable.into()),
        Task::Tune(args) => (measure::tune::run(&root, &args), Exit::Unusable.into()),
        Task::Gate(args) => (measure::gate::run(&root, &args), Exit::Unusable.into()),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            failure
        }
    }
}

/// A task that holds or does not.
fn check(done: Result<()>) -> (Result<Exit>, ExitCode) {
    (done.map(|()| Exit::Done), ExitCode::FAILURE)
}

/// The workspace: the directory above this crate.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
