//! AVX2 and AVX-512.
#![expect(unsafe_code, reason = "intrinsics, and calls into code compiled for an instruction set")]

use super::{Body, Random, Simd, turn_plain};
use crate::philox::{M0, M1, W0, W1};
use crate::simd::Isa;
use std::arch::x86_64::*;

/// Everything of [`Isa::Avx2`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Everything of [`Isa::Avx512`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

#[target_feature(enable = "avx2,fma,f16c,bmi2")]
fn run_avx2(body: impl Body) {
    body.run(Avx2(()));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
fn run_avx512(body: impl Body) {
    body.run(Avx512(()));
}

/// Elements of a cache line.
const LINE: usize = 16;

#[inline(always)]
fn ask<const HINT: i32>(soon: &[f32]) {
    for line in soon.chunks(LINE) {
        // SAFETY: asking for an address that exists changes nothing a program can see; x86-64 has the instruction.
        unsafe { _mm_prefetch::<HINT>(line.as_ptr().cast()) }
    }
}

/// Methods that are one expression of intrinsics.
macro_rules! lanes {
    ($V:ty; $(fn $name:ident($($arg:ident: $T:ty),*) -> $Out:ty { $e:expr })*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $T),*) -> $Out {
            // SAFETY: `self` exists, so `run` found the CPU to have these instructions.
            unsafe { $e }
        }
    )*};
}

impl Simd for Avx2 {
    type V = __m256;
    const WIDTH: usize = 8;

    fn run(body: impl Body) {
        assert!(Isa::detect().has(Isa::Avx2), "this CPU has no AVX2");
        // SAFETY: the line above.
        unsafe { run_avx2(body) }
    }

    lanes! { __m256;
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn madd(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn nmadd(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn select_lt(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn shift_exponent(v: __m256, biased: __m256) -> __m256 {
            _mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(v),
                _mm256_slli_epi32::<23>(_mm256_castps_si256(biased)),
            ))
        }
    }

    #[inline(always)]
    fn square(self, a: __m256) -> (__m256, __m256) {
        let high = self.mul(a, a);
        // SAFETY: as in `lanes`.
        (high, unsafe { _mm256_fmsub_ps(a, a, high) })
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight elements by the line above; the CPU as in `lanes`.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32]) {
        let to = &mut to[..8];
        // SAFETY: eight elements by the line above; the CPU as in `lanes`.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn fetch(self, soon: &[f32]) {
        ask::<_MM_HINT_T0>(soon);
    }

    #[inline(always)]
    fn fetch_to_write(self, soon: &mut [f32]) {
        ask::<_MM_HINT_ET0>(soon);
    }

    #[inline(always)]
    fn keep(self, v: __m256, bits: u32) -> __m256 {
        // SAFETY: as in `lanes`.
        unsafe { _mm256_and_ps(v, set(bits)) }
    }

    #[inline(always)]
    fn select(self, bits: u32, yes: __m256, no: __m256) -> __m256 {
        // SAFETY: as in `lanes`.
        unsafe { _mm256_blendv_ps(no, yes, set(bits)) }
    }

    #[inline(always)]
    fn reached(self, low: &[u32], high: &[u32], random: Random, to: &mut [u32]) {
        let (low, high, to) = (&low[..8], &high[..8], &mut to[..8]);
        let Random { key, tail, threshold } = random;
        // SAFETY: eight elements each by the first line; the CPU as in `lanes`.
        unsafe {
            let (low, high) = (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()));
            let (m0, m1) = (_mm256_set1_epi64x(i64::from(M0)), _mm256_set1_epi64x(i64::from(M1)));
            let tail = [_mm256_set1_epi64x(i64::from(tail[0])), _mm256_set1_epi64x(i64::from(tail[1]))];
            // Even elements, then odd ones: a product reads the lower half of 64 bits, whatever is above.
            let mut all = [
                [low, high, tail[0], tail[1]],
                [_mm256_srli_epi64::<32>(low), _mm256_srli_epi64::<32>(high), tail[0], tail[1]],
            ];
            let mut key = key;
            for _ in 0..10 {
                let k = [_mm256_set1_epi64x(i64::from(key[0])), _mm256_set1_epi64x(i64::from(key[1]))];
                for [c0, c1, c2, c3] in &mut all {
                    let (p0, p1) = (_mm256_mul_epu32(m0, *c0), _mm256_mul_epu32(m1, *c2));
                    *c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64::<32>(p1), *c1), k[0]);
                    *c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64::<32>(p0), *c3), k[1]);
                    (*c1, *c3) = (p1, p0);
                }
                key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
            }
            let limit = _mm256_set1_epi32(i32::from(threshold) - 1);
            let mut bits = _mm256_setzero_si256();
            let [even, odd] = all;
            for (word, even) in even.iter().enumerate() {
                let both = _mm256_blend_epi32::<0xAA>(*even, _mm256_slli_epi64::<32>(odd[word]));
                let halves = [_mm256_and_si256(both, _mm256_set1_epi32(0xFFFF)), _mm256_srli_epi32::<16>(both)];
                for (half, x) in halves.iter().enumerate() {
                    let bit = _mm256_set1_epi32(1 << (2 * word + half));
                    bits = _mm256_or_si256(bits, _mm256_and_si256(_mm256_cmpgt_epi32(*x, limit), bit));
                }
            }
            _mm256_storeu_si256(to.as_mut_ptr().cast(), bits);
        }
    }

    #[inline(always)]
    fn turn(self, from: &[f32], ld: usize, rows: usize, cols: usize, to: &mut [f32], to_ld: usize) {
        if rows < 8 || cols < 8 {
            return turn_plain(from, ld, rows, cols, to, to_ld);
        }
        let (from, to) = (&from[..7 * ld + 8], &mut to[..7 * to_ld + 8]);
        // SAFETY: eight rows of eight on both sides by the line above; the CPU as in `lanes`.
        unsafe {
            let mut a = [_mm256_setzero_ps(); 8];
            for (r, a) in a.iter_mut().enumerate() {
                *a = _mm256_loadu_ps(from.as_ptr().add(r * ld));
            }
            for i in (0..8).step_by(2) {
                (a[i], a[i + 1]) = (_mm256_unpacklo_ps(a[i], a[i + 1]), _mm256_unpackhi_ps(a[i], a[i + 1]));
            }
            // Columns c and c + 4 of four rows each.
            let mut b = a;
            for i in [0, 4] {
                b[i] = _mm256_shuffle_ps::<0x44>(a[i], a[i + 2]);
                b[i + 1] = _mm256_shuffle_ps::<0xEE>(a[i], a[i + 2]);
                b[i + 2] = _mm256_shuffle_ps::<0x44>(a[i + 1], a[i + 3]);
                b[i + 3] = _mm256_shuffle_ps::<0xEE>(a[i + 1], a[i + 3]);
            }
            for c in 0..4 {
                let lower = _mm256_permute2f128_ps::<0x20>(b[c], b[c + 4]);
                let upper = _mm256_permute2f128_ps::<0x31>(b[c], b[c + 4]);
                _mm256_storeu_ps(to.as_mut_ptr().add(c * to_ld), lower);
                _mm256_storeu_ps(to.as_mut_ptr().add((c + 4) * to_ld), upper);
            }
        }
    }
}

/// All bits of the elements whose bit is set.
#[inline]
#[target_feature(enable = "avx2")]
fn set(bits: u32) -> __m256 {
    let own = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), own), own))
}

impl Simd for Avx512 {
    type V = __m512;
    const WIDTH: usize = 16;

    fn run(body: impl Body) {
        assert!(Isa::detect().has(Isa::Avx512), "this CPU has no AVX-512");
        // SAFETY: the line above.
        unsafe { run_avx512(body) }
    }

    lanes! { __m512;
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn reciprocal(a: __m512) -> __m512 { newton(a, _mm512_rcp14_ps(a)) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn madd(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn nmadd(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn select_lt(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        fn shift_exponent(v: __m512, biased: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(v),
                _mm512_slli_epi32::<23>(_mm512_castps_si512(biased)),
            ))
        }
    }

    #[inline(always)]
    fn square(self, a: __m512) -> (__m512, __m512) {
        let high = self.mul(a, a);
        // SAFETY: as in `lanes`.
        (high, unsafe { _mm512_fmsub_ps(a, a, high) })
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..16];
        // SAFETY: sixteen elements by the line above; the CPU as in `lanes`.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32]) {
        let to = &mut to[..16];
        // SAFETY: sixteen elements by the line above; the CPU as in `lanes`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn fetch(self, soon: &[f32]) {
        ask::<_MM_HINT_T0>(soon);
    }

    #[inline(always)]
    fn fetch_to_write(self, soon: &mut [f32]) {
        ask::<_MM_HINT_ET0>(soon);
    }

    #[inline(always)]
    fn keep(self, v: __m512, bits: u32) -> __m512 {
        // SAFETY: as in `lanes`.
        unsafe { _mm512_maskz_mov_ps(bits as u16, v) }
    }

    #[inline(always)]
    fn select(self, bits: u32, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: as in `lanes`.
        unsafe { _mm512_mask_mov_ps(no, bits as u16, yes) }
    }

    #[inline(always)]
    fn reached(self, low: &[u32], high: &[u32], random: Random, to: &mut [u32]) {
        let (low, high, to) = (&low[..16], &high[..16], &mut to[..16]);
        let Random { key, tail, threshold } = random;
        // SAFETY: sixteen elements each by the first line; the CPU as in `lanes`.
        unsafe {
            let (low, high) = (_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast()));
            let (m0, m1) = (_mm512_set1_epi64(i64::from(M0)), _mm512_set1_epi64(i64::from(M1)));
            let tail = [_mm512_set1_epi64(i64::from(tail[0])), _mm512_set1_epi64(i64::from(tail[1]))];
            // Even elements, then odd ones: a product reads the lower half of 64 bits, whatever is above.
            let mut all = [
                [low, high, tail[0], tail[1]],
                [_mm512_srli_epi64::<32>(low), _mm512_srli_epi64::<32>(high), tail[0], tail[1]],
            ];
            let mut key = key;
            for _ in 0..10 {
                let k = [_mm512_set1_epi64(i64::from(key[0])), _mm512_set1_epi64(i64::from(key[1]))];
                for [c0, c1, c2, c3] in &mut all {
                    let (p0, p1) = (_mm512_mul_epu32(m0, *c0), _mm512_mul_epu32(m1, *c2));
                    *c0 = _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p1), *c1, k[0]);
                    *c2 = _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p0), *c3, k[1]);
                    (*c1, *c3) = (p1, p0);
                }
                key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
            }
            let limit = _mm512_set1_epi32(i32::from(threshold));
            let mut bits = _mm512_setzero_si512();
            let [even, odd] = all;
            for (word, even) in even.iter().enumerate() {
                let both = _mm512_mask_blend_epi32(0xAAAA, *even, _mm512_slli_epi64::<32>(odd[word]));
                let halves = [_mm512_and_si512(both, _mm512_set1_epi32(0xFFFF)), _mm512_srli_epi32::<16>(both)];
                for (half, x) in halves.iter().enumerate() {
                    let bit = _mm512_set1_epi32(1 << (2 * word + half));
                    bits = _mm512_mask_or_epi32(bits, _mm512_cmpge_epi32_mask(*x, limit), bits, bit);
                }
            }
            _mm512_storeu_si512(to.as_mut_ptr().cast(), bits);
        }
    }

    #[inline(always)]
    fn turn(self, from: &[f32], ld: usize, rows: usize, cols: usize, to: &mut [f32], to_ld: usize) {
        assert!(rows <= 16 && cols <= 16, "one vector each way");
        if rows == 0 || cols == 0 {
            return;
        }
        let (from, to) = (&from[..(rows - 1) * ld + cols], &mut to[..(cols - 1) * to_ld + rows]);
        let (used_rows, used_cols) = (((1u32 << rows) - 1) as u16, ((1u32 << cols) - 1) as u16);
        // SAFETY: `rows` rows of `cols` and the other way round by the lines above, masks leave out the rest; the CPU
        // as in `lanes`.
        unsafe {
            let mut a = [_mm512_setzero_ps(); 16];
            for (r, a) in a.iter_mut().enumerate() {
                if r < rows {
                    *a = _mm512_maskz_loadu_ps(used_cols, from.as_ptr().add(r * ld));
                }
            }
            for i in (0..16).step_by(2) {
                (a[i], a[i + 1]) = (_mm512_unpacklo_ps(a[i], a[i + 1]), _mm512_unpackhi_ps(a[i], a[i + 1]));
            }
            // b[i + c], i a multiple of 4: columns c, c + 4, c + 8 and c + 12 of rows i to i + 3.
            let mut b = a;
            for i in (0..16).step_by(4) {
                b[i] = _mm512_shuffle_ps::<0x44>(a[i], a[i + 2]);
                b[i + 1] = _mm512_shuffle_ps::<0xEE>(a[i], a[i + 2]);
                b[i + 2] = _mm512_shuffle_ps::<0x44>(a[i + 1], a[i + 3]);
                b[i + 3] = _mm512_shuffle_ps::<0xEE>(a[i + 1], a[i + 3]);
            }
            for c in 0..4 {
                let low =
                    [_mm512_shuffle_f32x4::<0x44>(b[c], b[4 + c]), _mm512_shuffle_f32x4::<0x44>(b[8 + c], b[12 + c])];
                let high =
                    [_mm512_shuffle_f32x4::<0xEE>(b[c], b[4 + c]), _mm512_shuffle_f32x4::<0xEE>(b[8 + c], b[12 + c])];
                let columns = [
                    _mm512_shuffle_f32x4::<0x88>(low[0], low[1]),
                    _mm512_shuffle_f32x4::<0xDD>(low[0], low[1]),
                    _mm512_shuffle_f32x4::<0x88>(high[0], high[1]),
                    _mm512_shuffle_f32x4::<0xDD>(high[0], high[1]),
                ];
                for (four, column) in columns.iter().enumerate() {
                    let c = 4 * four + c;
                    if c < cols {
                        _mm512_mask_storeu_ps(to.as_mut_ptr().add(c * to_ld), used_rows, *column);
                    }
                }
            }
        }
    }
}

/// One step of Newton's method from an approximate `1 / a`: 14 bits become 24, less a rounding.
#[inline]
#[target_feature(enable = "avx512f")]
fn newton(a: __m512, r: __m512) -> __m512 {
    _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0)), r)
}
