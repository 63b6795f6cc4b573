//! Any GPU that `wgpu` reaches: a step is one encoder, one pass, one submission.
//!
//! What is dispatched and bound is said by [`crate::launches`]; here are the buffers, pipelines and groups made of it. The
//! driver orders dispatches by what they bind. Errors never reach `wgpu`'s own handlers, which would end the process: a scope catches them where memory and pipelines are made,
//! and [`gpu::Gpu`] keeps the first one that comes later.

mod bound;
mod gpu;
mod memory;
mod wait;

pub(crate) use bound::Bound;
pub use gpu::{AdapterInfo, Gpu};
