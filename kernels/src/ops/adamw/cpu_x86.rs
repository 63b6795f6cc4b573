//! Masked loads and stores, so a word that is partly trainable costs as much as a full one.
#![expect(unsafe_code, reason = "vector loads and stores, and calls of functions built for one instruction set")]

use super::cpu::{Rate, adamw_by, sumsq_by};
use crate::operand::Call;
use std::arch::x86_64::*;

pub(super) fn adamw_avx2(c: &mut Call<'_>) {
    // SAFETY: the contract lists this variant under `Isa::Avx2`.
    adamw_by(c, |state, g, bits, rate| unsafe { update_avx2(state, g, bits, rate) });
}

pub(super) fn adamw_avx512(c: &mut Call<'_>) {
    // SAFETY: the contract lists this variant under `Isa::Avx512`.
    adamw_by(c, |state, g, bits, rate| unsafe { update_avx512(state, g, bits, rate) });
}

pub(super) fn sumsq_avx512(c: &mut Call<'_>) {
    // SAFETY: the contract lists this variant under `Isa::Avx512`.
    sumsq_by(c, |g, bits| unsafe { row_sumsq_avx512(g, bits) });
}

#[target_feature(enable = "avx2,fma")]
fn update_avx2([p, m, v]: [&mut [f32]; 3], g: &[f32], bits: Option<&[u32]>, rate: &Rate) {
    let n = g.len();
    assert!(p.len() == n && m.len() == n && v.len() == n, "weights, moments and gradient have one shape");
    let [lr, decay, clip, eps] = [rate.lr, rate.decay, rate.clip, rate.eps].map(|x| _mm256_set1_ps(x));
    let [beta1, beta2, gain1, gain2] = [rate.beta1, rate.beta2, rate.gain1, rate.gain2].map(|x| _mm256_set1_ps(x));
    let [unbias1, unbias2] = [rate.unbias1, rate.unbias2].map(|x| _mm256_set1_ps(x));
    let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for at in (0..n).step_by(8) {
        let word = bits.map_or(u32::MAX, |b| b[at / 32]) >> (at % 32);
        let valid = if n - at >= 8 { u8::MAX } else { (1 << (n - at)) - 1 };
        let open = word as u8 & valid;
        if open == 0 {
            continue;
        }
        let lanes = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(open)), lane), lane);
        // SAFETY: lanes of `open` lie below `n`, the length of all four slices; other lanes are not accessed.
        let [old_p, old_m, old_v, g] = unsafe {
            [
                _mm256_maskload_ps(p.as_ptr().add(at), lanes),
                _mm256_maskload_ps(m.as_ptr().add(at), lanes),
                _mm256_maskload_ps(v.as_ptr().add(at), lanes),
                _mm256_maskload_ps(g.as_ptr().add(at), lanes),
            ]
        };
        let g = _mm256_mul_ps(g, clip);
        let new_m = _mm256_fmadd_ps(beta1, old_m, _mm256_mul_ps(gain1, g));
        let new_v = _mm256_fmadd_ps(beta2, old_v, _mm256_mul_ps(_mm256_mul_ps(gain2, g), g));
        let root = _mm256_add_ps(_mm256_sqrt_ps(_mm256_mul_ps(new_v, unbias2)), eps);
        let step = _mm256_div_ps(_mm256_mul_ps(new_m, unbias1), root);
        let new_p = _mm256_fnmadd_ps(lr, step, _mm256_mul_ps(old_p, decay));
        // SAFETY: as above; frozen lanes are not written. A masked store is slow on some CPUs, so whole ones are plain.
        unsafe {
            if open == u8::MAX {
                _mm256_storeu_ps(p.as_mut_ptr().add(at), new_p);
                _mm256_storeu_ps(m.as_mut_ptr().add(at), new_m);
                _mm256_storeu_ps(v.as_mut_ptr().add(at), new_v);
            } else {
                _mm256_maskstore_ps(p.as_mut_ptr().add(at), lanes, new_p);
                _mm256_maskstore_ps(m.as_mut_ptr().add(at), lanes, new_m);
                _mm256_maskstore_ps(v.as_mut_ptr().add(at), lanes, new_v);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn update_avx512([p, m, v]: [&mut [f32]; 3], g: &[f32], bits: Option<&[u32]>, rate: &Rate) {
    let n = g.len();
    assert!(p.len() == n && m.len() == n && v.len() == n, "weights, moments and gradient have one shape");
    let [lr, decay, clip, eps] = [rate.lr, rate.decay, rate.clip, rate.eps].map(|x| _mm512_set1_ps(x));
    let [beta1, beta2, gain1, gain2] = [rate.beta1, rate.beta2, rate.gain1, rate.gain2].map(|x| _mm512_set1_ps(x));
    let [unbias1, unbias2] = [rate.unbias1, rate.unbias2].map(|x| _mm512_set1_ps(x));
    for at in (0..n).step_by(16) {
        let word = bits.map_or(u32::MAX, |b| b[at / 32]) >> (at % 32);
        let valid = if n - at >= 16 { u16::MAX } else { (1 << (n - at)) - 1 };
        let open = word as u16 & valid;
        if open == 0 {
            continue;
        }
        // SAFETY: lanes of `open` lie below `n`, the length of all four slices; other lanes are not accessed.
        let [old_p, old_m, old_v, g] = unsafe {
            [
                _mm512_maskz_loadu_ps(open, p.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(open, m.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(open, v.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(open, g.as_ptr().add(at)),
            ]
        };
        let g = _mm512_mul_ps(g, clip);
        let new_m = _mm512_fmadd_ps(beta1, old_m, _mm512_mul_ps(gain1, g));
        let new_v = _mm512_fmadd_ps(beta2, old_v, _mm512_mul_ps(_mm512_mul_ps(gain2, g), g));
        let root = _mm512_add_ps(_mm512_sqrt_ps(_mm512_mul_ps(new_v, unbias2)), eps);
        let step = _mm512_div_ps(_mm512_mul_ps(new_m, unbias1), root);
        let new_p = _mm512_fnmadd_ps(lr, step, _mm512_mul_ps(old_p, decay));
        // SAFETY: as above; frozen lanes are not written.
        unsafe {
            _mm512_mask_storeu_ps(p.as_mut_ptr().add(at), open, new_p);
            _mm512_mask_storeu_ps(m.as_mut_ptr().add(at), open, new_m);
            _mm512_mask_storeu_ps(v.as_mut_ptr().add(at), open, new_v);
        }
    }
}

/// The same 16 partial sums as the portable loop, as two vectors of 8.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn row_sumsq_avx512(g: &[f32], bits: Option<&[u32]>) -> f64 {
    let n = g.len();
    let (mut low, mut high) = (_mm512_setzero_pd(), _mm512_setzero_pd());
    for at in (0..n).step_by(16) {
        let word = bits.map_or(u32::MAX, |b| b[at / 32]) >> (at % 32);
        let valid = if n - at >= 16 { u16::MAX } else { (1 << (n - at)) - 1 };
        // SAFETY: only lanes below `n` are accessed.
        let x = unsafe { _mm512_maskz_loadu_ps(word as u16 & valid, g.as_ptr().add(at)) };
        let [first, second] =
            [_mm512_extractf32x8_ps::<0>(x), _mm512_extractf32x8_ps::<1>(x)].map(|x| _mm512_cvtps_pd(x));
        low = _mm512_fmadd_pd(first, first, low);
        high = _mm512_fmadd_pd(second, second, high);
    }
    let mut lanes = [0.0f64; 16];
    // SAFETY: `lanes` has 16 elements.
    unsafe {
        _mm512_storeu_pd(lanes.as_mut_ptr(), low);
        _mm512_storeu_pd(lanes.as_mut_ptr().add(8), high);
    }
    lanes.iter().fold(0.0, |sum, x| sum + x)
}
