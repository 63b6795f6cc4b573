//! The model, its batches and its environments.

pub use autograd;
