//! Launches of the products in CUDA.

use crate::contract::cuda::{Launch, Module, line};
use crate::contract::{Dims, module};

/// Kernels of the dense products.
pub(in crate::ops) const MODULE: Module = module!("gemm", "gemm/gemm.cu");

/// Blocks of 256 threads over a matrix.
type Blocks = fn(&Dims) -> [u32; 3];

/// Over `[r, o]`.
pub(in crate::ops) const RO: Blocks = |d| line(d.size('r') * d.size('o'), 256);
/// Over `[r, i]`.
pub(in crate::ops) const RI: Blocks = |d| line(d.size('r') * d.size('i'), 256);
/// Over `[o, i]`.
pub(in crate::ops) const OI: Blocks = |d| line(d.size('o') * d.size('i'), 256);

/// One thread per element.
pub(in crate::ops) const fn over(blocks: Blocks, entry: &'static str) -> Launch {
    Launch::new(entry, 256, blocks)
}

/// Sums of a bias gradient that are formed apart, one for each channel and 32 rows.
pub(in crate::ops) fn sum_count(d: &Dims) -> usize {
    d.size('r').div_ceil(32) * d.size('o')
}

/// One thread per sum of [`sum_count`].
pub(in crate::ops) const fn sums(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(sum_count(d), 256))
}

/// One thread per channel.
pub(in crate::ops) const fn per_channel(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(d.size('o'), 256))
}
