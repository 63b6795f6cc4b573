//! The micro-kernel with AVX-512: 12 x 32 tiles, 24 accumulators, lanes under mask registers.
#![expect(unsafe_code, reason = "vector intrinsics")]

use super::micro::{self, Epilogue, Kernel, Lanes, Tile, Weight};
use crate::operand::Mat;
use crate::ops::vmath;
use half::f16;
use std::arch::x86_64::*;

impl Lanes for __m512 {
    const W: usize = 16;

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m512 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_set1_ps(v) }
    }

    #[inline(always)]
    unsafe fn widen(p: *const f16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_bits(p: *const f32, bits: u32) -> __m512 {
        // SAFETY: masked lanes are not accessed; the others are the caller's promise.
        unsafe { _mm512_maskz_loadu_ps(bits as u16, p) }
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
        unsafe { _mm512_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn store_bits(self, p: *mut f32, bits: u32) {
        // SAFETY: masked lanes are not accessed; the others are the caller's promise.
        unsafe { _mm512_mask_storeu_ps(p, bits as u16, self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: __m512) -> __m512 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_mul_ps(self, b) }
    }

    #[inline(always)]
    unsafe fn mul_sign(self, s: __m512) -> __m512 {
        // SAFETY: the caller has the instructions.
        unsafe {
            let zero = _mm512_setzero_ps();
            let up = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(s, zero);
            let down = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(s, zero);
            _mm512_mask_sub_ps(_mm512_maskz_mov_ps(up, self), down, zero, self)
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller has the instructions.
        unsafe { _mm512_reduce_add_ps(self) }
    }

    /// Halves, quarters, pairs and single lanes of two vectors at a time meet in one, until one holds all sums.
    #[inline(always)]
    unsafe fn lane_sums(vectors: &[__m512; 16], sums: &mut [f32]) {
        // SAFETY: the caller has the instructions; `all` holds one vector.
        unsafe {
            let v = vectors;
            let mut quads = [_mm512_setzero_ps(); 4];
            for q in 0..4 {
                // Vectors q, q + 4, q + 8 and q + 12: one 128-bit part each.
                let low = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x44>(v[q], v[q + 4]),
                    _mm512_shuffle_f32x4::<0xEE>(v[q], v[q + 4]),
                );
                let high = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x44>(v[q + 8], v[q + 12]),
                    _mm512_shuffle_f32x4::<0xEE>(v[q + 8], v[q + 12]),
                );
                quads[q] =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(low, high), _mm512_shuffle_f32x4::<0xDD>(low, high));
            }
            let [a, b, c, d] = quads;
            let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            let even = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            let odd = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
            let mut all = [0.0; 16];
            _mm512_storeu_ps(all.as_mut_ptr(), _mm512_add_ps(even, odd));
            sums.copy_from_slice(&all[..sums.len()]);
        }
    }

    /// Pairs, fours, eights and sixteens of lanes change places, each in one shuffle per vector.
    #[inline(always)]
    unsafe fn transpose(r: &mut [__m512; 16]) {
        // SAFETY: the caller has the instructions.
        unsafe {
            // Afterwards t[4q + c] holds, in 128-bit part p, column 4p + c of rows 4q..4q + 4.
            let mut t = *r;
            for q in [0, 4, 8, 12] {
                let low = _mm512_castps_pd(_mm512_unpacklo_ps(r[q], r[q + 1]));
                let high = _mm512_castps_pd(_mm512_unpackhi_ps(r[q], r[q + 1]));
                let low_next = _mm512_castps_pd(_mm512_unpacklo_ps(r[q + 2], r[q + 3]));
                let high_next = _mm512_castps_pd(_mm512_unpackhi_ps(r[q + 2], r[q + 3]));
                t[q] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_next));
                t[q + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_next));
                t[q + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_next));
                t[q + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_next));
            }
            // A 4 x 4 transpose of 128-bit parts for every c.
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(t[c], t[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xDD>(t[c], t[4 + c]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(t[8 + c], t[12 + c]);
                let odd_high = _mm512_shuffle_f32x4::<0xDD>(t[8 + c], t[12 + c]);
                r[c] = _mm512_shuffle_f32x4::<0x88>(even, even_high);
                r[8 + c] = _mm512_shuffle_f32x4::<0xDD>(even, even_high);
                r[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd_high);
                r[12 + c] = _mm512_shuffle_f32x4::<0xDD>(odd, odd_high);
            }
        }
    }
}

/// The AVX-512 kernel.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Kernel for Avx512 {
    type Simd = vmath::Avx512;
    const MR: usize = 12;
    const NR: usize = 32;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn tile(t: Tile<'_>) {
        micro::tile_heights!(__m512, t, 12: 1 2 3 4 5 6 7 8 9 10 11 12)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn pack_rows(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_rows::<__m512>(w, col, panel) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn pack_cols(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_cols::<__m512>(w, first, panel) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn pack_strips(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::pack_strips::<__m512>(m, strip, out) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn dots(x: &[&[f32]], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32], ld: usize) {
        // SAFETY: this function has the instructions.
        unsafe { micro::dots::<__m512>(x, w, bias, y, ld) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn finish(e: Epilogue<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { micro::finish::<__m512>(e) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn listed(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]) {
        // SAFETY: this function has the instructions.
        unsafe { micro::listed::<__m512>(panel, cols, values, start, out) }
    }
}
