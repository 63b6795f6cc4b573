//! Compare and gather sign bits; what lies in the bracket is rare enough to be moved one by one.
#![expect(unsafe_code, reason = "vector loads, and calls of functions built for one instruction set")]

use super::cpu::{Cut, Select, key, lowest};
use super::cpu_bracket::{self, SLACK};
use crate::operand::Call;
use std::arch::x86_64::*;

pub(super) fn topk(c: &mut Call<'_>) {
    cpu_bracket::topk(
        c,
        // SAFETY: the contract lists this variant under `Isa::Avx2`.
        |select, lo, hi, within, keys| unsafe { scan(select, lo, hi, within, keys) },
        // SAFETY: as above; the set includes BMI2.
        |select, cut, within, keys| unsafe { settle(select, cut, within, keys) },
    );
}

/// Bit `j`: key of `row[j]` over `limit`. Keys have 31 bits, so the signed comparison is right.
#[inline]
#[target_feature(enable = "avx2")]
fn over(row: &[f32; 32], limit: i32) -> u32 {
    let (limit, magnitude) = (_mm256_set1_epi32(limit), _mm256_set1_epi32(0x7FFF_FFFF));
    let mut word = 0;
    for (at, eight) in row.chunks_exact(8).enumerate() {
        // SAFETY: `eight` has 8 elements.
        let bits = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
        let over = _mm256_cmpgt_epi32(_mm256_and_si256(bits, magnitude), limit);
        word |= (_mm256_movemask_ps(_mm256_castsi256_ps(over)) as u32) << (8 * at);
    }
    word
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
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

#[target_feature(enable = "avx2,bmi2,popcnt")]
fn settle(select: &mut Select<'_>, cut: Cut, within: &[u32], keys: &[u32]) {
    let words = select.words();
    let (mut read, mut left) = (0, cut.equal);
    for r in 0..select.score.rows {
        for at in 0..words {
            let within = within[r * words + at];
            let count = within.count_ones();
            let (mut above, mut equal) = (0, 0);
            for (j, key) in keys[read..read + count as usize].iter().enumerate() {
                above |= u32::from(*key > cut.key) << j;
                equal |= u32::from(*key == cut.key) << j;
            }
            let kept = above | lowest(equal, &mut left);
            select.mask.words[r * select.mask.ld + at] |= _pdep_u32(kept, within);
            read += count as usize;
        }
    }
}
