//! What can be wrong with the bytes of a file.

use super::CHECKSUM;
use super::element::Dtype;
use std::fmt;

/// What is wrong with the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the text of each error")]
pub enum FileError {
    /// The file ends before its header does.
    Truncated { expected: u64, found: u64 },
    /// The header is longer than [`super::HEADER_LIMIT`].
    HeaderTooLong { limit: u64, found: u64 },
    /// The header is not UTF-8.
    NotUtf8 { at: usize },
    /// The header is not the JSON it should be; `found` is `None` at its end.
    Syntax { at: usize, expected: &'static str, found: Option<char> },
    /// More of something than the limits of this module.
    TooMany { what: &'static str, limit: usize },
    /// A key occurs twice.
    Duplicate { key: String },
    /// An element type that the format does not have.
    UnknownDtype { tensor: String, found: String },
    /// A tensor field other than `dtype`, `shape`, `data_offsets`.
    UnknownField { tensor: String, found: String },
    /// A tensor without one of these three.
    MissingField { tensor: String, field: &'static str },
    /// The size of a tensor is no 64-bit number of bytes.
    Overflow { tensor: String },
    /// The range of a tensor does not have the size of its shape.
    WrongSize { tensor: String, expected: u64, found: u64 },
    /// A tensor does not begin where the one before it ends: a gap or an overlap.
    WrongStart { tensor: String, expected: u64, found: u64 },
    /// A tensor range that ends before it begins.
    Backwards { tensor: String, start: u64, end: u64 },
    /// The file is longer or shorter than its header says.
    WrongLength { expected: u64, found: u64 },
    /// No tensor of that name.
    Missing { tensor: String },
    /// A tensor of another element type.
    WrongDtype { tensor: String, expected: Dtype, found: Dtype },
    /// No checksum of 64 hexadecimal digits in the metadata.
    NoChecksum,
    /// The file was changed after it was written.
    Checksum { stored: String, computed: String },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Truncated { expected, found } => {
                write!(f, "truncated: expected at least {expected} bytes, found {found}")
            }
            FileError::HeaderTooLong { limit, found } => {
                write!(f, "the header has {found} bytes, expected at most {limit}: not a safetensors file?")
            }
            FileError::NotUtf8 { at } => write!(f, "header byte {at}: expected UTF-8 text"),
            FileError::Syntax { at, expected, found: Some(found) } => {
                write!(f, "header byte {at}: expected {expected}, found {found:?}")
            }
            FileError::Syntax { at, expected, found: None } => {
                write!(f, "header byte {at}: expected {expected}, found the end of the header")
            }
            FileError::TooMany { what, limit } => write!(f, "expected at most {limit} {what}, found more"),
            FileError::Duplicate { key } => write!(f, "key {key:?} occurs twice"),
            FileError::UnknownDtype { tensor, found } => {
                write!(f, "tensor {tensor:?}: expected a safetensors element type, found {found:?}")
            }
            FileError::UnknownField { tensor, found } => {
                write!(f, "tensor {tensor:?}: expected dtype, shape and data_offsets, found {found:?}")
            }
            FileError::MissingField { tensor, field } => write!(f, "tensor {tensor:?}: expected {field}, found none"),
            FileError::Overflow { tensor } => {
                write!(f, "tensor {tensor:?}: expected a size below 2^64 bits, found a larger one")
            }
            FileError::WrongSize { tensor, expected, found } => {
                write!(f, "tensor {tensor:?}: dtype and shape need {expected} bytes, its offsets span {found}")
            }
            FileError::WrongStart { tensor, expected, found } => {
                write!(f, "tensor {tensor:?}: expected to begin at byte {expected}, found {found}")
            }
            FileError::Backwards { tensor, start, end } => {
                write!(f, "tensor {tensor:?}: expected an end from {start} on, found {end}")
            }
            FileError::WrongLength { expected, found } => {
                write!(f, "the header describes a file of {expected} bytes, found {found}")
            }
            FileError::Missing { tensor } => write!(f, "expected a tensor {tensor:?}, found none"),
            FileError::WrongDtype { tensor, expected, found } => {
                write!(f, "tensor {tensor:?}: expected {expected}, found {found}")
            }
            FileError::NoChecksum => {
                write!(f, "expected a {CHECKSUM} entry of 64 digits in the metadata, found none: not written here?")
            }
            FileError::Checksum { stored, computed } => {
                write!(f, "damaged: expected checksum {stored}, computed {computed}")
            }
        }
    }
}

impl std::error::Error for FileError {}
