//! Compare to mask registers, compress what lies in the bracket, deposit what the cut keeps.
#![expect(unsafe_code, reason = "vector loads and stores, and calls of functions built for one instruction set")]

use super::cpu::{Cut, Select, lowest};
use super::cpu_bracket::{SLACK, topk_by};
use crate::operand::Call;
use std::arch::x86_64::*;

pub(super) fn topk(c: &mut Call<'_>) {
    topk_by(
        c,
        // SAFETY: the contract lists this variant under `Isa::Avx512`.
        |select, lo, hi, within, keys| unsafe { scan(select, lo, hi, within, keys) },
        // SAFETY: as above; the set includes BMI2.
        |select, cut, within, keys| unsafe { settle(select, cut, within, keys) },
    );
}

/// 16 keys of a row from column `j` on; lanes past the row are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load_keys(row: &[f32], j: usize) -> __m512i {
    let row = &row[j.min(row.len())..];
    let lanes = if row.len() >= 16 { u16::MAX } else { (1 << row.len()) - 1 };
    // SAFETY: only lanes inside `row` are accessed.
    let bits = unsafe { _mm512_maskz_loadu_epi32(lanes, row.as_ptr().cast()) };
    _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFF_FFFF))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")]
fn scan(select: &mut Select<'_>, lo: u32, hi: u32, within: &mut [u32], keys: &mut [u32]) -> Option<(usize, usize)> {
    let words = select.words();
    let (low, high) = (_mm512_set1_epi32(lo as i32), _mm512_set1_epi32(hi as i32));
    let room = keys.len() - SLACK;
    let (mut above, mut inside, mut stored) = (0, 0, 0);
    for r in 0..select.score.rows {
        let row = select.score.row(r);
        for at in 0..words {
            let open = select.open(r, at);
            let [first, second] = [load_keys(row, at * 32), load_keys(row, at * 32 + 16)];
            let both = |a: __mmask16, b: __mmask16| (u32::from(a) | u32::from(b) << 16) & open;
            let over = both(_mm512_cmpgt_epu32_mask(first, high), _mm512_cmpgt_epu32_mask(second, high));
            let from = both(_mm512_cmpge_epu32_mask(first, low), _mm512_cmpge_epu32_mask(second, low));
            let close = from & !over;
            select.mask.words[r * select.mask.ld + at] = select.base(r, at) | over;
            within[r * words + at] = close;
            above += over.count_ones() as usize;
            inside += close.count_ones() as usize;
            if lo < hi {
                if inside > room {
                    return None;
                }
                for (keys16, lanes) in [(first, close as u16), (second, (close >> 16) as u16)] {
                    let packed = _mm512_maskz_compress_epi32(lanes, keys16);
                    let space = &mut keys[stored..stored + 16];
                    // SAFETY: `space` has 16 elements.
                    unsafe { _mm512_storeu_si512(space.as_mut_ptr().cast(), packed) };
                    stored += lanes.count_ones() as usize;
                }
            }
        }
    }
    Some((above, inside))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")]
fn settle(select: &mut Select<'_>, cut: Cut, within: &[u32], keys: &[u32]) {
    let words = select.words();
    let limit = _mm512_set1_epi32(cut.key as i32);
    let (mut read, mut left) = (0, cut.equal);
    for r in 0..select.score.rows {
        for at in 0..words {
            let within = within[r * words + at];
            if within == 0 {
                continue;
            }
            let window = &keys[read..read + 32];
            // SAFETY: `window` has 32 elements.
            let [first, second] = unsafe { [0, 16].map(|j| _mm512_loadu_si512(window.as_ptr().add(j).cast())) };
            let both = |a: __mmask16, b: __mmask16| u32::from(a) | u32::from(b) << 16;
            let over = both(_mm512_cmpgt_epu32_mask(first, limit), _mm512_cmpgt_epu32_mask(second, limit));
            let equal = both(_mm512_cmpeq_epu32_mask(first, limit), _mm512_cmpeq_epu32_mask(second, limit));
            // Keys past the count belong to later words.
            let count = within.count_ones();
            let own = u32::MAX >> (32 - count);
            let kept = over & own | lowest(equal & own, &mut left);
            select.mask.words[r * select.mask.ld + at] |= _pdep_u32(kept, within);
            read += count as usize;
        }
    }
}
