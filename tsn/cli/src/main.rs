//! `tsn-affinity`: learns tasks one after another, keeps them in a bank, and says what it did.
//!
//! Owns the command line, run directories and reports; may import `tsn`, `dt-io` and libraries of the program ring;
//! computes nothing itself. Exit codes: 0 done, 1 negative result or stopped, 2 unusable input, 3 missing baseline,
//! 70 internal or device.

#![forbid(unsafe_code)]

mod args;
mod benchmark;
mod checkpoint;
mod commands;
mod events;
mod files;
mod import;
mod monitor;
mod problem;
mod profile;
mod record;
mod report;
mod run;
mod set;
mod settings;
mod simulators;
mod stoppable;
mod summary;
mod sweep;
mod tune;
mod unseen;

use args::{Cli, Command};
use clap::Parser as _;
use std::panic::catch_unwind;
use std::process::ExitCode;
use tsn::dt::autograd::engine::Error as Engine;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The default hook has already printed where the panic was.
    let result = match catch_unwind(|| run(cli)) {
        Ok(result) => result,
        Err(_) => {
            files::note("tsn-affinity: internal error, please report it");
            return ExitCode::from(70);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            files::note(&format!("tsn-affinity: {}", whole(&error)));
            ExitCode::from(code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Demo(cli.demo)) {
        Command::Demo(args) => commands::demo::demo(&args),
        Command::Train(args) => commands::train::train(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Resume(args) => commands::train::resume(&args),
        Command::Eval(args) => commands::eval::eval(&args),
        Command::Adapt(args) => commands::adapt::adapt(&args),
        Command::Explain(args) => commands::eval::explain(&args),
        Command::Inspect(args) => commands::bank::inspect(&args),
        Command::Import(args) => commands::import::import(&args),
        Command::Data(args) => commands::data::data(&args),
        Command::Doctor(args) => commands::doctor::doctor(&args),
        Command::Report(args) => commands::report::report(&args),
        Command::Profile(args) => commands::profile::profile(&args),
    }
}

/// An error and its causes in one line; most errors already end with the text of their cause.
fn whole(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// The exit code of an error; whatever is not known to be internal came from the input.
fn code(error: &anyhow::Error) -> u8 {
    if error.is::<commands::Negative>() {
        return 1;
    }
    match error.downcast_ref::<tsn::Error>() {
        Some(tsn::Error::Affinity(_) | tsn::Error::Broken { .. }) => 70,
        Some(tsn::Error::Engine(engine)) if !is_out_of_reach(engine) => 70,
        _ => match error.downcast_ref::<Engine>() {
            Some(Engine::Lost { .. } | Engine::Gpu { .. } | Engine::Diverged { .. }) => 70,
            _ => 2,
        },
    }
}

/// A device was asked for that is not there, or for more than it has.
fn is_out_of_reach(error: &Engine) -> bool {
    use Engine::{DeviceMemory, Limit, Memory, NoAdapter, NoDevice, NoDriver, NoGpu, NoKernel, NotBuilt, OldDriver};
    let absent = matches!(
        error,
        NoDevice { .. } | NotBuilt { .. } | NoAdapter { .. } | NoDriver { .. } | OldDriver { .. } | NoGpu { .. }
    );
    absent || matches!(error, NoKernel { .. } | Limit { .. } | Memory { .. } | DeviceMemory { .. })
}
