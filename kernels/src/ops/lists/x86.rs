//! Strips and samples with AVX2 and AVX-512.
#![expect(unsafe_code, reason = "vector intrinsics, compiled for an instruction set")]

use super::sampled::{self, Crosswise, Sample};
use super::strip::{self, Strips};
use super::turn::Turn;
use super::{ListKernel, Side, build};
use crate::ops::gemm::micro::Weight;
use crate::ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512};
use crate::simd::Isa;
use std::arch::x86_64::*;

impl ListKernel for Avx2 {
    const STRIP: usize = 32;
    const ISA: Isa = Isa::Avx2;

    #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt")]
    unsafe fn list(side: Side, w: &Weight<'_>, k0: usize, n0: usize, chunk: &mut [u32]) {
        build::chunk(side, w, k0, n0, 4 * Self::STRIP, chunk);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn strips(s: Strips<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { strip::strips::<__m256>(s) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sample(s: Sample<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { sampled::sample::<__m256>(s) }
    }
}

impl ListKernel for Avx512 {
    const STRIP: usize = 64;
    const ISA: Isa = Isa::Avx512;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
    unsafe fn list(side: Side, w: &Weight<'_>, k0: usize, n0: usize, chunk: &mut [u32]) {
        build::chunk(side, w, k0, n0, 4 * Self::STRIP, chunk);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn strips(s: Strips<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { strip::strips::<__m512>(s) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn sample(s: Sample<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { sampled::sample::<__m512>(s) }
    }
}

impl Turn for __m256 {
    /// Four columns at a time: vector `r` takes them from rows `r` and `r + 4`, which leaves a 4 x 4 turn in each half.
    #[inline(always)]
    unsafe fn block(from: *const f32, from_ld: usize, to: *mut f32, to_ld: usize) {
        // SAFETY: the caller has the instructions; its promise covers 8 columns of 8 rows on both sides.
        unsafe {
            for c in [0, 4] {
                let mut v = [_mm256_setzero_ps(); 4];
                for (r, v) in v.iter_mut().enumerate() {
                    let at = from.add(r * from_ld + c);
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(at));
                    *v = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(at.add(4 * from_ld)));
                }
                let (a, b) = (_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
                let (d, e) = (_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
                let to = to.add(c * to_ld);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(a, d));
                _mm256_storeu_ps(to.add(to_ld), _mm256_shuffle_ps::<0xEE>(a, d));
                _mm256_storeu_ps(to.add(2 * to_ld), _mm256_shuffle_ps::<0x44>(b, e));
                _mm256_storeu_ps(to.add(3 * to_ld), _mm256_shuffle_ps::<0xEE>(b, e));
            }
        }
    }
}

impl Turn for __m512 {
    /// Four columns at a time: vector `r` takes them from rows `r`, `r + 4`, `r + 8` and `r + 12`, which leaves a 4 x 4 turn
    /// in each quarter. Half the shuffles of a turn between registers, and it needs few of them.
    #[inline(always)]
    unsafe fn block(from: *const f32, from_ld: usize, to: *mut f32, to_ld: usize) {
        // SAFETY: the caller has the instructions; its promise covers 16 columns of 16 rows on both sides.
        unsafe {
            for c in [0, 4, 8, 12] {
                let mut v = [_mm512_setzero_ps(); 4];
                for (r, v) in v.iter_mut().enumerate() {
                    let at = from.add(r * from_ld + c);
                    let first = _mm512_castps128_ps512(_mm_loadu_ps(at));
                    let second = _mm512_insertf32x4::<1>(first, _mm_loadu_ps(at.add(4 * from_ld)));
                    let third = _mm512_insertf32x4::<2>(second, _mm_loadu_ps(at.add(8 * from_ld)));
                    *v = _mm512_insertf32x4::<3>(third, _mm_loadu_ps(at.add(12 * from_ld)));
                }
                let (a, b) = (_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
                let (d, e) = (_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
                let to = to.add(c * to_ld);
                _mm512_storeu_ps(to, _mm512_shuffle_ps::<0x44>(a, d));
                _mm512_storeu_ps(to.add(to_ld), _mm512_shuffle_ps::<0xEE>(a, d));
                _mm512_storeu_ps(to.add(2 * to_ld), _mm512_shuffle_ps::<0x44>(b, e));
                _mm512_storeu_ps(to.add(3 * to_ld), _mm512_shuffle_ps::<0xEE>(b, e));
            }
        }
    }
}

impl Crosswise for __m256 {
    /// Two rounds of pairwise sums leave in each half the half sums of four vectors; the halves are added at the end.
    #[inline(always)]
    unsafe fn sums(v: &[__m256; 16]) -> __m256 {
        // SAFETY: the caller has the instructions.
        unsafe {
            let low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
            let high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }
}

impl Crosswise for __m512 {
    /// Neighbours are added lane by lane, so that a vector holds the half sums of two, then quarter sums of four within
    /// 128 bits, then of eight and of sixteen across them.
    #[inline(always)]
    unsafe fn sums(v: &[__m512; 16]) -> __m512 {
        // SAFETY: the caller has the instructions.
        unsafe {
            // four[q]: in each 128-bit part, the sums over that part of vectors 4q..4q + 4.
            let mut four = [_mm512_setzero_ps(); 4];
            for (q, four) in four.iter_mut().enumerate() {
                let v = &v[4 * q..];
                let a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
                let b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
                let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                *four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            halves(halves(four[0], four[1]), halves(four[2], four[3]))
        }
    }
}

/// Neighbouring 128-bit parts of `a`, then of `b`, added.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b))
}
