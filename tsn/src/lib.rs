//! The learner: banks of tasks on disk, metrics and memory accounting.

#![forbid(unsafe_code)]

pub mod error;
pub mod file;
pub mod sha256;

pub use error::Error;
pub use file::{TensorFile, TensorWriter};
