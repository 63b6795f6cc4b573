//! From a weight under a mask to one chunk of lists.

use super::{OUT, PAIR, PIECE, Side};
use crate::ops::gemm::micro::Weight;

/// Fills the chunk of inputs `k0..k0 + PIECE` and outputs `n0..n0 + OUT`. A panel row is `pitch` bytes long; the one
/// behind the last input is zero, and lists of odd length end with it.
///
/// Inlined into a function of each instruction set: counting bits and finding them are instructions there.
#[inline(always)]
pub(super) fn chunk(side: Side, w: &Weight<'_>, k0: usize, n0: usize, pitch: usize, chunk: &mut [u32]) {
    let lengths = lengths(side, w, k0, n0);
    let (heads, pairs) = chunk.split_at_mut(OUT);
    // Where the next member of each list goes, in members from the first pair on.
    let mut next = order_by_length(&lengths, heads);
    each_kept(side, w, k0, n0, |n, k, value| {
        let (pair, half) = (&mut pairs[next[n] / 2 * PAIR..][..PAIR], next[n] % 2);
        let before = if half == 0 { 0 } else { pair[0] };
        pair[0] = before | ((k * pitch) as u32) << (16 * half);
        pair[1 + half] = value.to_bits();
        next[n] += 1;
    });
    for next in next.into_iter().filter(|next| next % 2 == 1) {
        let pair = &mut pairs[next / 2 * PAIR..][..PAIR];
        pair[0] |= ((PIECE * pitch) as u32) << 16;
        pair[2] = 0;
    }
}

/// How many weights of a chunk each output keeps.
#[inline(always)]
fn lengths(side: Side, w: &Weight<'_>, k0: usize, n0: usize) -> [usize; OUT] {
    let mut lengths = [0; OUT];
    match side {
        Side::Forward => {
            for (n, len) in lengths[..OUT.min(w.w.rows - n0)].iter_mut().enumerate() {
                for word in (0..PIECE.min(w.w.cols - k0)).step_by(32) {
                    *len += w.bits(n0 + n, k0 + word).count_ones() as usize;
                }
            }
        }
        Side::Back => {
            let mut sums = [0u32; OUT];
            for k in 0..PIECE.min(w.w.rows - k0) {
                let bits = w.bits(k0 + k, n0);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum += bits >> n & 1;
                }
            }
            lengths = sums.map(|sum| sum as usize);
        }
    }
    lengths
}

/// Writes the heads, longest list first: lists of one length follow each other, so that the loop over a list seldom ends
/// where it was not expected to. Returns where each list begins.
fn order_by_length(lengths: &[usize; OUT], heads: &mut [u32]) -> [usize; OUT] {
    let mut order: [usize; OUT] = std::array::from_fn(|n| n);
    order.sort_unstable_by_key(|n| (std::cmp::Reverse(lengths[*n].div_ceil(2)), *n));
    let (mut begin, mut pairs) = ([0; OUT], 0);
    for (head, n) in heads.iter_mut().zip(order) {
        let count = lengths[n].div_ceil(2);
        *head = (count << 8 | n) as u32;
        begin[n] = 2 * pairs;
        pairs += count;
    }
    begin
}

/// Calls `f(output, input, value)` for every kept weight of a chunk, numbered from its corner, inputs ascending.
#[inline(always)]
fn each_kept(side: Side, w: &Weight<'_>, k0: usize, n0: usize, mut f: impl FnMut(usize, usize, f32)) {
    match side {
        Side::Forward => {
            for n in 0..OUT.min(w.w.rows - n0) {
                let row = w.w.row(n0 + n);
                for word in (0..PIECE.min(row.len() - k0)).step_by(32) {
                    each_bit(w.bits(n0 + n, k0 + word), |k| f(n, word + k, row[k0 + word + k]));
                }
            }
        }
        Side::Back => {
            for k in 0..PIECE.min(w.w.rows - k0) {
                let row = &w.w.row(k0 + k)[n0..];
                each_bit(w.bits(k0 + k, n0), |n| f(n, k, row[n]));
            }
        }
    }
}

#[inline(always)]
fn each_bit(mut bits: u32, mut f: impl FnMut(usize)) {
    while bits != 0 {
        f(bits.trailing_zeros() as usize);
        bits &= bits - 1; // clear the lowest set bit
    }
}
