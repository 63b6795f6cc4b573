//! The learner: banks of tasks on disk, metrics and memory accounting.

#![forbid(unsafe_code)]

pub mod bank;
pub mod error;
pub mod file;
pub mod memory;
pub mod metrics;
pub mod sha256;

pub use bank::Bank;
pub use error::Error;
pub use file::{TensorFile, TensorWriter};
