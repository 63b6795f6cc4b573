//! What can be wrong with the numbers a caller passes.

use std::fmt;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of statistics, scores and decisions.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// A number outside its range, or not finite.
    Range {
        /// What the number is.
        what: String,
        /// The number.
        value: f64,
        /// The range, in words.
        limit: &'static str,
    },
    /// Two sizes that must agree.
    Length {
        /// What has the size.
        what: &'static str,
        /// Size wanted.
        expected: usize,
        /// Size given.
        found: usize,
    },
    /// Nothing to compute from.
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// Sizes that a call cannot have.
    Size {
        /// What has the sizes.
        what: &'static str,
        /// Why they do not work.
        why: String,
    },
    /// No task was described in an environment like this one.
    Unknown {
        /// What the environment shows of itself.
        signature: String,
        /// What the described tasks show, each once.
        known: String,
    },
    /// A rule needs a measure that was not given.
    Missing {
        /// The measure.
        what: &'static str,
        /// The earlier task it is missing for; `None` if it belongs to the new task.
        task: Option<usize>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Range { what, value, limit } => write!(f, "{what} is {value}, outside {limit}"),
            Error::Length { what, expected, found } => write!(f, "{what} has size {found}, expected {expected}"),
            Error::Empty { what } => write!(f, "{what} is empty"),
            Error::Size { what, why } => write!(f, "{what}: {why}"),
            Error::Unknown { signature, known } => {
                let known = if known.is_empty() { "none" } else { known };
                write!(f, "no task fits an environment of {signature}; described are: {known}")
            }
            Error::Missing { what, task: Some(task) } => write!(f, "task {task} has no {what}, which this rule needs"),
            Error::Missing { what, task: None } => write!(f, "the new task has no {what}, which this rule needs"),
        }
    }
}

impl std::error::Error for Error {}

/// `value` if it is finite and `fits`.
pub(crate) fn in_range(what: &str, value: f64, limit: &'static str, fits: impl Fn(f64) -> bool) -> Result<f64> {
    if value.is_finite() && fits(value) { Ok(value) } else { Err(Error::Range { what: what.into(), value, limit }) }
}

/// The rows of a matrix without gaps; at least one.
pub(crate) fn rows_of<'a>(
    what: &'static str,
    data: &'a [f32],
    width: usize,
) -> Result<std::slice::ChunksExact<'a, f32>> {
    if data.is_empty() || width == 0 {
        return Err(Error::Empty { what });
    }
    if !data.len().is_multiple_of(width) {
        return Err(Error::Length { what, expected: data.len() / width * width, found: data.len() });
    }
    Ok(data.chunks_exact(width))
}
