//! The k-th key bracketed from a sample.
//!
//! ```text
//! lo, hi  = keys of a sample around the rank of k, a few standard deviations apart
//! scan    : mask = key > hi; within = lo <= key <= hi; keys of `within` are collected in index order
//! kth     : the k-th key lies in the collection if above < k <= above + collected
//! settle  : mask |= the part of `within` over the cut
//! ```
//!
//! The result is exact whatever the sample: if the bracket misses or the collection overflows, the histograms of
//! [`super::cpu`] decide.

use super::cpu::{BINS, Cut, KEY_BITS, Select, key, kth, lowest};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;

/// Up to this many entries all keys are collected: a sample would be no smaller.
const WHOLE: usize = 4096;
/// Room past the collected keys: a step of [`Scan`] may store this many more than it keeps.
pub(super) const SLACK: usize = 32;

/// Reads all scores once: writes `base | key > hi` to the mask, `lo <= key <= hi` to the words of `within`, and the keys of
/// `within` to `keys`, all for candidates only and in index order. `lo == hi` collects no keys.
/// Returns the number of keys above and within, or `None` if `keys` is full.
pub(super) type Scan =
    fn(&mut Select<'_>, lo: u32, hi: u32, within: &mut [u32], keys: &mut [u32]) -> Option<(usize, usize)>;
/// Adds the entries of `within` that a cut keeps to the mask.
pub(super) type Settle = fn(&mut Select<'_>, Cut, within: &[u32], keys: &[u32]);

fn capacity(entries: usize) -> usize {
    if entries <= WHOLE { entries } else { (entries / 4).max(WHOLE) }
}

pub(super) fn scratch(d: &Dims) -> Scratch {
    let (o, i) = (d.size('o'), d.size('i'));
    Scratch { shared: BINS + o * i.div_ceil(32) + capacity(o * i) + SLACK, worker: 0 }
}

pub(super) fn topk(c: &mut Call<'_>) {
    topk_by(c, scan, settle);
}

pub(super) fn topk_by(c: &mut Call<'_>, scan: Scan, settle: Settle) {
    let mut select = Select::of(c);
    let count = select.count();
    if select.is_trivial(count) {
        return;
    }
    let entries = select.score.rows * select.score.cols;
    let (bins, rest) = bytemuck::cast_slice_mut::<f32, u32>(c.shared).split_at_mut(BINS);
    let (within, keys) = rest.split_at_mut(select.score.rows * select.words());
    let keys = &mut keys[..capacity(entries) + SLACK];
    let (lo, hi) = match entries <= WHOLE {
        true => (0, u32::MAX >> (32 - KEY_BITS)),
        false => bracket(&select, count, keys),
    };
    match scan(&mut select, lo, hi, within, keys) {
        Some((above, inside)) if above < select.k && select.k <= above + inside => {
            let k = select.k - above;
            if lo == hi {
                let cut = select.with_ties(Cut { key: lo, equal: k });
                return settle_equal(&mut select, cut.equal, within);
            }
            let keys = &keys[..inside + SLACK];
            let cut = kth(32 - (hi - lo).leading_zeros(), inside, k, bins, |digit, bins| {
                keys[..inside].iter().for_each(|key| digit.add(key - lo, bins));
            });
            let cut = select.with_ties(Cut { key: lo + cut.key, ..cut });
            settle(&mut select, cut, within, keys);
        }
        _ => {
            let cut = select.cut(count, bins);
            select.write(cut);
        }
    }
}

/// Keys between which the k-th of `count` candidates lies, almost always.
fn bracket(select: &Select<'_>, count: usize, sample: &mut [u32]) -> (u32, u32) {
    let entries = select.score.rows * select.score.cols;
    let wanted = (entries / 128).clamp(1024, 32768);
    let stride = entries / wanted;
    let mut found = 0;
    for at in 0..wanted {
        // A fixed stride could meet the same column in every row; the offset walks through the stride irregularly.
        let offset = (at as u32).wrapping_mul(0x9E37_79B9);
        let index = at * stride + ((u64::from(offset) * stride as u64) >> 32) as usize;
        let (r, j) = (index / select.score.cols, index % select.score.cols);
        if select.open(r, j / 32) >> (j % 32) & 1 == 1 {
            sample[found] = key(select.score.row(r)[j]);
            found += 1;
        }
    }
    let sample = &mut sample[..found];
    // Rank of the k-th candidate in the sample, give or take 3.5 standard deviations.
    let share = select.k as f64 / count as f64;
    let rank = share * found as f64;
    let spread = 3.5 * (found as f64 * share * (1.0 - share)).sqrt() + 2.0;
    let from_top = |rank: f64| found.checked_sub(1 + rank as usize);
    let lo = from_top(rank + spread).map_or(0, |at| *sample.select_nth_unstable(at).1);
    let hi = match rank - spread {
        rank if rank >= 0.0 => from_top(rank).map(|at| *sample.select_nth_unstable(at).1),
        _ => None,
    };
    (lo, hi.unwrap_or(u32::MAX >> (32 - KEY_BITS)))
}

/// Bit `j`: the key of `scores[j]` is over `limit`, which may be -1.
fn over(scores: &[f32; 32], limit: i32) -> u32 {
    scores.iter().enumerate().fold(0, |word, (j, score)| word | u32::from(key(*score) as i32 > limit) << j)
}

/// A [`Scan`]; what lies in the bracket is rare enough to be moved one by one.
fn scan(select: &mut Select<'_>, lo: u32, hi: u32, within: &mut [u32], keys: &mut [u32]) -> Option<(usize, usize)> {
    let words = select.words();
    let room = keys.len() - SLACK;
    let (mut above, mut inside, mut stored) = (0, 0, 0);
    for r in 0..select.score.rows {
        let row = select.score.row(r);
        for at in 0..words {
            let open = select.open(r, at);
            let rest = &row[at * 32..];
            let mut tail = [0.0; 32];
            let scores = rest.first_chunk().unwrap_or_else(|| {
                tail[..rest.len()].copy_from_slice(rest);
                &tail
            });
            let top = over(scores, hi as i32) & open;
            // lo - 1 is -1 for lo = 0: every key is over it.
            let close = over(scores, lo as i32 - 1) & open & !top;
            select.mask.words[r * select.mask.ld + at] = select.base(r, at) | top;
            within[r * words + at] = close;
            above += top.count_ones() as usize;
            inside += close.count_ones() as usize;
            if lo < hi {
                if inside > room {
                    return None;
                }
                let mut bits = close;
                while bits != 0 {
                    keys[stored] = key(scores[bits.trailing_zeros() as usize]);
                    stored += 1;
                    bits &= bits - 1; // clear the lowest set bit
                }
            }
        }
    }
    Some((above, inside))
}

/// A [`Settle`] that decides one entry after the other.
fn settle(select: &mut Select<'_>, cut: Cut, within: &[u32], keys: &[u32]) {
    let (mut keys, mut left) = (keys.iter(), cut.equal);
    for ((r, at), within) in select.each_word().zip(within) {
        let (mut bits, mut kept) = (*within, 0);
        while bits != 0 {
            let lowest = bits & bits.wrapping_neg();
            let key = *keys.next().expect("one key was collected for every bit of `within`");
            let equal = key == cut.key && left > 0;
            left -= usize::from(equal);
            if key > cut.key || equal {
                kept |= lowest;
            }
            bits ^= lowest;
        }
        select.mask.words[r * select.mask.ld + at] |= kept;
    }
}

/// All keys of `within` are equal: the lowest `left` are kept.
fn settle_equal(select: &mut Select<'_>, mut left: usize, within: &[u32]) {
    for ((r, at), within) in select.each_word().zip(within) {
        select.mask.words[r * select.mask.ld + at] |= lowest(*within, &mut left);
    }
}
