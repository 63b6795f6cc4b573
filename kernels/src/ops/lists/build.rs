//! From a weight under a mask to one chunk of lists.

use super::{COUPLES, OUT, PAIR, PIECE, Side};
use crate::ops::gemm::micro::Weight;

/// Fills the chunk of inputs `k0..k0 + PIECE` and outputs `n0..n0 + OUT`. A panel row is `pitch` bytes long; the one
/// behind the last input is zero, and the shorter list of a couple is filled up with it.
///
/// Inlined into a function of each instruction set: counting bits and finding them are instructions there.
#[inline(always)]
pub(super) fn chunk(side: Side, w: &Weight<'_>, k0: usize, n0: usize, pitch: usize, chunk: &mut [u32]) {
    let lengths = lengths(side, w, k0, n0);
    let (heads, pairs) = chunk.split_at_mut(COUPLES);
    let mut places = order_by_length(&lengths, heads);
    each_kept(side, w, k0, n0, |n, k, value| places[n].add((k * pitch) as u32, value, pairs));
    for place in &mut places {
        while place.next < place.end {
            place.add((PIECE * pitch) as u32, 0.0, pairs);
        }
    }
}

/// Where the next member of a list goes.
#[derive(Clone, Copy, Default)]
struct Place {
    /// A pair, and the one behind the last of the couple.
    next: usize,
    end: usize,
    /// Which half of it.
    half: usize,
}

impl Place {
    /// The other half of the pair is left as it is.
    #[inline(always)]
    fn add(&mut self, offset: u32, value: f32, pairs: &mut [u32]) {
        let pair = &mut pairs[self.next * PAIR..][..PAIR];
        let shift = 16 * self.half;
        pair[0] = pair[0] & !(0xFFFF << shift) | offset << shift;
        pair[1 + self.half] = value.to_bits();
        self.next += 1;
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

/// Writes the heads, longest list first: neighbours make couples of nearly one length, and the loop over a couple seldom
/// ends where it was not expected to.
fn order_by_length(lengths: &[usize; OUT], heads: &mut [u32]) -> [Place; OUT] {
    let mut order: [usize; OUT] = std::array::from_fn(|n| n);
    order.sort_unstable_by_key(|n| (std::cmp::Reverse(lengths[*n]), *n));
    let (mut places, mut next) = ([Place::default(); OUT], 0);
    for (head, couple) in heads.iter_mut().zip(order.chunks_exact(2)) {
        let count = lengths[couple[0]];
        *head = (count << 16 | couple[1] << 8 | couple[0]) as u32;
        for (half, n) in couple.iter().enumerate() {
            places[*n] = Place { next, end: next + count, half };
        }
        next += count;
    }
    places
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
