//! What f32 and bf16 become in tiles: parts of 32 elements each, and the sums of parts.
#![expect(unsafe_code, reason = "vector intrinsics, inlined into functions of the instruction set")]

use super::tile::{Sums, TILE, Tiles};
use crate::operand::{Call, Mat};
use half::bf16;
use std::arch::x86_64::*;

/// An element type of a product on tiles.
///
/// A lane of a tile holds two elements of k. Which two differs, and both factors agree: neighbours of bf16, which lie side
/// by side already; elements 16 apart of f32, whose parts then meet without a shuffle.
///
/// # Safety
/// All unsafe functions: the CPU has AVX-512.
pub(crate) trait Element: Copy + Sync + 'static {
    /// Tiles of 32 elements of k and 16 rows or columns.
    const PARTS: usize;
    /// Rows of 16 that are multiplied together.
    const TALL: usize;
    /// Most steps of 32 elements of k in a block.
    const STEPS: usize;
    /// Fewest rows of a product that fill enough of the tiles to be faster than vectors.
    const LEAST_ROWS: usize;
    /// Takes a read argument of a call.
    fn take<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, Self>;
    /// Elements of k in lane `j`.
    fn pair(j: usize) -> [usize; 2];
    /// Up to 32 elements of k of one row or column, those with clear bits zero; `p` is valid for the others.
    unsafe fn along(p: *const Self, bits: u32) -> [__m512i; 3];
    /// Up to 16 rows or columns of the two elements of k of a lane, lanes with clear bits zero.
    unsafe fn across(p: [*const Self; 2], bits: [u32; 2]) -> [__m512i; 3];
    /// Adds up one block.
    fn multiply(tiles: &Tiles, left: &[f32], right: &[f32], sums: &mut Sums);
    /// The sums of a row, two vectors of columns.
    unsafe fn row(sums: &Sums, row: usize) -> [__m512; 2];
}

/// Elements in lanes of 16 bits of two vectors of f32 whose lower halves are zero.
#[inline(always)]
unsafe fn lanes(low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe { _mm512_or_si512(_mm512_srli_epi32::<16>(low), high) }
}

/// The bits of an f32 that a bf16 has.
const UPPER: i32 = 0xFFFF_0000_u32 as i32;

/// The nearest bf16, halves away from zero, and what it leaves, which is exact.
#[inline(always)]
unsafe fn nearest(x: __m512) -> (__m512i, __m512) {
    // SAFETY: the caller has the instructions.
    unsafe {
        let rounded = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
        let near = _mm512_and_si512(rounded, _mm512_set1_epi32(UPPER));
        (near, _mm512_sub_ps(x, _mm512_castsi512_ps(near)))
    }
}

#[inline(always)]
unsafe fn split(low: __m512, high: __m512) -> [__m512i; 3] {
    // SAFETY: the caller has the instructions.
    unsafe {
        let ((h, rest), (h_high, rest_high)) = (nearest(low), nearest(high));
        let ((m, l), (m_high, l_high)) = (nearest(rest), nearest(rest_high));
        // A last part is a bf16 as it is. Rounding NaN may wrap it to zero; here it stays.
        let l_high = _mm512_and_si512(_mm512_castps_si512(l_high), _mm512_set1_epi32(UPPER));
        [lanes(h, h_high), lanes(m, m_high), lanes(_mm512_castps_si512(l), l_high)]
    }
}

impl Element for f32 {
    const PARTS: usize = 3;
    const TALL: usize = 1;
    /// A panel of 24 KiB.
    const STEPS: usize = 4;
    const LEAST_ROWS: usize = 28;

    fn take<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, f32> {
        c.f32(at)
    }

    fn pair(j: usize) -> [usize; 2] {
        [j, 16 + j]
    }

    #[inline(always)]
    unsafe fn along(p: *const f32, bits: u32) -> [__m512i; 3] {
        // SAFETY: masked lanes are not read; the others are the caller's promise.
        unsafe {
            let low = _mm512_maskz_loadu_ps(bits as u16, p);
            split(low, _mm512_maskz_loadu_ps((bits >> 16) as u16, p.wrapping_add(16)))
        }
    }

    #[inline(always)]
    unsafe fn across(p: [*const f32; 2], bits: [u32; 2]) -> [__m512i; 3] {
        // SAFETY: masked lanes are not read; the others are the caller's promise.
        unsafe { split(_mm512_maskz_loadu_ps(bits[0] as u16, p[0]), _mm512_maskz_loadu_ps(bits[1] as u16, p[1])) }
    }

    fn multiply(tiles: &Tiles, left: &[f32], right: &[f32], sums: &mut Sums) {
        tiles.split(left, right, sums);
    }

    #[inline(always)]
    unsafe fn row(sums: &Sums, row: usize) -> [__m512; 2] {
        debug_assert!(row < 16, "rows of a tile");
        let at = |tile: usize| sums.0.as_ptr().wrapping_add(tile * TILE + 16 * row);
        // SAFETY: row < 16, so that all lie in four tiles.
        unsafe {
            let sum = |tile| _mm512_add_ps(_mm512_loadu_ps(at(tile)), _mm512_loadu_ps(at(tile + 1)));
            [sum(0), sum(2)]
        }
    }
}

impl Element for bf16 {
    const PARTS: usize = 1;
    const TALL: usize = 2;
    /// A panel of 24 KiB.
    const STEPS: usize = 12;
    const LEAST_ROWS: usize = 10;

    fn take<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, bf16> {
        c.bf16(at)
    }

    fn pair(j: usize) -> [usize; 2] {
        [2 * j, 2 * j + 1]
    }

    #[inline(always)]
    unsafe fn along(p: *const bf16, bits: u32) -> [__m512i; 3] {
        // SAFETY: masked lanes are not read; the others are the caller's promise.
        unsafe { [_mm512_maskz_loadu_epi16(bits, p.cast()); 3] }
    }

    #[inline(always)]
    unsafe fn across(p: [*const bf16; 2], bits: [u32; 2]) -> [__m512i; 3] {
        // SAFETY: masked lanes are not read; the others are the caller's promise.
        unsafe {
            let wide =
                |p: *const bf16, bits: u32| _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(bits as u16, p.cast()));
            let high = _mm512_slli_epi32::<16>(wide(p[1], bits[1]));
            [_mm512_or_si512(wide(p[0], bits[0]), high); 3]
        }
    }

    fn multiply(tiles: &Tiles, left: &[f32], right: &[f32], sums: &mut Sums) {
        tiles.whole(left, right, sums);
    }

    #[inline(always)]
    unsafe fn row(sums: &Sums, row: usize) -> [__m512; 2] {
        debug_assert!(row < 32, "rows of two tiles");
        let at = |tile: usize| sums.0.as_ptr().wrapping_add((row / 16 * 2 + tile) * TILE + 16 * (row % 16));
        // SAFETY: row < 32, so that all lie in four tiles.
        unsafe { [_mm512_loadu_ps(at(0)), _mm512_loadu_ps(at(1))] }
    }
}
