//! Records and differentiates ops.

pub use engine;
