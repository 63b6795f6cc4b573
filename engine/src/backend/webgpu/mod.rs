//! Any GPU that `wgpu` reaches: a step is one encoder, one pass, one submission.
//!
//! All arguments lie in two arenas (states; everything else), each cut into chunks that the adapter can allocate. A call
//! binds the range of each argument, a workspace and its parameters; arguments that overlap share a binding. The driver orders
//! dispatches by what they bind. Errors
//! never reach `wgpu`'s own handlers, which would end the process: a scope catches them where memory and pipelines are made,
//! and [`gpu::Gpu`] keeps the first one that comes later.

mod bound;
mod gpu;
mod memory;
mod share;
mod wait;

pub(crate) use bound::Bound;
pub use gpu::{AdapterInfo, Gpu};
