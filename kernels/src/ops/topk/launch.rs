//! Launches of top-k in CUDA: sizes depend on the matrix alone, what `k` and the scores decide stays on the device.

use crate::contract::cuda::{Launch, Module, line};
use crate::contract::{Dims, module};

/// Kernels of top-k.
pub(super) const MODULE: Module = module!("topk", "topk/topk.cu");

/// Entries that one block counts.
const ENTRIES: u32 = 8192;
/// Words of the mask that one block writes.
const WORDS: u32 = 256;
/// Words of the workspace before the ties of blocks: bins of a digit, then prefix, entries left and mode.
const BINS: usize = 2048 + 3;

/// The digits of the k-th key one after the other, ties in index order, then the mask.
pub(super) const PLAIN: &[Launch] = &[
    once("topk_clear"),
    count("topk_count_high"),
    once("topk_choose_high"),
    count("topk_count_middle"),
    once("topk_choose_middle"),
    count("topk_count_low"),
    once("topk_choose_low"),
    over_words("topk_ties"),
    once("topk_ties_before"),
    over_words("topk_write"),
];

/// All of that by one block.
pub(super) const BLOCK: &[Launch] = &[Launch::new("topk_block", 512, |_| [1, 1, 1]).in_batches()];

/// Sizes that one block goes through about as soon as ten launches follow each other; words are no more than entries.
pub(super) fn fits_block(d: &Dims) -> bool {
    d.size('o') * d.size('i') <= 1 << 16
}

/// Words of workspace.
pub(super) fn work(d: &Dims) -> usize {
    BINS + words(d).div_ceil(WORDS as usize)
}

const fn once(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |_| [1, 1, 1]).in_batches()
}

const fn count(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(d.size('o') * d.size('i'), ENTRIES)).in_batches()
}

const fn over_words(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| line(words(d), WORDS)).in_batches()
}

fn words(d: &Dims) -> usize {
    d.size('o') * d.size('i').div_ceil(32)
}
