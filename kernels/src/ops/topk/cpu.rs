//! Portable: the k-th key by histograms of its digits, highest first, then one writing pass.

use crate::bits::row_word;
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, BitMatMut, Call, Mat};

/// Bins of the largest histogram: 8 KiB, a quarter of a small first-level cache.
pub(super) const BINS: usize = 1 << 11;
/// Below this many keys clearing and scanning bins costs more than the keys.
const FEW: usize = 2048;
/// Significant bits of a key.
pub(super) const KEY_BITS: u32 = 31;

/// Magnitude as an integer.
#[inline(always)]
pub(super) fn key(score: f32) -> u32 {
    score.to_bits() & 0x7FFF_FFFF
}

/// The arguments of one call.
pub(super) struct Select<'a> {
    pub(super) score: Mat<'a, f32>,
    pub(super) candidates: Option<BitMat<'a>>,
    pub(super) base: Option<BitMat<'a>>,
    pub(super) mask: BitMatMut<'a>,
    pub(super) k: usize,
    pub(super) keep_ties: bool,
}

/// The last key that is kept, and how many of the entries that have it, lowest index first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) key: u32,
    pub(super) equal: usize,
}

impl<'a> Select<'a> {
    pub(super) fn of(c: &mut Call<'a>) -> Select<'a> {
        Select {
            score: c.f32(0),
            candidates: c.bits_opt(1),
            base: c.bits_opt(2),
            k: c.u32(3).data[0] as usize,
            mask: c.bits_mut(4),
            keep_ties: c.dims.scalar(0) == 1,
        }
    }

    /// Words of one row.
    pub(super) fn words(&self) -> usize {
        self.score.cols.div_ceil(32)
    }

    /// Candidates among the 32 entries of word `at` of row `r`.
    #[inline(always)]
    pub(super) fn open(&self, r: usize, at: usize) -> u32 {
        row_word(self.score.cols as u32, at) & self.candidates.map_or(u32::MAX, |c| c.words[r * c.ld + at])
    }

    #[inline(always)]
    pub(super) fn base(&self, r: usize, at: usize) -> u32 {
        self.base.map_or(0, |b| b.words[r * b.ld + at])
    }

    /// Number of candidates.
    pub(super) fn count(&self) -> usize {
        match self.candidates {
            None => self.score.rows * self.score.cols,
            Some(_) => self.each_word().map(|(r, at)| self.open(r, at).count_ones() as usize).sum(),
        }
    }

    /// `(row, word)` in index order.
    pub(super) fn each_word(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let words = self.words();
        (0..self.score.rows).flat_map(move |r| (0..words).map(move |at| (r, at)))
    }

    /// Writes `base`, with all candidates if `all`.
    fn write_trivial(&mut self, all: bool) {
        for (r, at) in self.each_word() {
            let open = if all { self.open(r, at) } else { 0 };
            self.mask.words[r * self.mask.ld + at] = self.base(r, at) | open;
        }
    }

    /// Writes the mask if no key has to be compared: none or all candidates are kept.
    pub(super) fn is_trivial(&mut self, count: usize) -> bool {
        let trivial = self.k == 0 || self.k >= count;
        if trivial {
            self.write_trivial(self.k > 0);
        }
        trivial
    }

    /// The cut found by reading all candidates once for every digit.
    pub(super) fn cut(&self, count: usize, bins: &mut [u32]) -> Cut {
        let cut = kth(KEY_BITS, count, self.k, bins, |digit, bins| {
            for (r, at) in self.each_word() {
                let mut open = self.open(r, at);
                let row = &self.score.row(r)[at * 32..];
                if open == u32::MAX {
                    row[..32].iter().for_each(|score| digit.add(key(*score), bins));
                    continue;
                }
                while open != 0 {
                    digit.add(key(row[open.trailing_zeros() as usize]), bins);
                    open &= open - 1; // clear the lowest set bit
                }
            }
        });
        self.with_ties(cut)
    }

    pub(super) fn with_ties(&self, cut: Cut) -> Cut {
        if self.keep_ties { Cut { equal: usize::MAX, ..cut } } else { cut }
    }

    /// Writes the mask of a cut; the tie class is used up in index order.
    pub(super) fn write(&mut self, cut: Cut) {
        let mut left = cut.equal;
        for (r, at) in self.each_word() {
            let row = &self.score.row(r)[at * 32..];
            let (mut above, mut equal) = (0, 0);
            for (j, score) in row[..row.len().min(32)].iter().enumerate() {
                above |= u32::from(key(*score) > cut.key) << j;
                equal |= u32::from(key(*score) == cut.key) << j;
            }
            let open = self.open(r, at);
            let kept = above & open | lowest(equal & open, &mut left);
            self.mask.words[r * self.mask.ld + at] = self.base(r, at) | kept;
        }
    }
}

/// The lowest `left` set bits of a word; `left` shrinks by their number.
#[inline(always)]
pub(super) fn lowest(word: u32, left: &mut usize) -> u32 {
    let count = word.count_ones() as usize;
    if count <= *left {
        *left -= count;
        return word;
    }
    let mut rest = word;
    for _ in 0..std::mem::take(left) {
        rest &= rest - 1; // clear the lowest set bit
    }
    word & !rest
}

/// A digit of keys whose higher digits are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digit {
    prefix: u32,
    shift: u32,
    bits: u32,
}

impl Digit {
    /// Counts a key that has the known higher digits.
    #[inline(always)]
    pub(super) fn add(&self, key: u32, bins: &mut [u32]) {
        let upper = key >> self.shift;
        if upper >> self.bits == self.prefix {
            bins[(upper & ((1 << self.bits) - 1)) as usize] += 1;
        }
    }
}

/// The `k`-th largest of `count` keys of `width` significant bits, `1 <= k <= count`. `add` puts all keys into the bins
/// of a digit.
pub(super) fn kth(mut width: u32, count: usize, k: usize, bins: &mut [u32], add: impl Fn(Digit, &mut [u32])) -> Cut {
    let most = if count < FEW { 8 } else { BINS.ilog2() };
    let (mut prefix, mut equal) = (0, k);
    while width > 0 {
        let bits = most.min(width);
        width -= bits;
        let bins = &mut bins[..1 << bits];
        bins.fill(0);
        add(Digit { prefix, shift: width, bits }, bins);
        let mut bin = bins.len() - 1;
        while equal > bins[bin] as usize {
            equal -= bins[bin] as usize;
            bin -= 1;
        }
        prefix = prefix << bits | bin as u32;
    }
    Cut { key: prefix, equal }
}

pub(super) fn scratch(_: &Dims) -> Scratch {
    Scratch { shared: BINS, worker: 0 }
}

pub(super) fn topk(c: &mut Call<'_>) {
    let mut select = Select::of(c);
    let count = select.count();
    if !select.is_trivial(count) {
        let cut = select.cut(count, bytemuck::cast_slice_mut(&mut c.shared[..BINS]));
        select.write(cut);
    }
}
