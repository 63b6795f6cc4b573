//! What the benchmarks share: shapes, seeded data, single kernel calls, and the programs of whole steps.
//!
//! May import every crate of the core. Ids are `op/backend_dtype_variant/shape_density`, for example
//! `masked_gemm/cpu_f32_tiles_avx512/r3840_o512_i128_d50`: density in percent of the weights a mask keeps. Everything
//! runs on one thread unless the shape ends in `_w2`. Data depends on the sizes alone.
//!
//! ```
//! use tsn_benches::kernels::{Array, Isa, ops::gemm::GEMM};
//! use tsn_benches::{Work, output, trial, values};
//!
//! let args = vec![values(1, 60, 128), values(2, 8, 128), Array::Absent, output(60, 8)];
//! let mut work = Work::new(trial(&GEMM, args, &[]), GEMM.best(Isa::detect()));
//! assert_eq!((work.flops(), work.bytes()), (2 * 60 * 128 * 8, 4 * (60 * 128 + 8 * 128 + 60 * 8)));
//! ```

pub mod measure;
#[cfg(feature = "rivals")]
pub mod rivals;
mod step;
mod work;

pub use kernels;
pub use step::{Model, Step};
pub use work::{Work, bits, bytes, output, trial, values, variants};

/// Rows of a CartPole or Panda batch: 64 windows of 60 tokens, and one window.
pub const ROWS: [usize; 2] = [60, 3840];
/// Outputs and inputs of the model's weights, attention and feed-forward.
pub const WEIGHTS: [(usize, usize); 4] = [(128, 128), (384, 128), (512, 128), (128, 512)];
/// Share of the weights a task keeps: this project's default and the published runs'.
pub const DENSITIES: [f64; 2] = [0.08, 0.5];

/// `d8` for 8 %.
pub fn density_label(density: f64) -> String {
    format!("d{:.0}", density * 100.0)
}
