//! Workgroups of the cosines in WGSL.

use crate::contract::{Dims, Dispatch, wgsl};

/// Most scores that [`TILED_TOPK`] stores, 64 MiB of them, and most rounds over them.
const SCORES: usize = 1 << 24;
const ROUNDS: usize = 64;

/// One invocation per y.
pub(super) const PLAIN: &[Dispatch] =
    &[Dispatch { entry: "plain", groups: |d| wgsl::grid(d.size('n'), 16, d.size('m'), 16) }];

/// One invocation per query.
pub(super) const PLAIN_TOPK: &[Dispatch] = &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('n'), 64) }];

/// The length of every row, then tiles.
pub(super) const TILED: &[Dispatch] = &[LENGTHS, TILES];

/// The same, then one workgroup per query.
pub(super) const TILED_TOPK: &[Dispatch] = &[LENGTHS, TILES, CHOOSE];

/// One workgroup per row of p and four queries.
pub(super) const SUBGROUPS: &[Dispatch] =
    &[Dispatch { entry: "subgroups", groups: |d| wgsl::grid(d.size('n'), 4, d.size('m'), 1) }];

/// One workgroup for the length of every row, then tiles, then one workgroup per query.
pub(super) const SUBGROUPS_TOPK: &[Dispatch] =
    &[Dispatch { entry: "lengths", groups: |d| wgsl::line(lengths(d), 1) }, TILES, CHOOSE];

/// Most queries for which every row of p is read by every four of them.
const FEW: usize = 16;

/// There are few queries, and the rows of p are within the limits of a dispatch.
pub(super) fn few_queries(d: &Dims) -> bool {
    d.size('n') <= FEW && d.size('m') <= wgsl::MAX_GROUPS as usize
}

/// Queries fill enough of a tile.
pub(super) fn many_queries(d: &Dims) -> bool {
    d.size('n') > FEW
}

const LENGTHS: Dispatch = Dispatch { entry: "lengths", groups: |d| wgsl::line(lengths(d), 64) };
const CHOOSE: Dispatch = Dispatch { entry: "choose", groups: |d| wgsl::line(d.size('n'), 1) };
const TILES: Dispatch = Dispatch { entry: "tiled", groups: |d| wgsl::grid(d.size('n'), 64, d.size('m'), 64) };

/// A word per row.
pub(super) fn lengths(d: &Dims) -> usize {
    d.size('n') + d.size('m')
}

/// The lengths and all scores.
pub(super) fn scores(d: &Dims) -> usize {
    lengths(d) + d.size('n') * d.size('m')
}

/// The scores can be stored, and are few enough to be gone through for every result.
pub(super) fn fits(d: &Dims) -> bool {
    d.size('n') * d.size('m') <= SCORES && d.size('k') <= ROUNDS
}
