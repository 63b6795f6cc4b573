//! Runs recorded lists of ops: devices, memory, launch, replay, timing.
//!
//! A [`Builder`] collects calls of contracts on named buffers and checks every shape; [`Plan`] is the finished list;
//! [`Plan::bind`] places all buffers of a device's arenas and picks kernels, and the [`Program`] it returns is run once
//! per step. After `bind` nothing is allocated. This crate may import `kernels` (and device libraries behind
//! features); it knows nothing of gradients or layers.
//!
//! ```
//! use tsn_engine::{Builder, DType, Device, Life, kernels::ops};
//!
//! let mut plan = Builder::new();
//! let x = plan.buffer("x", DType::F32, 2, 3, Life::Input);
//! let y = plan.buffer("y", DType::F32, 2, 3, Life::Output);
//! plan.call(&ops::pointwise::ADD, &[Some(plan.whole(x)), Some(plan.whole(x)), Some(plan.whole(y))], &[])?;
//! let mut program = plan.finish()?.bind(&Device::open("cpu")?)?;
//! program.write("x", &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! program.run()?;
//! assert_eq!(program.read_vec::<f32>("y")?, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
//! # Ok::<(), tsn_engine::Error>(())
//! ```

mod arena;
mod backend;
mod check;
mod device;
mod error;
mod interpret;
#[cfg(feature = "wgsl")]
pub mod launches;
mod layout;
mod plan;
mod profile;
mod program;
mod relay;

#[cfg(feature = "cuda")]
pub use backend::cuda::{CudaDevice, CudaInfo, CudaLaunch, CudaMatrix, CudaRange, Launcher};
#[cfg(feature = "wgpu")]
pub use backend::webgpu::{AdapterInfo, Gpu};
pub use device::Device;
pub use error::{Error, Result};
pub use interpret::Interpreter;
pub use kernels;
pub use kernels::{Contract, DType};
pub use plan::{Buffer, Builder, Life, Plan, Slice};
pub use profile::{Cost, OpTime, Profile};
pub use program::{Element, Program, StateBytes};
pub use relay::Message;
