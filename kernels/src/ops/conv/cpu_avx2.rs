//! AVX2 and FMA for the panel passes.
//!
//! ```text
//! for each tile of M rows:
//!     sum = 0
//!     for k: for m: sum[m][..] += broadcast(src[base[m] + steps[k]]) * panel[k, ..]
//!     out[rows[m], v] += sum[m][v]
//! ```
//! 16 registers: 12 sums, 2 of the panel, the rest for the broadcasts.
#![expect(unsafe_code, reason = "intrinsics that load and store, and calls of target_feature functions")]

use super::cpu_panels::{Kernels, Product, share};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;
use std::arch::x86_64::*;

const LANES: usize = 8;

const AVX2: Kernels = Kernels { lanes: LANES, width: 2 * LANES, product, transpose, widen };

pub(super) fn conv(c: &mut Call<'_>) {
    AVX2.conv(c);
}

pub(super) fn conv_scratch(d: &Dims) -> Scratch {
    AVX2.conv_scratch(d)
}

pub(super) fn conv_dx(c: &mut Call<'_>) {
    AVX2.conv_dx(c);
}

pub(super) fn conv_dx_scratch(d: &Dims) -> Scratch {
    AVX2.conv_dx_scratch(d)
}

pub(super) fn conv_dw(c: &mut Call<'_>) {
    AVX2.conv_dw(c);
}

pub(super) fn conv_dw_scratch(d: &Dims) -> Scratch {
    AVX2.conv_dw_scratch(d)
}

fn product(p: Product<'_>) {
    // SAFETY: only the variants of this file come here, and they are chosen if the CPU has their instruction set.
    unsafe { by_width(p) }
}

fn widen(from: &[u8], to: &mut [f32]) {
    // SAFETY: as in `product`.
    unsafe { widen_all(from, to) }
}

#[target_feature(enable = "avx2,fma")]
fn widen_all(from: &[u8], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(v, to)| *to = f32::from(*v) * (1.0 / 255.0));
}

#[target_feature(enable = "avx2,fma")]
fn by_width(p: Product<'_>) {
    let largest = |list: &[u32]| list.iter().fold(0, |max, v| max.max(*v)) as usize;
    assert!(p.base.len() == p.rows.len() && p.panel.len() == p.steps.len() * p.width, "tables fit the panel");
    if p.rows.is_empty() || p.steps.is_empty() {
        return;
    }
    assert!(largest(p.base) + largest(p.steps) < p.src.len(), "every source element exists");
    assert!(largest(p.rows) * p.pitch + p.width <= p.out.len(), "every row of the result exists");
    assert!(p.width.is_multiple_of(LANES) && (1..=2).contains(&(p.width / LANES)), "panels are whole vectors");
    match p.width / LANES {
        1 => tiles::<8, 7, 1>(p),
        _ => tiles::<6, 5, 2>(p),
    }
}

/// Cuts the rows into tiles of M or, to come out even, of fewer, which run as tiles of `LESS` = M - 1.
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const V: usize>(p: &Product<'_>, out: *mut f32, base: &[u32], rows: &[u32]) {
    let mut sum = [[_mm256_setzero_ps(); V]; M];
    // SAFETY: the caller's promise; every pointer below is an element that `by_width` checked.
    unsafe {
        let from: [*const f32; M] = std::array::from_fn(|m| p.src.as_ptr().add(base[m.min(base.len() - 1)] as usize));
        let to: [*mut f32; M] = std::array::from_fn(|m| out.add(rows[m.min(rows.len() - 1)] as usize * p.pitch));
        let mut panel = p.panel.as_ptr();
        for step in p.steps {
            let w: [__m256; V] = std::array::from_fn(|v| _mm256_loadu_ps(panel.add(v * LANES)));
            for m in 0..M {
                let x = _mm256_set1_ps(*from[m].add(*step as usize));
                for v in 0..V {
                    sum[m][v] = _mm256_fmadd_ps(x, w[v], sum[m][v]);
                }
            }
            panel = panel.add(V * LANES);
        }
        for (sum, to) in sum.into_iter().zip(to).take(rows.len()) {
            for (v, sum) in sum.into_iter().enumerate() {
                _mm256_storeu_ps(to.add(v * LANES), _mm256_add_ps(_mm256_loadu_ps(to.add(v * LANES)), sum));
            }
        }
    }
}

/// `to[c, r] = from[r, c]`, in blocks of 8 x 8.
pub(super) fn transpose(from: &[f32], from_ld: usize, to: &mut [f32], to_ld: usize, rows: usize, cols: usize) {
    // SAFETY: as in `product`; AVX-512 variants have AVX2 too.
    unsafe { transpose_all(from, from_ld, to, to_ld, rows, cols) }
}

#[target_feature(enable = "avx2,fma")]
fn transpose_all(from: &[f32], from_ld: usize, to: &mut [f32], to_ld: usize, rows: usize, cols: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!((rows - 1) * from_ld + cols <= from.len(), "every source element exists");
    assert!((cols - 1) * to_ld + rows <= to.len(), "every result element exists");
    let (whole_rows, whole_cols) = (rows / 8 * 8, cols / 8 * 8);
    for c in (0..whole_cols).step_by(8) {
        for r in (0..whole_rows).step_by(8) {
            // SAFETY: r + 8 <= rows and c + 8 <= cols, which the assertions hold against both slices.
            unsafe { block(from.as_ptr().add(r * from_ld + c), from_ld, to.as_mut_ptr().add(c * to_ld + r), to_ld) };
        }
        for r in whole_rows..rows {
            (c..c + 8).for_each(|c| to[c * to_ld + r] = from[r * from_ld + c]);
        }
    }
    for c in whole_cols..cols {
        (0..rows).for_each(|r| to[c * to_ld + r] = from[r * from_ld + c]);
    }
}

/// One block: halves of rows r and r + 4 share a register, then 4 x 4 transposes in both halves.
///
/// # Safety
/// 8 rows of 8 elements exist behind both pointers.
#[target_feature(enable = "avx2,fma")]
unsafe fn block(from: *const f32, from_ld: usize, to: *mut f32, to_ld: usize) {
    for half in 0..2 {
        // SAFETY: the caller's promise; columns 4 * half .. 4 * half + 4 of rows r and r + 4.
        let row = |r: usize| unsafe {
            let at = from.add(r * from_ld + 4 * half);
            let low = _mm256_castps128_ps256(_mm_loadu_ps(at));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(at.add(4 * from_ld)))
        };
        let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
        let (a, b) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (c, d) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        let turned = [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xEE>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xEE>(b, d),
        ];
        for (c, v) in turned.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(to.add((4 * half + c) * to_ld), v) };
        }
    }
}
