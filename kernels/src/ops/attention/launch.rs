//! Launches of attention in CUDA.

use super::{Shape, queries};
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, line};
use crate::contract::{Dims, module};

/// Kernels of attention and of its gradient.
pub(super) const MODULE: Module = module!("attention", "attention/attention.cu");
/// The same with tiles in shared memory.
pub(super) const MODULE_TILED: Module = module!("attention_tiled", "attention/attention_tiled.cu");

/// One thread per query and head.
pub(super) const PLAIN: &[Launch] = &[per_head("attention_plain")];

/// The same, then one per key and head.
pub(super) const PLAIN_DX: &[Launch] = &[per_head("attention_dx_queries"), per_head("attention_dx_keys")];

/// Tiles of queries; only the kernel for the columns of a head has blocks.
pub(super) const TILED: &[Launch] = &[
    Launch::new("attention_tiled_16", 128, |d| tiles(d, 0, 16, 32)),
    Launch::new("attention_tiled_32", 128, |d| tiles(d, 16, 32, 32)),
    Launch::new("attention_tiled_64", 128, |d| tiles(d, 32, 64, 32)),
    Launch::new("attention_tiled_128", 128, |d| tiles(d, 64, 128, 16)),
];

/// Tiles of queries and tiles of keys.
pub(super) const TILED_DX: &[Launch] = &[
    Launch::new("attention_dx_tiled_16", 128, |d| both(tiles(d, 0, 16, 32))),
    Launch::new("attention_dx_tiled_32", 128, |d| both(tiles(d, 16, 32, 32))),
    Launch::new("attention_dx_tiled_64", 128, |d| both(tiles(d, 32, 64, 32))),
    Launch::new("attention_dx_tiled_128", 128, |d| both(tiles(d, 64, 128, 8))),
];

/// There is a tile as wide as a head, and the tiles are within the limits of a grid.
pub(super) fn fits(d: &Dims) -> bool {
    Shape::new(d).d <= 128 && d.size('t').div_ceil(8) <= MAX_BLOCKS_YZ as usize
}

const fn per_head(entry: &'static str) -> Launch {
    Launch::new(entry, 128, |d| line(queries(d), 128))
}

/// Blocks per head and `rows` tokens if a head has more than `above` columns and at most `most`.
fn tiles(d: &Dims, above: usize, most: usize, rows: usize) -> [u32; 3] {
    let Shape { heads, t, d: width } = Shape::new(d);
    let blocks = if (above + 1..=most).contains(&width) { d.size('b') * heads } else { 0 };
    [blocks as u32, t.div_ceil(rows) as u32, 1]
}

/// One for queries and one for keys.
const fn both([x, y, _]: [u32; 3]) -> [u32; 3] {
    [x, y, 2]
}
