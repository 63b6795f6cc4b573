//! Placeholder until the crate's first slice lands.

pub use autograd;
