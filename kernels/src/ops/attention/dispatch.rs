//! Workgroups of attention in WGSL.

use super::{Shape, queries};
use crate::contract::{Dims, Dispatch, wgsl};

/// Queries, keys and columns of a tile.
const TILE: usize = 64;

/// One invocation per query and head.
pub(super) const PLAIN: &[Dispatch] = &[per_head("plain")];

/// The same, then one per key and head.
pub(super) const PLAIN_DX: &[Dispatch] = &[per_head("queries"), per_head("keys")];

/// Tiles of queries by columns of a head.
pub(super) const TILED: &[Dispatch] = &[Dispatch { entry: "tiled", groups: tiles }];

/// One workgroup per query, head and 64 columns.
pub(super) const SUBGROUPS: &[Dispatch] = &[Dispatch {
    entry: "subgroups",
    groups: |d| {
        let [x, y, _] = wgsl::line(queries(d), 1);
        [x, y, blocks_of_columns(d)]
    },
}];

/// The columns of a head are within the limits of a dispatch.
pub(super) fn columns_fit(d: &Dims) -> bool {
    blocks_of_columns(d) <= wgsl::MAX_GROUPS
}

fn blocks_of_columns(d: &Dims) -> u32 {
    Shape::new(d).d.div_ceil(TILE) as u32
}

/// A value per query and head, tiles of queries, tiles of keys.
pub(super) const TILED_DX: &[Dispatch] =
    &[per_head("dots"), Dispatch { entry: "queries", groups: tiles }, Dispatch { entry: "keys", groups: tiles }];

/// Fewest tokens of a sequence for which tiles are not mostly empty.
const FEW: usize = 16;

/// There are tokens enough, and the tiles are within the limits of a dispatch.
pub(super) fn fits(d: &Dims) -> bool {
    d.size('t') >= FEW && tiles(d).iter().all(|groups| *groups <= wgsl::MAX_GROUPS)
}

const fn per_head(entry: &'static str) -> Dispatch {
    Dispatch { entry, groups: |d| wgsl::line(queries(d), 64) }
}

fn tiles(d: &Dims) -> [u32; 3] {
    let Shape { heads, t, d: width } = Shape::new(d);
    [d.size('b') * heads, t.div_ceil(TILE), width.div_ceil(TILE)].map(|groups| groups as u32)
}
