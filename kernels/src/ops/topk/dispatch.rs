//! Workgroups of the WGSL source: sizes depend on the matrix alone, what `k` and the scores decide stays on the device.

use crate::contract::{Dims, Dispatch, wgsl};

/// Entries that one workgroup counts.
const ENTRIES: u32 = 8192;
/// Words of the mask that one workgroup writes.
const WORDS: u32 = 256;
/// Words of the workspace before the ties of blocks: bins of a digit, then prefix, entries left and mode.
const BINS: usize = 2048 + 3;

/// The digits of the k-th key one after the other, ties in index order, then the mask.
pub(super) const PLAIN: &[Dispatch] = &[
    once("clear"),
    Dispatch { entry: "count_high", groups: entries },
    once("choose_high"),
    Dispatch { entry: "count_middle", groups: entries },
    once("choose_middle"),
    Dispatch { entry: "count_low", groups: entries },
    once("choose_low"),
    Dispatch { entry: "ties_of_blocks", groups: blocks },
    once("ties_before_blocks"),
    Dispatch { entry: "write_words", groups: blocks },
];

const fn once(entry: &'static str) -> Dispatch {
    Dispatch { entry, groups: |_| [1, 1, 1] }
}

fn entries(d: &Dims) -> [u32; 3] {
    wgsl::line(d.size('o') * d.size('i'), ENTRIES)
}

fn words(d: &Dims) -> usize {
    d.size('o') * d.size('i').div_ceil(32)
}

fn blocks(d: &Dims) -> [u32; 3] {
    wgsl::line(words(d), WORDS)
}

/// Words of the workspace.
pub(super) fn work(d: &Dims) -> usize {
    BINS + words(d).div_ceil(WORDS as usize)
}
