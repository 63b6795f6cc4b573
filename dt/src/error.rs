//! What can go wrong in data and environments. Every text names the thing, what was expected and what was found.

use crate::data::episodes::LARGEST;
use std::fmt;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of this crate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the model that does not work.
    Config {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: String,
    },
    /// Recording or running failed.
    Engine(autograd::engine::Error),
    /// Nothing where at least one is needed: episodes, rows, windows.
    Empty {
        /// What is missing.
        what: &'static str,
    },
    /// Episode lengths do not add up to the number of rows.
    Lengths {
        /// Sum of the episode lengths.
        sum: u64,
        /// Rows of the array.
        rows: u64,
    },
    /// An episode without a step.
    EmptyEpisode {
        /// Its index.
        episode: usize,
    },
    /// A size that disagrees with another.
    Size {
        /// What has the size, with its unit.
        what: &'static str,
        /// The size that would fit.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// NaN or an infinity in data.
    NotFinite {
        /// The array.
        what: &'static str,
        /// Row, counted over all episodes.
        row: usize,
        /// Column of the row.
        col: usize,
        /// The value.
        value: f32,
    },
    /// A discrete action outside `0..count`.
    Action {
        /// Row, counted over all episodes; 0 for a single action.
        row: usize,
        /// The action.
        value: i64,
        /// Number of actions.
        count: u32,
    },
    /// The wrong kind of thing: discrete actions where continuous ones are expected, frames instead of vectors.
    Kind {
        /// What has a kind.
        what: &'static str,
        /// The kind expected.
        expected: &'static str,
        /// The kind found.
        found: &'static str,
    },
    /// A setting outside its range.
    Range {
        /// Name of the setting.
        name: String,
        /// Its value.
        value: f64,
        /// The range, in words.
        allowed: &'static str,
    },
    /// A name nobody knows.
    Unknown {
        /// What is named.
        what: &'static str,
        /// The name found.
        name: String,
        /// The names there are.
        known: &'static str,
    },
    /// Calls in the wrong order, for example a step after the end of an episode.
    Order {
        /// What was called.
        called: &'static str,
        /// What has to come first.
        first: &'static str,
    },
    /// Rows in a file that cannot be read.
    Disk {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An environment that runs elsewhere failed.
    Environment {
        /// Its name.
        name: String,
        /// What it reported.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config { field, found, expected } => write!(f, "{field} {found} does not work: expected {expected}"),
            Error::Engine(error) => error.fmt(f),
            Error::Empty { what } => write!(f, "no {what}: at least one is needed"),
            Error::Lengths { sum, rows } => write!(f, "episode lengths sum to {sum} but there are {rows} rows"),
            Error::EmptyEpisode { episode } => write!(f, "episode {episode} has length 0: at least one step is needed"),
            Error::Size { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
            Error::NotFinite { what, row, col, value } if value.is_finite() => {
                write!(f, "{what} row {row} column {col}: expected at most {LARGEST:e} in size, found {value:e}")
            }
            Error::NotFinite { what, row, col, value } => {
                write!(f, "{what} row {row} column {col}: expected a finite number, found {value}")
            }
            Error::Action { row, value, count } => {
                write!(f, "actions row {row}: expected 0..{count}, found {value}")
            }
            Error::Kind { what, expected, found } => write!(f, "{what}: expected {expected}, found {found}"),
            Error::Range { name, value, allowed } => write!(f, "{name} {value} is outside {allowed}"),
            Error::Unknown { what, name, known } => write!(f, "unknown {what} `{name}`, expected one of {known}"),
            Error::Order { called, first } => write!(f, "{called} needs {first} first"),
            Error::Disk { path, reason } => write!(f, "{}: observations on disk: {reason}", path.display()),
            Error::Environment { name, reason } => write!(f, "environment {name}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<autograd::engine::Error> for Error {
    fn from(error: autograd::engine::Error) -> Error {
        Error::Engine(error)
    }
}
