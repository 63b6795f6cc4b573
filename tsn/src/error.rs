//! Everything that can go wrong in the learner's own layer: one enum, each text naming the thing, what was expected
//! and what was found.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::file::FileError;

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
            Error::Range { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(source: FileError) -> Error {
        Error::File { path: None, source }
    }
}
