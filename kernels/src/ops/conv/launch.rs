//! Launches of the convolutions in CUDA.

use super::{Geometry, blocks, pixels};
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, grid, line};
use crate::contract::{Dims, module};
use crate::ops::gemm::launch::{bf16_bytes, f32_bytes};

/// Kernels of the convolutions.
pub(super) const MODULE: Module = module!("conv", "conv/conv.cu");
/// The same in tiles.
pub(super) const MODULE_TILES: Module = module!("conv_tiles", "conv/conv_tiles.cu");

/// Rows and columns of a tile.
const TILE: u32 = 64;

/// One thread per element of y, of dx and of dw.
pub(super) const PLAIN: &[Launch] = &[over("conv_plain", y_blocks)];
pub(super) const PLAIN_U8: &[Launch] = &[over("conv_plain_u8", y_blocks)];
pub(super) const PLAIN_F16: &[Launch] = &[over("conv_plain_f16", y_blocks)];
pub(super) const PLAIN_DX: &[Launch] = &[over("conv_dx_plain", dx_blocks)];
pub(super) const PLAIN_DX_F16: &[Launch] = &[over("conv_dx_plain_f16", dx_blocks)];
pub(super) const PLAIN_DW: &[Launch] = &[over("conv_dw_plain", dw_blocks)];
pub(super) const PLAIN_DW_U8: &[Launch] = &[over("conv_dw_plain_u8", dw_blocks)];
pub(super) const PLAIN_DW_F16: &[Launch] = &[over("conv_dw_plain_f16", dw_blocks)];

/// Tiles of outputs by the pixels of all images.
pub(super) const TILED: &[Launch] = &[Launch::new("conv_tiled", 256, tiles)];
pub(super) const TILED_U8: &[Launch] = &[Launch::new("conv_tiled_u8", 256, tiles)];
pub(super) const MMA: &[Launch] = &[Launch::new("conv_mma", 256, tiles).with_shared(planes)];
pub(super) const MMA_U8: &[Launch] = &[Launch::new("conv_mma_u8", 256, tiles).with_shared(planes_u8)];

/// Tiles of channels by the pixels of a class, for every class.
pub(super) const TILED_DX: &[Launch] =
    &[Launch::new("conv_dx_tiled", 256, tiles_dx).with_shared(|_| f32_bytes(TILE as usize))];
pub(super) const MMA_DX: &[Launch] = &[Launch::new("conv_dx_mma", 256, tiles_dx).with_shared(planes)];

/// Tiles of outputs by taps for every block of images, then one thread per element of dw.
pub(super) const TILED_DW: &[Launch] =
    &[Launch::new("conv_dw_tiled", 256, tiles_dw), over("conv_dw_finish_f32", dw_blocks)];
pub(super) const TILED_DW_U8: &[Launch] =
    &[Launch::new("conv_dw_tiled_u8", 256, tiles_dw), over("conv_dw_finish_u8", dw_blocks)];
pub(super) const MMA_DW: &[Launch] =
    &[Launch::new("conv_dw_mma", 256, tiles_dw).with_shared(planes), over("conv_dw_finish_f32", dw_blocks)];
pub(super) const MMA_DW_U8: &[Launch] =
    &[Launch::new("conv_dw_mma_u8", 256, tiles_dw).with_shared(planes_u8), over("conv_dw_finish_u8", dw_blocks)];

/// The tiles of outputs are within the limits of a grid.
pub(super) fn fits(d: &Dims) -> bool {
    tiles(d)[1] <= MAX_BLOCKS_YZ
}

/// There are images, and the tiles of outputs are within the limits of a grid.
pub(super) fn fits_dw(d: &Dims) -> bool {
    d.size('n') > 0 && tiles_dw(d)[1] <= MAX_BLOCKS_YZ
}

/// Tiles of channels and classes are within the limits of a grid, and 32 bits number the pixels of a class.
pub(super) fn fits_dx(d: &Dims) -> bool {
    let [_, y, z] = tiles_dx(d);
    y <= MAX_BLOCKS_YZ && z <= MAX_BLOCKS_YZ && class_pixels(d) <= NUMBERED
}

/// 32 bits number the pixels of all images.
pub(super) fn fits_mma(d: &Dims) -> bool {
    fits(d) && pixels(d) <= NUMBERED
}

/// As [`fits_dw`], and 32 bits number the pixels of all images.
pub(super) fn fits_mma_dw(d: &Dims) -> bool {
    fits_dw(d) && pixels(d) <= NUMBERED
}

/// Columns of a product, the last tile being as wide as the others.
const NUMBERED: usize = u32::MAX as usize - TILE as usize;

/// Buffers of `Mma<1, 32>` whose operands are f32, three planes each.
fn planes(_: &Dims) -> usize {
    3 * bf16_bytes(TILE as usize, 32)
}

/// The same with one plane for the images.
fn planes_u8(_: &Dims) -> usize {
    2 * bf16_bytes(TILE as usize, 32)
}

const fn over(entry: &'static str, blocks: fn(&Dims) -> [u32; 3]) -> Launch {
    Launch::new(entry, 256, blocks)
}

fn y_blocks(d: &Dims) -> [u32; 3] {
    line(d.size('n') * d.size('e'), 256)
}

fn dx_blocks(d: &Dims) -> [u32; 3] {
    line(d.size('n') * d.size('a'), 256)
}

fn dw_blocks(d: &Dims) -> [u32; 3] {
    line(d.size('o') * d.size('j'), 256)
}

fn tiles(d: &Dims) -> [u32; 3] {
    grid(d.size('o'), TILE, pixels(d), TILE)
}

/// Pixels of all images that lie apart by whole strides, at most.
fn class_pixels(d: &Dims) -> usize {
    let Geometry { height, width, stride, .. } = Geometry::new(d);
    d.size('n').saturating_mul(height.div_ceil(stride) * width.div_ceil(stride))
}

fn tiles_dx(d: &Dims) -> [u32; 3] {
    let Geometry { channels, height, width, stride, .. } = Geometry::new(d);
    let [x, y, _] = grid(channels, TILE, class_pixels(d), TILE);
    let classes = u32::try_from(stride.min(height).saturating_mul(stride.min(width)));
    [x, y, classes.unwrap_or(u32::MAX)]
}

fn tiles_dw(d: &Dims) -> [u32; 3] {
    let [x, y, _] = grid(d.size('o'), TILE, d.size('j'), TILE);
    [x, y, blocks(d) as u32]
}
