//! Workgroups of the convolutions in WGSL.

use super::{blocks, pixels};
use crate::contract::{Dims, Dispatch, wgsl};

/// Rows and columns of a tile.
const TILE: u32 = 64;

/// One invocation per element of y.
pub(super) const PLAIN: &[Dispatch] =
    &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('n') * d.size('e'), 64) }];

/// One invocation per element of dx.
pub(super) const PLAIN_DX: &[Dispatch] =
    &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('n') * d.size('a'), 64) }];

/// One invocation per element of dw.
pub(super) const PLAIN_DW: &[Dispatch] =
    &[Dispatch { entry: "plain", groups: |d| wgsl::grid(d.size('o'), 16, d.size('j'), 16) }];

/// Tiles of outputs by the pixels of all images.
pub(super) const TILED: &[Dispatch] =
    &[Dispatch { entry: "tiled", groups: |d| wgsl::grid(d.size('o'), TILE, pixels(d), TILE) }];

/// Tiles of channels by the pixels of all images.
pub(super) const TILED_DX: &[Dispatch] =
    &[Dispatch { entry: "tiled", groups: |d| wgsl::grid(d.scalar(0) as usize, TILE, places(d), TILE) }];

/// Tiles of outputs by taps for every block of images, then one invocation per element of dw.
pub(super) const TILED_DW: &[Dispatch] = &[
    Dispatch {
        entry: "tiled",
        groups: |d| {
            let [x, y, _] = wgsl::grid(d.size('o'), TILE, d.size('j'), TILE);
            [x, y, blocks(d) as u32]
        },
    },
    Dispatch { entry: "finish", groups: |d| wgsl::grid(d.size('o'), 16, d.size('j'), 16) },
];

/// What the dispatches of [`TILED_DW`] use: dy, x and sums, then sums, weights, bits and outputs.
pub(super) const USES_DW: &[&[u32]] = &[&[0, 1, wgsl::WORK_BINDING], &[2, 3, 4, 5, 6, 7, wgsl::WORK_BINDING]];

/// The columns of [`TILED`] are within the limits of a dispatch.
pub(super) fn fits(d: &Dims) -> bool {
    pixels(d).div_ceil(TILE as usize) <= wgsl::MAX_GROUPS as usize
}

/// The columns of [`TILED_DX`] are within the limits of a dispatch.
pub(super) fn fits_dx(d: &Dims) -> bool {
    places(d).div_ceil(TILE as usize) <= wgsl::MAX_GROUPS as usize
}

/// Input pixels of all images, channels counted once.
fn places(d: &Dims) -> usize {
    d.size('n') * d.scalar(1) as usize * d.scalar(2) as usize
}
