//! Runs the CUDA kernels on the CPU, as the launcher of an engine's device: their sources compiled as C++, one fiber for each
//! thread.
//!
//! Threads of a block run in one of three orders ([`Order`]) and switch only where they wait for each other, so a missing
//! barrier changes results, and a barrier that some threads leave out ends the process with the kernel, block and thread.
//! Dynamic shared memory begins as NaN. An allocation lies between guard bytes. Nothing here is fast, and the memory model of a
//! GPU is not seen. Empty without the feature `compiled`.
#![cfg(feature = "compiled")]

mod launcher;
mod table;

pub use launcher::{Emulator, Order};
pub use table::{Member, members};
