//! The micro-kernel with AVX2 and FMA: 6 x 16 tiles, 12 accumulators, lanes under vector masks.
#![expect(unsafe_code, reason = "vector intrinsics")]

use super::micro::{self, Epilogue, Kernel, Lanes, Tile, Weight};
use crate::operand::Mat;
use crate::ops::vmath;
use half::f16;
use std::arch::x86_64::*;

/// All bits of the lanes whose bit is set.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn lanes(bits: u32) -> __m256i {
    // SAFETY: the caller has the instructions.
    unsafe {
        let one = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), one), one)
    }
}

impl Lanes for __m256 {
    const W: usize = 8;

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm256_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn widen(p: *const f16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_bits(p: *const f32, bits: u32) -> __m256 {
        // SAFETY: masked lanes are not accessed; the others are the caller's promise.
        unsafe { if bits & 0xFF == 0xFF { _mm256_loadu_ps(p) } else { _mm256_maskload_ps(p, lanes(bits)) } }
    }

    #[inline(always)]
    unsafe fn fetch(p: *const f32) {
        // SAFETY: a hint that cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn fetch_far(p: *const f32) {
        // SAFETY: a hint that cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn store_bits(self, p: *mut f32, bits: u32) {
        // SAFETY: masked lanes are not accessed; the others are the caller's promise.
        unsafe { _mm256_maskstore_ps(p, lanes(bits), self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: __m256) -> __m256 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm256_mul_ps(self, b) }
    }

    #[inline(always)]
    unsafe fn mul_sign(self, s: __m256) -> __m256 {
        // SAFETY: the caller has the instructions.
        unsafe {
            let zero = _mm256_setzero_ps();
            let up = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(s, zero), self);
            let down = _mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(s, zero), self);
            _mm256_sub_ps(up, down)
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller has the instructions.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    /// Pairs, fours and eights of lanes change places, each in one shuffle per vector.
    #[inline(always)]
    unsafe fn transpose(r: &mut [__m256; 16]) {
        // SAFETY: the caller has the instructions.
        unsafe {
            // Afterwards t[4q + c] holds, in 128-bit part p, column 4p + c of rows 4q..4q + 4.
            let mut t = *r;
            for q in [0, 4] {
                let low = _mm256_castps_pd(_mm256_unpacklo_ps(r[q], r[q + 1]));
                let high = _mm256_castps_pd(_mm256_unpackhi_ps(r[q], r[q + 1]));
                let low_next = _mm256_castps_pd(_mm256_unpacklo_ps(r[q + 2], r[q + 3]));
                let high_next = _mm256_castps_pd(_mm256_unpackhi_ps(r[q + 2], r[q + 3]));
                t[q] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, low_next));
                t[q + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, low_next));
                t[q + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, high_next));
                t[q + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, high_next));
            }
            for c in 0..4 {
                r[c] = _mm256_permute2f128_ps::<0x20>(t[c], t[4 + c]);
                r[4 + c] = _mm256_permute2f128_ps::<0x31>(t[c], t[4 + c]);
            }
        }
    }
}

/// The AVX2 kernel.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Kernel for Avx2 {
    type Simd = vmath::Avx2;
    const MR: usize = 6;
    const NR: usize = 16;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile(t: Tile<'_>) {
        micro::tile_heights!(__m256, t, 6: 1 2 3 4 5 6)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack_rows(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_rows::<__m256>(w, col, panel) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack_cols(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_cols::<__m256>(w, first, panel) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack_strips(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_strips::<__m256>(m, strip, out) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dots(x: &[&[f32]], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32], ld: usize) {
        // SAFETY: this function has the instructions.
        unsafe { micro::dots::<__m256>(x, w, bias, y, ld) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn finish(e: Epilogue<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { micro::finish::<__m256>(e) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn listed(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::listed::<__m256>(panel, cols, values, start, out) }
    }
}
