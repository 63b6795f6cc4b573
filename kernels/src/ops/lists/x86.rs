//! Strips and samples with AVX2 and AVX-512.
#![expect(unsafe_code, reason = "vector intrinsics, compiled for an instruction set")]

use super::ListKernel;
use super::sampled::{self, Crosswise, Sample};
use super::strip::{self, Strips};
use crate::ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512};
use crate::simd::Isa;
use std::arch::x86_64::*;

impl ListKernel for Avx2 {
    const STRIP: usize = 32;
    const ISA: Isa = Isa::Avx2;

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
