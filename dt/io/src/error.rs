//! Refusals of files: where, and why.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that cannot be used: its path, the place in it, the reason.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The array or the entry concerned, if it is one.
    pub place: Option<String>,
    /// What is wrong.
    pub kind: Kind,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Kind {
    /// The operating system refused.
    Io(io::Error),
    /// A directory or device where a file is needed.
    NotAFile,
    /// Not the format it should be.
    Format {
        /// The format expected.
        expected: &'static str,
        /// What there is instead.
        found: &'static str,
    },
    /// The format, but broken.
    Damaged(&'static str),
    /// A feature of the format that is not read.
    Unsupported {
        /// What can be read.
        expected: &'static str,
        /// What the file uses.
        found: String,
    },
    /// A part of an HDF5 file that cannot be read, in the library's words.
    Hdf5(String),
    /// A size claimed that is above a limit.
    TooLarge {
        /// What has the size.
        what: &'static str,
        /// The size.
        claimed: u64,
        /// The limit.
        limit: u64,
    },
    /// A key that is not there.
    Missing {
        /// The keys that are.
        found: Vec<String>,
    },
    /// Values that would need pickle, which can run code and is never read.
    Pickle,
    /// The wrong element type.
    DType {
        /// Allowed types.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// The wrong shape.
    Shape {
        /// The shape expected, in words or letters.
        expected: String,
        /// The shape in the file.
        found: Vec<u64>,
    },
    /// A value outside its range.
    Value {
        /// Row of the array.
        row: usize,
        /// The range, in words.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// An end of episode where the lengths have none.
    DoneInside {
        /// The row that is marked as the last of its episode.
        row: usize,
        /// The episode the row is in.
        episode: usize,
        /// The row that should be the last.
        last: usize,
    },
    /// A task spec that says something wrong.
    Spec(String),
    /// The arrays can be read but are no trajectories.
    Data(dt::Error),
}

impl Kind {
    /// Adds the file and the place in it.
    pub(crate) fn at(self, path: &Path, place: impl Into<Option<String>>) -> Error {
        Error { path: path.to_path_buf(), place: place.into(), kind: self }
    }
}

impl From<io::Error> for Kind {
    fn from(error: io::Error) -> Kind {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Kind::Damaged("the data end too early: the file is truncated"),
            // The decompressor reports damage this way.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Kind::Damaged("the compressed data are broken"),
            _ => Kind::Io(error),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Io(error) => write!(f, "{error}"),
            Kind::NotAFile => write!(f, "expected a file, found a directory or device"),
            Kind::Format { expected, found } => write!(f, "expected {expected}, found {found}"),
            Kind::Damaged(why) => write!(f, "{why}"),
            Kind::Unsupported { expected, found } => write!(f, "expected {expected}, found {found}"),
            Kind::Hdf5(text) => write!(f, "the HDF5 file cannot be read: {text}"),
            Kind::TooLarge { what, claimed, limit } => write!(f, "{what}: claims {claimed}, the limit is {limit}"),
            Kind::Missing { found } if found.is_empty() => write!(f, "missing; the file has no arrays"),
            Kind::Missing { found } => write!(f, "missing; the file has {}", found.join(", ")),
            Kind::Pickle => write!(f, "expected numbers, found Python objects: pickle is never read; convert the file"),
            Kind::DType { expected, found } => write!(f, "expected dtype {expected}, found {found}"),
            Kind::Shape { expected, found } => write!(f, "expected shape {expected}, found {found:?}"),
            Kind::Value { row, expected, found } => write!(f, "row {row}: expected {expected}, found {found}"),
            Kind::DoneInside { row, episode, last } => {
                write!(f, "row {row} ends an episode, but by episode_lengths episode {episode} ends at row {last}")
            }
            Kind::Spec(text) => write!(f, "{text}"),
            Kind::Data(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io(error) => Some(error),
            Kind::Data(error) => Some(error),
            _ => None,
        }
    }
}
