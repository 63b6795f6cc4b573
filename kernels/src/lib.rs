//! What every op means: its contract, its f64 reference and its CPU code.
//!
//! This crate owns the list of ops ([`OPS`]). An op is a value, a `static` [`Contract`]: shapes as letters, scalars,
//! tolerance, cost, the reference and one source per backend. Everything else in the workspace (shape checks, the
//! conformance suite, the profiler, the support table) is derived from that value. It may import `rayon`, `bytemuck`
//! and `half`, and never holds a device handle.
//!
//! ```
//! use tsn_kernels as kernels;
//!
//! let op = kernels::ops::find("masked_gemm").expect("in the list");
//! assert_eq!(op.args[0].name, "x");
//! ```

// What other variants use; a plain loop needs little of it.
#![cfg_attr(tsn_small, allow(dead_code, unused_imports, unused_macros))]

pub mod bits;
pub mod ceiling;
pub mod contract;
pub mod crossover;
pub mod operand;
pub mod ops;
pub mod pages;
pub mod par;
pub mod philox;
pub mod reference;
pub mod repeat;
pub mod sha256;
pub mod simd;
pub mod trial;

pub use bits::BitMask;
pub use contract::{
    Access, Arg, Contract, Cuda, DType, Dims, Dispatch, GpuFeature, Launch, Scratch, Tol, Variant, Wgsl,
};
pub use crossover::Crossover;
pub use half::{bf16, f16};
pub use operand::{BitMat, BitMatMut, Call, Mat, MatMut, Operand};
pub use ops::OPS;
pub use par::Pool;
pub use reference::{Reference, Value};
pub use repeat::Repeat;
pub use simd::Isa;
pub use trial::{Array, Trial};
