//! Everything that can go wrong in the learner's own layer: one enum, each text naming the thing, what was expected
//! and what was found.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::file::FileError;
use dt::autograd::engine::Error as Engine;

/// An error of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    Io {
        /// What was being done, as an infinitive: `open`, `write`, `rename`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Bytes that are not the file they should be.
    File {
        /// Where they came from; `None` for bytes from memory.
        path: Option<PathBuf>,
        /// What is wrong with them.
        source: FileError,
    },
    /// A bank written by a later version of this program.
    Version {
        /// Format version in the file.
        found: u32,
        /// Newest format version this build reads.
        newest: u32,
    },
    /// A bank that contradicts itself.
    Bank {
        /// Which entry, for example `task 3 "push", mask "h.0.mlp.fc"`.
        entry: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A setting that does not exist or does not work.
    Option {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        allowed: String,
    },
    /// Data or an environment do not fit.
    Data(dt::Error),
    /// Recording, binding or running failed.
    Engine(Engine),
    /// The router got numbers it cannot use.
    Affinity(affinity::Error),
    /// A task without an environment was to be played.
    NoEnvironment {
        /// Name of the task.
        task: String,
    },
    /// No copy has room for the task's mask, and no copy may be added.
    NoRoom {
        /// Name of the task.
        task: String,
        /// Density asked for.
        keep_ratio: f64,
        /// Free share of the fullest copy considered.
        free: f64,
    },
    /// A task of this name is already learned.
    Known {
        /// Name of the task.
        task: String,
    },
    /// NaN or an infinity while training.
    NotFinite {
        /// Name of the task.
        task: String,
        /// Step, counted from 0.
        step: u64,
        /// What is not finite.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// The caller asked to stop.
    Stopped {
        /// Name of the task.
        task: String,
        /// Steps done.
        step: u64,
    },
    /// Something that this crate made contradicts itself.
    Broken {
        /// What.
        what: String,
    },
    /// A number outside its range.
    Range {
        /// Name of the number.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &std::path::Path, source: io::Error) -> Error {
        Error::Io { doing, path: path.to_path_buf(), source }
    }

    pub(crate) fn bank(entry: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Bank { entry: entry.into(), expected: expected.into(), found: found.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Error::File { path: Some(path), source } => write!(f, "{}: {source}", path.display()),
            Error::File { path: None, source } => source.fmt(f),
            Error::Version { found, newest } => write!(
                f,
                "the bank has format version {found}, this build reads up to version {newest}; open it with a newer build"
            ),
            Error::Bank { entry, expected, found } => write!(f, "{entry}: expected {expected}, found {found}"),
            Error::Option { name, found, allowed } => write!(f, "{name} {found} does not work: expected {allowed}"),
            Error::Data(error) => error.fmt(f),
            Error::Engine(error) => error.fmt(f),
            Error::Affinity(error) => error.fmt(f),
            Error::NoEnvironment { task } => {
                write!(f, "task \"{task}\" is data only: it has no environment to play in")
            }
            Error::NoRoom { task, keep_ratio, free } => write!(
                f,
                "no room for task \"{task}\": a mask of density {keep_ratio} does not fit into the free {:.1} % of the \
                 weights; allow another copy or a smaller keep_ratio",
                100.0 * free
            ),
            Error::Known { task } => write!(f, "the bank already holds a task called \"{task}\""),
            Error::NotFinite { task, step, what, value } => {
                write!(
                    f,
                    "task \"{task}\", step {step}: the {what} is {value}; lower the learning rate or check the data"
                )
            }
            Error::Stopped { task, step } => write!(f, "stopped in task \"{task}\" after step {step}"),
            Error::Broken { what } => write!(f, "internal error: {what}"),
            Error::Range { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::File { source, .. } => Some(source),
            Error::Data(error) => Some(error),
            Error::Engine(error) => Some(error),
            Error::Affinity(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(source: FileError) -> Error {
        Error::File { path: None, source }
    }
}

impl From<dt::Error> for Error {
    fn from(error: dt::Error) -> Error {
        match error {
            dt::Error::Engine(error) => Error::Engine(error),
            error => Error::Data(error),
        }
    }
}

impl From<Engine> for Error {
    fn from(error: Engine) -> Error {
        Error::Engine(error)
    }
}

impl From<affinity::Error> for Error {
    fn from(error: affinity::Error) -> Error {
        Error::Affinity(error)
    }
}
