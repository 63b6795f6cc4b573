//! The inner loops of `cpu.rs` for AVX2 and AVX-512: the tile is as large as the register file allows.
//!
//! ```text
//! tile    for each coordinate: load it for G groups of queries, broadcast it from R rows, G * R fused multiply-adds
//! sums    dot products of a few rows with a few queries and with themselves, one register of partial sums each
//! ```
#![expect(unsafe_code, reason = "vector loads, and calls of functions compiled for instruction sets the CPU has")]

use super::cpu_blocks::{keep_blocks, store_blocks};
use super::cpu_lanes::{Arith, LANES, Lane, Sink, sweep};
use crate::operand::{Call, Mat};
use crate::ops::gemm::micro::{Lanes, low_bits};
use std::arch::x86_64::*;

/// Used only below `sweep_avx2`.
struct Avx2;
/// Used only below functions with its instructions.
pub(super) struct Avx512;

/// 12 of 16 registers accumulate: 16 queries by 6 rows.
#[target_feature(enable = "avx2,fma")]
fn sweep_avx2(q: Mat<'_, f32>, p: Mat<'_, f32>, own: &mut [f32], sink: &mut impl Sink) {
    sweep::<Avx2, 1, 6>(q, p, own, sink);
}

/// 24 of 32 registers accumulate: 32 queries by 12 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn sweep_avx512(q: Mat<'_, f32>, p: Mat<'_, f32>, own: &mut [f32], sink: &mut impl Sink) {
    sweep::<Avx512, 2, 12>(q, p, own, sink);
}

pub(super) fn cosine_avx2(c: &mut Call<'_>) {
    // SAFETY: the variant states Isa::Avx2, which `Isa::detect` reports only where AVX2 and FMA exist.
    store_blocks(c, |q, p, own, sink| unsafe { sweep_avx2(q, p, own, sink) });
}

pub(super) fn cosine_avx512(c: &mut Call<'_>) {
    // SAFETY: the variant states Isa::Avx512, which `Isa::detect` reports only where all these sets exist.
    store_blocks(c, |q, p, own, sink| unsafe { sweep_avx512(q, p, own, sink) });
}

pub(super) fn cosine_topk_avx2(c: &mut Call<'_>) {
    // SAFETY: as in `cosine_avx2`.
    keep_blocks(c, |q, p, own, sink| unsafe { sweep_avx2(q, p, own, sink) });
}

pub(super) fn cosine_topk_avx512(c: &mut Call<'_>) {
    // SAFETY: as in `cosine_avx512`.
    keep_blocks(c, |q, p, own, sink| unsafe { sweep_avx512(q, p, own, sink) });
}

impl Arith for Avx512 {
    #[inline(always)]
    fn tile<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R] {
        // SAFETY: see the type: this is inlined into a function that has AVX-512.
        unsafe { tile_avx512(queries, rows) }
    }

    #[inline(always)]
    fn sums<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> Lane {
        // SAFETY: as in `tile`.
        unsafe { sums_of::<__m512, Q, R>(queries, rows) }
    }

    #[inline(always)]
    fn prefetch(row: &[f32]) {
        // SAFETY: as in `tile`.
        unsafe { prefetch(row) }
    }

    #[inline(always)]
    fn any_over(scores: &Lane, limit: &Lane) -> bool {
        // SAFETY: as in `tile`.
        unsafe { any_over_avx512(scores, limit) }
    }

    #[inline(always)]
    fn insert(list: &mut [Lane], index: &mut [[u32; LANES]], scores: &Lane, j: u32) {
        // SAFETY: as in `tile`.
        unsafe { insert_avx512(list, index, scores, j) }
    }
}

impl Arith for Avx2 {
    #[inline(always)]
    fn tile<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R] {
        // SAFETY: see the type: this is inlined into a function that has AVX2 and FMA.
        unsafe { tile_avx2(queries, rows) }
    }

    #[inline(always)]
    fn sums<const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> Lane {
        // SAFETY: as in `tile`.
        unsafe { sums_of::<__m256, Q, R>(queries, rows) }
    }

    #[inline(always)]
    fn prefetch(row: &[f32]) {
        // SAFETY: as in `tile`.
        unsafe { prefetch(row) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn tile_avx512<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R] {
    let d = queries[0].len();
    let (queries, rows) = (queries.map(|q| &q[..d]), rows.map(|row| &row[..d]));
    let mut sums = [[_mm512_setzero_ps(); G]; R];
    for at in 0..d {
        let mut x = [_mm512_setzero_ps(); G];
        for g in 0..G {
            // SAFETY: a Lane is 16 floats.
            x[g] = unsafe { _mm512_loadu_ps(queries[g][at].as_ptr()) };
        }
        for r in 0..R {
            let y = _mm512_set1_ps(rows[r][at]);
            for g in 0..G {
                sums[r][g] = _mm512_fmadd_ps(x[g], y, sums[r][g]);
            }
        }
    }
    let mut out = [[[0.0; LANES]; G]; R];
    for r in 0..R {
        for g in 0..G {
            // SAFETY: a Lane is 16 floats.
            unsafe { _mm512_storeu_ps(out[r][g].as_mut_ptr(), sums[r][g]) };
        }
    }
    out
}

/// Elements from what [`sums_of`] reads to what it asks for, 4 KiB. It asks in the order in which rows lie in memory, whatever the
/// order in which it reads some of them: that is what memory gives fastest.
const AHEAD: usize = 1024;

/// [`Arith::sums`] for the instructions of `L`.
///
/// # Safety
/// The CPU has them.
#[inline(always)]
unsafe fn sums_of<L: Lanes, const Q: usize, const R: usize>(queries: [&[f32]; Q], rows: [&[f32]; R]) -> Lane {
    const { assert!((Q + 1) * R <= LANES, "one register per sum") };
    let d = rows[0].len();
    assert!(queries.iter().chain(&rows).all(|row| row.len() == d), "vectors of one length");
    let whole = d / L::W * L::W;
    let mut out = [0.0; LANES];
    // SAFETY: whole vectors and `valid` name coordinates that all vectors have.
    unsafe {
        let mut sums = [L::splat(0.0); LANES];
        // Up to eight sums at a time: a query is loaded once for all rows that share them.
        let together = const { rows_together(R, Q + 1) };
        for first in (0..R).step_by(together) {
            let mut own = [L::splat(0.0); 8];
            for at in (0..whole).step_by(L::W) {
                let mut x = [L::splat(0.0); Q];
                for q in 0..Q {
                    x[q] = L::load(queries[q].as_ptr().add(at));
                }
                for n in 0..together {
                    let row = rows[first + n].as_ptr();
                    let y = L::load(row.add(at));
                    L::fetch(rows[first].as_ptr().wrapping_add(at * together + n * L::W + AHEAD));
                    add(&x, y, &mut own[n * (Q + 1)..]);
                }
            }
            if whole < d {
                let valid = low_bits(d - whole);
                let mut x = [L::splat(0.0); Q];
                for q in 0..Q {
                    x[q] = L::load_bits(queries[q].as_ptr().add(whole), valid);
                }
                for n in 0..together {
                    let y = L::load_bits(rows[first + n].as_ptr().add(whole), valid);
                    add(&x, y, &mut own[n * (Q + 1)..]);
                }
            }
            for n in 0..(Q + 1) * together {
                sums[first * (Q + 1) + n] = own[n];
            }
        }
        L::lane_sums(&sums, &mut out);
    }
    out
}

/// The largest part of `rows` that needs no more than eight sums, of which each row has `each`.
const fn rows_together(rows: usize, each: usize) -> usize {
    let mut together = 8 / each;
    while !rows.is_multiple_of(together) {
        together -= 1;
    }
    together
}

/// Adds what a vector of a row gives to its products with `Q` queries and, last, with itself.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn add<L: Lanes, const Q: usize>(x: &[L; Q], y: L, sums: &mut [L]) {
    // SAFETY: the caller has the instructions.
    unsafe {
        for q in 0..Q {
            sums[q] = x[q].mul_add(y, sums[q]);
        }
        sums[Q] = y.mul_add(y, sums[Q]);
    }
}

#[inline]
#[target_feature(enable = "sse")]
fn prefetch(row: &[f32]) {
    for line in row.chunks(LANES) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn any_over_avx512(scores: &Lane, limit: &Lane) -> bool {
    // SAFETY: a Lane is 16 floats.
    let (scores, limit) = unsafe { (_mm512_loadu_ps(scores.as_ptr()), _mm512_loadu_ps(limit.as_ptr())) };
    _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scores, limit) != 0
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn insert_avx512(list: &mut [Lane], index: &mut [[u32; LANES]], scores: &Lane, j: u32) {
    // SAFETY: a Lane is 16 floats.
    let scores = unsafe { _mm512_loadu_ps(scores.as_ptr()) };
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(scores, scores);
    let mut scores = _mm512_mask_blend_ps(nan, scores, _mm512_set1_ps(f32::NEG_INFINITY));
    let mut indices = _mm512_set1_epi32(j as i32);
    let mut moves = 0;
    for (list, index) in list.iter_mut().zip(index) {
        // SAFETY: both have 16 elements.
        let (held, at) = unsafe { (_mm512_loadu_ps(list.as_ptr()), _mm512_loadu_si512(index.as_ptr().cast())) };
        moves |= _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scores, held);
        // SAFETY: as above.
        unsafe {
            _mm512_storeu_ps(list.as_mut_ptr(), _mm512_mask_blend_ps(moves, held, scores));
            _mm512_storeu_si512(index.as_mut_ptr().cast(), _mm512_mask_blend_epi32(moves, at, indices));
        }
        scores = _mm512_mask_blend_ps(moves, scores, held);
        indices = _mm512_mask_blend_epi32(moves, indices, at);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2<const G: usize, const R: usize>(queries: [&[Lane]; G], rows: [&[f32]; R]) -> [[Lane; G]; R] {
    let d = queries[0].len();
    let (queries, rows) = (queries.map(|q| &q[..d]), rows.map(|row| &row[..d]));
    let mut sums = [[[_mm256_setzero_ps(); 2]; G]; R];
    for at in 0..d {
        let mut x = [[_mm256_setzero_ps(); 2]; G];
        for g in 0..G {
            let lane = queries[g][at].as_ptr();
            // SAFETY: a Lane is 16 floats: two halves of 8.
            x[g] = unsafe { [_mm256_loadu_ps(lane), _mm256_loadu_ps(lane.add(8))] };
        }
        for r in 0..R {
            let y = _mm256_set1_ps(rows[r][at]);
            for g in 0..G {
                sums[r][g] = [_mm256_fmadd_ps(x[g][0], y, sums[r][g][0]), _mm256_fmadd_ps(x[g][1], y, sums[r][g][1])];
            }
        }
    }
    let mut out = [[[0.0; LANES]; G]; R];
    for r in 0..R {
        for g in 0..G {
            let lane = out[r][g].as_mut_ptr();
            // SAFETY: a Lane is 16 floats: two halves of 8.
            unsafe {
                _mm256_storeu_ps(lane, sums[r][g][0]);
                _mm256_storeu_ps(lane.add(8), sums[r][g][1]);
            }
        }
    }
    out
}
