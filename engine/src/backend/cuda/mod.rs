//! NVIDIA's GPUs through their driver: a step is one graph of launches, captured once and replayed.
//!
//! All arguments lie in two allocations (states; everything else). Every kernel gets one struct of pointers, sizes and
//! scalars by value ([`kernels::contract::cuda::argument_bytes`]), made when a plan is bound. What launches them is a
//! [`Launcher`]: the driver, or in tests an emulator on the CPU. Launches of one kernel that need nothing of each other are one
//! ([`order`]), and so are those that are done to the same rows ([`rows`]).

mod bound;
mod driver;
mod launcher;
#[cfg(feature = "nvrtc")]
mod nvrtc;
mod nvtx;
mod order;
mod probe;
mod rows;
mod whole;

pub(crate) use bound::Bound;
pub use launcher::{CudaDevice, CudaInfo, CudaLaunch, CudaMatrix, Launcher};
pub use nvtx::CudaRange;
