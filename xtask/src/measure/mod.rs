//! Reading, comparing and making measurements: `compare`, `gate`, `peers` and `tune`.

pub(crate) mod compare;
mod file;
pub(crate) mod gate;
mod goals;
pub(crate) mod peers;
mod rule;
pub(crate) mod tune;

use std::process::ExitCode;

/// How a task of measurement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// There is a result.
    Done,
    /// A row is slower.
    Slower,
    /// The input says nothing.
    Unusable,
    /// There is no baseline.
    Missing,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Slower => 1,
            Exit::Unusable => 2,
            Exit::Missing => 3,
        })
    }
}
