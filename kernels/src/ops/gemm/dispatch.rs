//! Workgroups of the products in WGSL, one invocation per element, tiles of 64 x 64, or one workgroup
//! per column.

use crate::contract::{Dims, Dispatch, wgsl};

/// Over `[r, o]`.
pub(in crate::ops) const PLAIN_RO: &[Dispatch] = &[Dispatch { entry: "plain", groups: |d| groups(d, 'r', 'o', 16) }];
/// Over `[r, i]`.
pub(in crate::ops) const PLAIN_RI: &[Dispatch] = &[Dispatch { entry: "plain", groups: |d| groups(d, 'r', 'i', 16) }];
/// Over `[o, i]`.
pub(in crate::ops) const PLAIN_OI: &[Dispatch] = &[Dispatch { entry: "plain", groups: |d| groups(d, 'o', 'i', 16) }];
/// Over `[r, o]`.
pub(in crate::ops) const TILED_RO: &[Dispatch] = &[Dispatch { entry: "tiled", groups: |d| groups(d, 'r', 'o', 64) }];
/// Over `[r, i]`.
pub(in crate::ops) const TILED_RI: &[Dispatch] = &[Dispatch { entry: "tiled", groups: |d| groups(d, 'r', 'i', 64) }];
/// Over `[o, i]`.
pub(in crate::ops) const TILED_OI: &[Dispatch] = &[Dispatch { entry: "tiled", groups: |d| groups(d, 'o', 'i', 64) }];

/// Over the columns of `[r, o]` and fours of its rows.
pub(in crate::ops) const SUBGROUPS_RO: &[Dispatch] =
    &[Dispatch { entry: "subgroups", groups: |d| wgsl::grid(d.size('r'), 4, d.size('o'), 1) }];

/// Most rows for which a weight is read by every four of them.
const FEW: usize = 16;

/// There are few rows, and the columns are within the limits of a dispatch.
pub(in crate::ops) fn few_rows(d: &Dims) -> bool {
    d.size('r') <= FEW && d.size('o') <= wgsl::MAX_GROUPS as usize
}

/// Rows fill enough of a tile.
pub(in crate::ops) fn many_rows(d: &Dims) -> bool {
    d.size('r') > FEW
}

fn groups(d: &Dims, rows: char, cols: char, size: u32) -> [u32; 3] {
    wgsl::grid(d.size(rows), size, d.size(cols), size)
}

/// Rows whose sum in a bias gradient is formed by one invocation per channel.
const BLOCK: usize = 32;

/// A sum per channel and block of rows.
pub(in crate::ops) fn sums(d: &Dims) -> usize {
    d.size('r').div_ceil(BLOCK) * d.size('o')
}

/// One invocation per channel and block of rows.
pub(in crate::ops) const BLOCKS: Dispatch = Dispatch { entry: "blocks", groups: |d| wgsl::line(sums(d), 64) };

/// One invocation per channel.
pub(in crate::ops) const fn per_channel(entry: &'static str) -> Dispatch {
    Dispatch { entry, groups: |d| wgsl::line(d.size('o'), 64) }
}
