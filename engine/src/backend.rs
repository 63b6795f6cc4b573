//! One file per backend.

pub(crate) mod cpu;
#[cfg(feature = "wgpu")]
pub(crate) mod webgpu;
