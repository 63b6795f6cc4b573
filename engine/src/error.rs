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
    /// No adapter has this index or name.
    NoAdapter {
        /// What was asked for: an index, a part of a name, or nothing.
        name: String,
        /// Index and name of those there are.
        found: Vec<String>,
    },
    /// No driver for NVIDIA's GPUs, or one that finds no device.
    NoDriver {
        /// What is missing.
        cause: String,
    },
    /// The driver is older than the kernels.
    OldDriver {
        /// What shows it.
        what: String,
        /// Version of CUDA that it must offer, major and minor.
        needed: (u32, u32),
    },
    /// No GPU has this index.
    NoGpu {
        /// What was asked for.
        name: String,
        /// Index and name of those there are.
        found: Vec<String>,
    },
    /// Ops that have no kernel for a device.
    NoKernel {
        /// Name of the device.
        device: &'static str,
        /// The ops and the element types they were called with.
        ops: String,
    },
    /// Something is larger than the device allows.
    Limit {
        /// What.
        what: String,
        /// Its size.
        found: u64,
        /// The most the device allows.
        limit: u64,
    },
    /// A device refused something, or failed while it ran.
    Gpu {
        /// What was asked of it.
        what: String,
        /// What it answered.
        cause: String,
    },
    /// A device is gone. Every later call fails with the first cause.
    Lost {
        /// Name of the device.
        device: String,
        /// The first cause.
        cause: String,
    },
    /// An allocation failed.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A device has too little memory.
    DeviceMemory {
        /// Name of the device.
        device: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes that were free.
        free: u64,
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
            Error::NoAdapter { name, found } if found.is_empty() => write!(
                f,
                "wgpu:{name} is not usable: no adapter found; install a Vulkan driver (for a software one, \
                 mesa-vulkan-drivers) or use cpu"
            ),
            Error::NoAdapter { name, found } => {
                write!(f, "no adapter is called wgpu:{name}; found {}", found.join(", "))
            }
            Error::NoDriver { cause } => {
                write!(f, "cuda is not usable: {cause}; install NVIDIA's driver (525 or newer), or use cpu")
            }
            Error::OldDriver { what, needed: (major, minor) } => {
                write!(
                    f,
                    "the CUDA driver is too old: {what}, needed is CUDA {major}.{minor}; update it (525 or newer)"
                )
            }
            Error::NoGpu { name, found } if found.is_empty() => {
                write!(f, "cuda:{name} is not usable: the driver finds no GPU; use cpu")
            }
            Error::NoGpu { name, found } => write!(f, "no GPU is called cuda:{name}; found {}", found.join(", ")),
            Error::NoKernel { device, ops } => write!(f, "{device} has no kernel for {ops}; use cpu"),
            Error::Limit { what, found, limit } => write!(f, "{what}: {found} is over the device's limit of {limit}"),
            Error::Gpu { what, cause } => write!(f, "the GPU failed at {what}: {cause}"),
            Error::Lost { device, cause } => {
                write!(f, "{device} is lost ({cause}); open it again, a CUDA device in a new process")
            }
            Error::Memory { bytes: 0 } => write!(f, "the device is out of memory"),
            Error::Memory { bytes } => write!(f, "cannot allocate {bytes} bytes"),
            Error::DeviceMemory { device, bytes, free } => {
                write!(f, "{device} cannot allocate {bytes} bytes, {free} are free; use a smaller batch or model")
            }
            Error::Diverged { call, op, error, at } => {
                write!(f, "call {call}, {op}: {error} (recorded at {}:{})", at.file(), at.line())
            }
        }
    }
}

impl std::error::Error for Error {}
