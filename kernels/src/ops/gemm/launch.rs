//! Launches of the products in CUDA.

use crate::contract::cuda::rows::Head;
use crate::contract::cuda::{Launch, MAX_BLOCKS_YZ, Module, grid, line};
use crate::contract::{Dims, module};

/// Kernels of the dense products.
pub(in crate::ops) const MODULE: Module = module!("gemm", "gemm/gemm.cu");

/// Dense products in tiles.
pub(in crate::ops) const TILES: Module = module!("gemm_tiles", "gemm/gemm_tiles.cu");

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
    Launch::new(entry, 256, |d| line(sum_count(d), 256)).in_batches()
}

/// One thread per channel.
pub(in crate::ops) const fn per_channel(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(d.size('o'), 256)).in_batches()
}

/// Kernels that compute a matrix `[rows, cols]` in tiles of `kernels/src/cuda/product.h`.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Tiles {
    blocks: [Blocks; 2],
    /// Sizes that a grid of small tiles can have.
    pub(in crate::ops) fits: fn(&Dims) -> bool,
    /// Sizes with enough tiles of 128 x 128.
    pub(in crate::ops) wide: fn(&Dims) -> bool,
    /// The argument of whose rows `WholeRows` can make stages.
    to: Option<&'static str>,
}

/// Fewer wide tiles than this leave too many processors of a large GPU idle.
const WIDE: usize = 128;

fn fits(rows: usize) -> bool {
    rows.div_ceil(64) <= MAX_BLOCKS_YZ as usize
}

fn wide(rows: usize, cols: usize) -> bool {
    fits(rows) && rows.div_ceil(128).saturating_mul(cols.div_ceil(128)) >= WIDE
}

macro_rules! tiles {
    ($rows:literal, $cols:literal, $to:expr) => {
        Tiles {
            blocks: [|d| grid(d.size($rows), 64, d.size($cols), 64), |d| grid(d.size($rows), 128, d.size($cols), 128)],
            fits: |d| fits(d.size($rows)),
            wide: |d| wide(d.size($rows), d.size($cols)),
            to: $to,
        }
    };
}
/// Over `[r, o]`.
pub(in crate::ops) const TILES_RO: Tiles = tiles!('r', 'o', Some("y"));
/// Over `[r, i]`.
pub(in crate::ops) const TILES_RI: Tiles = tiles!('r', 'i', Some("dx"));
/// Over `[o, i]`.
pub(in crate::ops) const TILES_OI: Tiles = tiles!('o', 'i', None);

impl Tiles {
    /// A launch with tiles of 64 x 64, or 128 x 128, and so many bytes of shared memory.
    pub(in crate::ops) const fn launch(self, wide: bool, entry: &'static str, shared: fn(&Dims) -> usize) -> Launch {
        Launch::new(entry, 256, self.blocks[wide as usize]).with_shared(shared)
    }

    /// `Tiled<1>`, or `WholeRows` where stages follow.
    pub(in crate::ops) const fn tiled(self, entry: &'static str, rows: &'static str) -> Launch {
        let launch = self.launch(false, entry, |_| f32_bytes(64));
        match self.to {
            Some(to) => launch.heading(Head { entry: rows, to, rows: 32, shared_bytes: WHOLE_ROWS_BYTES }),
            None => launch,
        }
    }

    /// `Tiled<2>`.
    pub(in crate::ops) const fn tiled_wide(self, entry: &'static str) -> Launch {
        self.launch(true, entry, |_| f32_bytes(128))
    }

    /// `Mma<1, 32>` of f32.
    pub(in crate::ops) const fn mma(self, entry: &'static str) -> Launch {
        self.launch(false, entry, |_| 3 * bf16_bytes(64, 32))
    }

    /// `Mma<1, 64>` of bf16.
    pub(in crate::ops) const fn mma_bf16(self, entry: &'static str) -> Launch {
        self.launch(false, entry, |_| bf16_bytes(64, 64))
    }

    /// `Mma<1, 32>` of f16.
    pub(in crate::ops) const fn mma_f16(self, entry: &'static str) -> Launch {
        self.launch(false, entry, |_| bf16_bytes(64, 32))
    }

    /// `Mma<2, 64>` of bf16.
    pub(in crate::ops) const fn mma_wide_bf16(self, entry: &'static str) -> Launch {
        self.launch(true, entry, |_| bf16_bytes(128, 64))
    }
}

/// Kernels that compute a matrix `[rows, cols]` in the tiles of `kernels/src/cuda/warpgroup.h`, and sizes that they fit.
macro_rules! groups {
    ($name:ident, $fits:ident, $rows:literal, $cols:literal) => {
        pub(in crate::ops) const fn $name(entry: &'static str) -> Launch {
            Launch::new(entry, 384, |d| grid(d.size($rows), 128, d.size($cols), 256)).with_shared(|_| group_bytes())
        }
        pub(in crate::ops) fn $fits(d: &Dims) -> bool {
            d.size($rows).div_ceil(128) <= MAX_BLOCKS_YZ as usize
        }
    };
}
groups!(groups_ro, groups_fit_ro, 'r', 'o');
groups!(groups_ri, groups_fit_ri, 'r', 'i');
groups!(groups_oi, groups_fit_oi, 'o', 'i');

/// A ring of four stages of 64 of k, which begins at a multiple of 1024, and its barriers.
const fn group_bytes() -> usize {
    1024 + 4 * (128 + 256) * 64 * size_of::<half::bf16>() + 2 * 4 * size_of::<u64>()
}

/// Two buffers of two tiles of f32, `side` by 16.
pub(in crate::ops) const fn f32_bytes(side: usize) -> usize {
    2 * 2 * 16 * (side + 4) * size_of::<f32>()
}

/// Two buffers of 32 rows and 128 columns by 16 of f32, four elements further apart.
const WHOLE_ROWS_BYTES: u32 = 2 * 16 * (32 + 4 + 128 + 4) * size_of::<f32>() as u32;

/// Two buffers of two tiles of bf16 or f16, `side` by `step`; in the other direction they are smaller.
pub(in crate::ops) const fn bf16_bytes(side: usize, step: usize) -> usize {
    2 * 2 * side * (step + 8) * size_of::<half::bf16>()
}

/// Rows of a part of a weight gradient, as in `product.h`.
const PART: usize = 256;

fn parts(d: &Dims) -> usize {
    d.size('r').div_ceil(PART)
}

/// Whether a weight gradient of `[o, i]` has so many rows and so few tiles that its rows are shared among blocks.
pub(in crate::ops) fn in_parts(d: &Dims) -> bool {
    let tiles = d.size('o').div_ceil(64) * d.size('i').div_ceil(64);
    (2..=64).contains(&parts(d)) && tiles < WIDE && fits(d.size('o'))
}

/// Words of sums of all parts.
pub(in crate::ops) fn part_count(d: &Dims) -> usize {
    parts(d) * d.size('o') * d.size('i')
}

fn part_blocks(d: &Dims) -> [u32; 3] {
    let [x, y, _] = grid(d.size('o'), 64, d.size('i'), 64);
    // At most 64.
    [x, y, parts(d) as u32]
}

/// `Tiled<1>` for every part; nothing needs a weight gradient soon, so all of a model's are one launch.
pub(in crate::ops) const fn tiled_parts(entry: &'static str) -> Launch {
    Launch::new(entry, 256, part_blocks).with_shared(|_| f32_bytes(64)).in_batches()
}

/// `Mma<1, 64>` of bf16 for every part.
pub(in crate::ops) const fn mma_parts(entry: &'static str) -> Launch {
    Launch::new(entry, 256, part_blocks).with_shared(|_| bf16_bytes(64, 64)).in_batches()
}
