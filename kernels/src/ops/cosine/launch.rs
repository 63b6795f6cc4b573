//! Launches of the cosines in CUDA.

use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, grid, line};
use crate::contract::{Dims, module};
use crate::ops::gemm::launch::bf16_bytes;

/// Kernels of the cosines.
pub(super) const MODULE: Module = module!("cosine", "cosine/cosine.cu");
/// The same with tiles in shared memory.
pub(super) const MODULE_TILED: Module = module!("cosine_tiled", "cosine/cosine_tiled.cu");

/// Rows of p in a tile.
const ROWS: u32 = 64;
/// Queries of the small tile and of the large one.
const FEW: u32 = 16;
const MANY: u32 = 64;
/// Most results of a query: a warp keeps one for each lane.
const MOST: usize = 32;
/// Blocks among which the choice is split if there are few queries: several for every processor of a large GPU.
const BLOCKS: usize = 1024;
/// Fewest tiles of p for a block.
const TILES: usize = 4;

/// One thread per y.
pub(super) const PLAIN: &[Launch] = &[per_element("cosine_plain")];
pub(super) const PLAIN_F16: &[Launch] = &[per_element("cosine_plain_f16")];

/// One thread per query.
pub(super) const PLAIN_TOPK: &[Launch] = &[per_query("cosine_topk_plain")];
pub(super) const PLAIN_TOPK_F16: &[Launch] = &[per_query("cosine_topk_plain_f16")];

/// Tiles of y; only one of the kernels has blocks.
pub(super) const TILED: &[Launch] =
    &[Launch::new("cosine_tiled_16", 256, |d| tiles(d, FEW)), Launch::new("cosine_tiled_64", 256, |d| tiles(d, MANY))];

/// Tiles of queries by spans of p, then one warp per query.
pub(super) const TILED_TOPK: &[Launch] = &[
    Launch::new("cosine_topk_tiled_16", 256, |d| blocks(d, FEW)),
    Launch::new("cosine_topk_tiled_64", 256, |d| blocks(d, MANY)),
    Launch::new("cosine_topk_merge", 128, |d| line(d.size('n'), 4)),
];

/// The same on tensor cores, for 64 queries.
pub(super) const MMA: &[Launch] =
    &[Launch::new("cosine_mma", 256, |d| grid(d.size('n'), MANY, d.size('m'), ROWS)).with_shared(planes)];
pub(super) const MMA_TOPK: &[Launch] = &[
    Launch::new("cosine_topk_mma", 256, |d| [line(d.size('n'), MANY)[0], spans(d) as u32, 1]).with_shared(planes),
    Launch::new("cosine_topk_merge", 128, |d| line(d.size('n'), 4)),
];

const fn per_element(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(d.size('n') * d.size('m'), 256))
}

const fn per_query(entry: &'static str) -> Launch {
    Launch::new(entry, 64, |d| line(d.size('n'), 64))
}

/// Buffers of `Mma<1, 32>` of f32.
fn planes(_: &Dims) -> usize {
    3 * bf16_bytes(ROWS as usize, 32)
}

/// The tiles are within the limits of a grid.
pub(super) fn fits(d: &Dims) -> bool {
    d.size('n').div_ceil(queries(d) as usize) <= MAX_BLOCKS_YZ as usize
}

/// The same for those of 64 queries, and 32 bits number the rows of p.
pub(super) fn fits_mma(d: &Dims) -> bool {
    d.size('n').div_ceil(MANY as usize) <= MAX_BLOCKS_YZ as usize && numbered(d)
}

/// 32 bits number the rows of p, those of the last tile included.
fn numbered(d: &Dims) -> bool {
    d.size('m') <= u32::MAX as usize - ROWS as usize
}

/// A warp can keep the results of a query.
pub(super) fn fits_topk(d: &Dims) -> bool {
    d.size('k') <= MOST
}

/// The same, and 32 bits number the rows of p.
pub(super) fn fits_mma_topk(d: &Dims) -> bool {
    fits_topk(d) && numbered(d)
}

/// The number of spans, a word that keeps pairs even, and a pair for every query, span and result.
pub(super) fn work(d: &Dims) -> usize {
    2 + 2 * d.size('n') * spans(d) * d.size('k')
}

/// Queries of a tile.
fn queries(d: &Dims) -> u32 {
    if d.size('n') <= FEW as usize { FEW } else { MANY }
}

fn tiles(d: &Dims, height: u32) -> [u32; 3] {
    if queries(d) == height { grid(d.size('n'), height, d.size('m'), ROWS) } else { [0; 3] }
}

fn spans(d: &Dims) -> usize {
    let wanted = BLOCKS.div_ceil(d.size('n').div_ceil(queries(d) as usize).max(1));
    d.size('m').div_ceil(ROWS as usize).div_ceil(TILES).clamp(1, wanted)
}

fn blocks(d: &Dims, height: u32) -> [u32; 3] {
    let [x, _, _] = line(d.size('n'), height);
    if queries(d) == height { [x, spans(d) as u32, 1] } else { [0; 3] }
}
