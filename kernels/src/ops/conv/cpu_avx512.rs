//! AVX-512 for the panel passes.
//!
//! ```text
//! for each tile of M rows:
//!     sum = 0
//!     for k: for m: sum[m][..] += broadcast(src[base[m] + steps[k]]) * panel[k, ..]
//!     out[rows[m], v] += sum[m][v]
//! ```
//! 32 registers: 24 sums, up to 4 of the panel, the rest for the broadcasts.
#![expect(unsafe_code, reason = "intrinsics that load and store, and calls of target_feature functions")]

use super::cpu_avx2;
use super::cpu_panels::{Kernels, Product, share};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;
use std::arch::x86_64::*;

const LANES: usize = 16;

const AVX512: Kernels = Kernels { lanes: LANES, width: 4 * LANES, product, transpose: cpu_avx2::transpose, widen };

pub(super) fn conv(c: &mut Call<'_>) {
    AVX512.conv(c);
}

pub(super) fn conv_scratch(d: &Dims) -> Scratch {
    AVX512.conv_scratch(d)
}

pub(super) fn conv_dx(c: &mut Call<'_>) {
    AVX512.conv_dx(c);
}

pub(super) fn conv_dx_scratch(d: &Dims) -> Scratch {
    AVX512.conv_dx_scratch(d)
}

pub(super) fn conv_dw(c: &mut Call<'_>) {
    AVX512.conv_dw(c);
}

pub(super) fn conv_dw_scratch(d: &Dims) -> Scratch {
    AVX512.conv_dw_scratch(d)
}

fn product(p: Product<'_>) {
    // SAFETY: only the variants of this file come here, and they are chosen if the CPU has their instruction set.
    unsafe { by_width(p) }
}

fn widen(from: &[u8], to: &mut [f32]) {
    // SAFETY: as in `product`.
    unsafe { widen_all(from, to) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn widen_all(from: &[u8], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(v, to)| *to = f32::from(*v) * (1.0 / 255.0));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn by_width(p: Product<'_>) {
    let largest = |list: &[u32]| list.iter().fold(0, |max, v| max.max(*v)) as usize;
    assert!(p.base.len() == p.rows.len() && p.panel.len() == p.steps.len() * p.width, "tables fit the panel");
    if p.rows.is_empty() || p.steps.is_empty() {
        return;
    }
    assert!(largest(p.base) + largest(p.steps) < p.src.len(), "every source element exists");
    assert!(largest(p.rows) * p.pitch + p.width <= p.out.len(), "every row of the result exists");
    assert!(p.width.is_multiple_of(LANES) && (1..=4).contains(&(p.width / LANES)), "panels are whole vectors");
    match p.width / LANES {
        1 => tiles::<8, 7, 1>(p),
        2 => tiles::<8, 7, 2>(p),
        3 => tiles::<8, 7, 3>(p),
        _ => tiles::<6, 5, 4>(p),
    }
}

/// Cuts the rows into tiles of M or, to come out even, of fewer, which run as tiles of `LESS` = M - 1.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[allow(unused_unsafe, reason = "_mm_prefetch became a safe function after the oldest supported Rust")]
fn tiles<const M: usize, const LESS: usize, const V: usize>(p: Product<'_>) {
    let out = p.out.as_mut_ptr();
    let count = p.rows.len().div_ceil(M);
    let (small, large) = (p.rows.len() / count, p.rows.len() % count);
    let mut at = 0;
    for nth in 0..count {
        let size = small + usize::from(nth < large);
        for line in share(p.next, nth, count).chunks(64) {
            // SAFETY: a hint, without effect on values; the address is an element's.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
        let (base, rows) = (&p.base[at..at + size], &p.rows[at..at + size]);
        // SAFETY: `by_width` checked the largest entries of all tables against `src`, `panel` and `out`.
        unsafe {
            match size == M {
                true => tile::<M, V>(&p, out, base, rows),
                false => tile::<LESS, V>(&p, out, base, rows),
            }
        }
        at += size;
    }
}

/// One register tile. With fewer than M rows the last is repeated in the sums and left out of the result.
///
/// # Safety
/// As checked in `by_width`; `out` is the start of `p.out`; `base` and `rows` are not empty.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const M: usize, const V: usize>(p: &Product<'_>, out: *mut f32, base: &[u32], rows: &[u32]) {
    let mut sum = [[_mm512_setzero_ps(); V]; M];
    // SAFETY: the caller's promise; every pointer below is an element that `by_width` checked.
    unsafe {
        let from: [*const f32; M] = std::array::from_fn(|m| p.src.as_ptr().add(base[m.min(base.len() - 1)] as usize));
        let to: [*mut f32; M] = std::array::from_fn(|m| out.add(rows[m.min(rows.len() - 1)] as usize * p.pitch));
        let mut panel = p.panel.as_ptr();
        for step in p.steps {
            let w: [__m512; V] = std::array::from_fn(|v| _mm512_loadu_ps(panel.add(v * LANES)));
            for m in 0..M {
                let x = _mm512_set1_ps(*from[m].add(*step as usize));
                for v in 0..V {
                    sum[m][v] = _mm512_fmadd_ps(x, w[v], sum[m][v]);
                }
            }
            panel = panel.add(V * LANES);
        }
        for (sum, to) in sum.into_iter().zip(to).take(rows.len()) {
            for (v, sum) in sum.into_iter().enumerate() {
                _mm512_storeu_ps(to.add(v * LANES), _mm512_add_ps(_mm512_loadu_ps(to.add(v * LANES)), sum));
            }
        }
    }
}
