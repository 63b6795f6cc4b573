//! Developer tasks: `cargo xtask tidy`, `cargo xtask new-op`, `cargo xtask ci`.
//!
//! Nothing here is shipped; libraries are allowed.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod ci;
mod new_op;
mod scan;
mod tidy;

// The skeleton of `new-op` is compiled and run by its tests as if it stood in `kernels`.
#[cfg(test)]
use kernels::{contract, operand, reference};

use clap::{Parser, Subcommand};
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
        /// Rewrites the table of ops in README.md instead of comparing it.
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
}

fn main() -> ExitCode {
    let root = root();
    let done = match Args::parse().task {
        Task::Tidy { write } => tidy::run(&root, write),
        Task::NewOp { name } => new_op::run(&root, &name),
        Task::Ci => ci::run(&root),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace: the directory above this crate.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
