//! Launches of the convolutions in CUDA.

use super::{blocks, pixels};
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, grid, line};
use crate::contract::{Dims, module};

/// Kernels of the convolutions.
pub(super) const MODULE: Module = module!("conv", "conv/conv.cu");

/// Rows and columns of a tile.
const TILE: u32 = 64;

/// One thread per element of y, of dx and of dw.
pub(super) const PLAIN: &[Launch] = &[over("conv_plain", y_blocks)];
pub(super) const PLAIN_U8: &[Launch] = &[over("conv_plain_u8", y_blocks)];
pub(super) const PLAIN_DX: &[Launch] = &[over("conv_dx_plain", dx_blocks)];
pub(super) const PLAIN_DW: &[Launch] = &[over("conv_dw_plain", dw_blocks)];
pub(super) const PLAIN_DW_U8: &[Launch] = &[over("conv_dw_plain_u8", dw_blocks)];

/// Tiles of outputs by the pixels of all images.
pub(super) const TILED: &[Launch] = &[Launch::new("conv_tiled", 256, tiles)];
pub(super) const TILED_U8: &[Launch] = &[Launch::new("conv_tiled_u8", 256, tiles)];

/// Tiles of outputs by taps for every block of images, then one thread per element of dw.
pub(super) const TILED_DW: &[Launch] =
    &[Launch::new("conv_dw_tiled", 256, tiles_dw), over("conv_dw_finish_f32", dw_blocks)];
pub(super) const TILED_DW_U8: &[Launch] =
    &[Launch::new("conv_dw_tiled_u8", 256, tiles_dw), over("conv_dw_finish_u8", dw_blocks)];

/// The tiles of outputs are within the limits of a grid.
pub(super) fn fits(d: &Dims) -> bool {
    tiles(d)[1] <= MAX_BLOCKS_YZ
}

/// There are images, and the tiles of outputs are within the limits of a grid.
pub(super) fn fits_dw(d: &Dims) -> bool {
    d.size('n') > 0 && tiles_dw(d)[1] <= MAX_BLOCKS_YZ
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

fn tiles_dw(d: &Dims) -> [u32; 3] {
    let [x, y, _] = grid(d.size('o'), TILE, d.size('j'), TILE);
    [x, y, blocks(d) as u32]
}
