//! Launches of attention in CUDA.

use super::{Shape, queries};
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, line};
use crate::contract::{Dims, module};

/// Kernels of attention and of its gradient.
pub(super) const MODULE: Module = module!("attention", "attention/attention.cu");
/// The same with tiles in shared memory.
pub(super) const MODULE_TILED: Module = module!("attention_tiled", "attention/attention_tiled.cu");

/// The same on tensor cores.
pub(super) const MODULE_MMA: Module = module!("attention_mma", "attention/attention_mma.cu");
pub(super) const MODULE_MMA_F16: Module = module!("attention_mma_f16", "attention/attention_mma_f16.cu");

/// The same for capability 9.0.
pub(super) const MODULE_WGMMA: Module = module!("attention_wgmma", "attention/attention_wgmma.cu", Sm90a);
pub(super) const MODULE_WGMMA_DX: Module = module!("attention_dx_wgmma", "attention/attention_dx_wgmma.cu", Sm90a);

/// One thread per query and head, or per key and head.
macro_rules! per_head {
    ($suffix:literal: $($entry:literal),*) => {
        &[$(Launch::new(concat!($entry, $suffix), 128, |d| line(queries(d), 128))),*]
    };
}
pub(super) const PLAIN: &[Launch] = per_head!("": "attention_plain");
pub(super) const PLAIN_F16: &[Launch] = per_head!("_f16": "attention_plain");
pub(super) const PLAIN_DX: &[Launch] = per_head!("": "attention_dx_queries", "attention_dx_keys");
pub(super) const PLAIN_DX_F16: &[Launch] = per_head!("_f16": "attention_dx_queries", "attention_dx_keys");

/// Tiles of queries; only the kernel for the columns of a head has blocks.
macro_rules! tiled {
    ($suffix:literal) => {
        &[
            Launch::new(concat!("attention_tiled_16", $suffix), 128, |d| tiles(d, 0, 16, 32)),
            Launch::new(concat!("attention_tiled_32", $suffix), 128, |d| tiles(d, 16, 32, 32)),
            Launch::new(concat!("attention_tiled_64", $suffix), 128, |d| tiles(d, 32, 64, 32)),
            Launch::new(concat!("attention_tiled_128", $suffix), 128, |d| tiles(d, 64, 128, 16)),
        ]
    };
}
pub(super) const TILED: &[Launch] = tiled!("");
pub(super) const TILED_F16: &[Launch] = tiled!("_f16");

/// Tiles of queries and tiles of keys.
macro_rules! tiled_dx {
    ($suffix:literal) => {
        &[
            Launch::new(concat!("attention_dx_tiled_16", $suffix), 128, |d| each(2, tiles(d, 0, 16, 32))),
            Launch::new(concat!("attention_dx_tiled_32", $suffix), 128, |d| each(2, tiles(d, 16, 32, 32))),
            Launch::new(concat!("attention_dx_tiled_64", $suffix), 128, |d| each(2, tiles(d, 32, 64, 32))),
            Launch::new(concat!("attention_dx_tiled_128", $suffix), 128, |d| each(2, tiles(d, 64, 128, 8))),
        ]
    };
}
pub(super) const TILED_DX: &[Launch] = tiled_dx!("");
pub(super) const TILED_DX_F16: &[Launch] = tiled_dx!("_f16");

/// 64 queries of at most so many columns and chunks of so many keys, in planes of 16 bits.
macro_rules! mma {
    ($planes:literal: $($entry:literal $above:literal $most:literal $keys:literal),* $(,)?) => {
        &[$(
            Launch::new($entry, 128, |d| tiles(d, $above, $most, 64))
                .with_shared(|_| $planes * tile_bytes(64 + 2 * $keys, $most))
        ),*]
    };
}
pub(super) const MMA: &[Launch] = mma!(3:
    "attention_mma_32" 0 32 32,
    "attention_mma_64" 32 64 32,
    "attention_mma_128" 64 128 16,
);
pub(super) const MMA_F16: &[Launch] = mma!(1:
    "attention_mma_32_f16" 0 32 64,
    "attention_mma_64_f16" 32 64 64,
    "attention_mma_128_f16" 64 128 64,
);

/// 128 queries and chunks of keys and values.
macro_rules! wgmma {
    ($($entry:literal $above:literal $most:literal),* $(,)?) => {
        &[$(
            Launch::new($entry, 256, |d| tiles(d, $above, $most, 128))
                .with_shared(|_| ring_bytes(1, $most))
                .mapping(&["qkv"])
        ),*]
    };
}
pub(super) const WGMMA_F16: &[Launch] = wgmma!(
    "attention_wgmma_16_f16" 0 16,
    "attention_wgmma_32_f16" 16 32,
    "attention_wgmma_64_f16" 32 64,
    "attention_wgmma_128_f16" 64 128,
);

/// dq, dk and dv: so many rows for each block, 16 for each warp, and chunks of so many others, two matrices of each.
macro_rules! mma_dx {
    ($planes:literal: $($entry:literal $above:literal $most:literal $rows:literal $others:literal),* $(,)?) => {
        &[$(
            Launch::new($entry, 2 * $rows, |d| each(3, tiles(d, $above, $most, $rows)))
                .with_shared(|_| $planes * 2 * tile_bytes($rows + $others, $most))
        ),*]
    };
}
pub(super) const MMA_DX: &[Launch] = mma_dx!(3:
    "attention_dx_mma_32" 0 32 64 32,
    "attention_dx_mma_64" 32 64 64 32,
    "attention_dx_mma_128" 64 128 32 16,
);
pub(super) const MMA_DX_F16: &[Launch] = mma_dx!(1:
    "attention_dx_mma_32_f16" 0 32 64 32,
    "attention_dx_mma_64_f16" 32 64 64 32,
    "attention_dx_mma_128_f16" 64 128 64 32,
);

/// What all blocks need of a query, then dq, dk and dv: 128 rows for each block, and chunks of others, two matrices of each.
macro_rules! wgmma_dx {
    ($($entry:literal $above:literal $most:literal),* $(,)?) => {
        &[
            Launch::new("attention_dx_dots_f16", 128, |d| line(32 * queries(d), 128)),
            $(
                Launch::new($entry, 256, |d| each(3, tiles(d, $above, $most, 128)))
                    .with_shared(|_| ring_bytes(2, $most))
                    .mapping(&["qkv", "dy"])
            ),*
        ]
    };
}
pub(super) const WGMMA_DX_F16: &[Launch] = wgmma_dx!(
    "attention_dx_wgmma_16_f16" 0 16,
    "attention_dx_wgmma_32_f16" 16 32,
    "attention_dx_wgmma_64_f16" 32 64,
    "attention_dx_wgmma_128_f16" 64 128,
);

/// There is a tile as wide as a head, and the tiles are within the limits of a grid.
pub(super) fn fits(d: &Dims) -> bool {
    Shape::new(d).d <= 128 && d.size('t').div_ceil(8) <= MAX_BLOCKS_YZ as usize
}

/// Products of a warpgroup take columns in steps of 16, and those behind a head are another's.
pub(super) fn fits_in_steps(d: &Dims) -> bool {
    Shape::new(d).d.is_multiple_of(16) && fits(d)
}

/// There are as many queries as a block of warpgroups has.
pub(super) fn many_queries(d: &Dims) -> bool {
    d.size('t') >= 128
}

/// Rows of 16-bit numbers, eight further apart than they are long.
const fn tile_bytes(rows: usize, columns: usize) -> usize {
    rows * (columns + 8) * 2
}

/// Matrices of 128 own rows, a ring of two chunks of two matrices of 64 others, in panels of 64 rows and columns, the first at a
/// multiple of 1024; three barriers.
const fn ring_bytes(own: usize, columns: usize) -> usize {
    1024 + 2 * (own + 2) * columns.div_ceil(64) * 64 * 64 * 2 + 3 * size_of::<u64>()
}

/// Blocks per head and `rows` tokens if a head has more than `above` columns and at most `most`.
fn tiles(d: &Dims, above: usize, most: usize, rows: usize) -> [u32; 3] {
    let Shape { heads, t, d: width } = Shape::new(d);
    let blocks = if (above + 1..=most).contains(&width) { d.size('b') * heads } else { 0 };
    [blocks as u32, t.div_ceil(rows) as u32, 1]
}

/// As many for each of some results: for queries and for keys, or for dq, dk and dv.
const fn each(count: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [x, y, count]
}
