//! Launches of layer norm in CUDA.

use super::sums;
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, grid, line};
use crate::contract::{Dims, module};

/// Kernels with a block for every row.
pub(super) const MODULE: Module = module!("layernorm", "layernorm/layernorm.cu");
/// Kernels with a warp for every row.
pub(super) const MODULE_WARPS: Module = module!("layernorm_warps", "layernorm/layernorm_warps.cu");

/// One block per row.
pub(super) const PLAIN: &[Launch] = &[per_block("layernorm_plain")];
pub(super) const PLAIN_F16: &[Launch] = &[per_block("layernorm_plain_f16")];

/// The same, then sums over rows, 32 of them at first.
pub(super) const PLAIN_DX: &[Launch] = &[per_block("layernorm_dx_rows"), of_blocks("layernorm_dx_blocks"), COMBINE];
pub(super) const PLAIN_DX_F16: &[Launch] =
    &[per_block("layernorm_dx_rows_f16"), of_blocks("layernorm_dx_blocks_f16"), COMBINE];

/// One warp per row; only the kernel for the columns has blocks.
pub(super) const WARPS: &[Launch] = &[
    Launch::new("layernorm_warps_256", 128, |d| warps(d, 0, 256)).as_stage(Some("x"), "y"),
    Launch::new("layernorm_warps_1024", 128, |d| warps(d, 256, 1024)),
];

/// The same, then sums over rows, 32 of them at first.
pub(super) const WARPS_DX: &[Launch] = &[
    Launch::new("layernorm_dx_warps_256", 128, |d| warps(d, 0, 256)).writing(&["dx"]).as_stage(Some("dy"), "dx"),
    Launch::new("layernorm_dx_warps_1024", 128, |d| warps(d, 256, 1024)).writing(&["dx"]),
    Launch::new("layernorm_dx_sums", 256, |d| grid(d.size('r'), 32, d.size('c'), 32)).in_batches().writing(&[]),
    Launch::new("layernorm_dx_add", 128, |d| line(d.size('c'), 128)).in_batches().writing(&["dw", "db"]),
];

/// A warp can hold a row.
pub(super) fn fits(d: &Dims) -> bool {
    d.size('c') <= 1024
}

/// The same, and the blocks of rows are within the limits of a grid.
pub(super) fn fits_dx(d: &Dims) -> bool {
    fits(d) && d.size('r').div_ceil(32) <= MAX_BLOCKS_YZ as usize
}

const fn per_block(entry: &'static str) -> Launch {
    Launch::new(entry, 128, |d| line(d.size('r'), 1))
}

const fn of_blocks(entry: &'static str) -> Launch {
    Launch::new(entry, 128, |d| line(sums(d), 128))
}

const COMBINE: Launch = Launch::new("layernorm_dx_combine", 128, |d| line(d.size('c'), 128));

/// Blocks of four rows if they have more than `above` columns and at most `most`.
fn warps(d: &Dims, above: usize, most: usize) -> [u32; 3] {
    let mine = d.size('c') <= most && (d.size('c') > above || above == 0);
    if mine { line(d.size('r'), 4) } else { [0; 3] }
}
