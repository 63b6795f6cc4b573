//! What can go wrong while recording, binding or running.

use kernels::DType;
use std::fmt;
use std::panic::Location;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of recording, binding and running.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// Arguments of a call do not fit the contract.
    Call {
        /// Name of the op.
        op: &'static str,
        /// What disagrees, with names and sizes.
        what: String,
        /// Where the call was recorded.
        at: &'static Location<'static>,
    },
    /// A call reads a buffer that no earlier call wrote.
    Unwritten {
        /// Name of the op.
        op: &'static str,
        /// Name of the buffer.
        buffer: String,
        /// Where the call was recorded.
        at: &'static Location<'static>,
    },
    /// Two buffers that the host must tell apart have one name.
    Duplicate {
        /// The name.
        name: String,
    },
    /// No buffer of this name, or the host may not reach it.
    NoBuffer {
        /// The name.
        name: String,
    },
    /// The host's data do not fit a buffer.
    Data {
        /// Name of the buffer.
        name: String,
        /// Element type and number of storage units of the buffer.
        expected: (DType, usize),
        /// Bytes per element and number of elements of the data.
        found: (usize, usize),
    },
    /// No device of this name exists.
    NoDevice {
        /// The name.
        name: String,
    },
    /// The device exists in another build.
    NotBuilt {
        /// Name of the device.
        device: &'static str,
        /// Cargo feature that adds it.
        feature: &'static str,
    },
    /// An allocation failed.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A call's result is too far from the f64 reference.
    Diverged {
        /// Index of the call in the plan.
        call: usize,
        /// Name of the op and of the output.
        op: String,
        /// Error found and error allowed.
        error: String,
        /// Where the call was recorded.
        at: &'static Location<'static>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Call { op, what, at } => write!(f, "{op}: {what} (recorded at {}:{})", at.file(), at.line()),
            Error::Unwritten { op, buffer, at } => {
                write!(f, "{op}: reads \"{buffer}\" before any call wrote it (recorded at {}:{})", at.file(), at.line())
            }
            Error::Duplicate { name } => write!(f, "two buffers are called \"{name}\""),
            Error::NoBuffer { name } => write!(f, "the plan has no input, state or output called \"{name}\""),
            Error::Data { name, expected: (dtype, units), found: (bytes, count) } => write!(
                f,
                "\"{name}\" holds {units} elements of {dtype:?} ({} bytes each), found {count} of {bytes} bytes",
                dtype.unit_bytes()
            ),
            Error::NoDevice { name } => {
                write!(f, "no device is called \"{name}\"; known are cpu, cuda[:n] and wgpu[:n]")
            }
            Error::NotBuilt { device, feature } => {
                write!(f, "{device} is not in this build; use cpu, or build with the feature `{feature}`")
            }
            Error::Memory { bytes } => write!(f, "cannot allocate {bytes} bytes"),
            Error::Diverged { call, op, error, at } => {
                write!(f, "call {call}, {op}: {error} (recorded at {}:{})", at.file(), at.line())
            }
        }
    }
}

impl std::error::Error for Error {}
