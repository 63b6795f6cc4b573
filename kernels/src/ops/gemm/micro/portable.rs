//! The kernel in plain Rust, for every architecture.
#![expect(unsafe_code, reason = "loads and stores through pointers, as the vectors of other instruction sets")]

use super::pack::{pack_cols, pack_rows, pack_strips};
use super::rows::{dots, finish, listed};
use super::{Epilogue, Kernel, Lanes, Tile, Weight, sign, tile_heights};
use crate::operand::Mat;
use crate::ops::vmath;
use half::f16;

/// Four lanes of plain Rust, which every 128-bit instruction set can hold.
#[derive(Clone, Copy)]
pub(crate) struct Quad([f32; 4]);

impl Lanes for Quad {
    const W: usize = 4;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Quad {
        Quad([v; 4])
    }

    #[inline(always)]
    unsafe fn widen(p: *const f16) -> Quad {
        // SAFETY: the caller's promise.
        Quad(unsafe { p.cast::<[f16; 4]>().read_unaligned() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Quad {
        // SAFETY: the caller's promise.
        Quad(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bits(p: *const f32, bits: u32) -> Quad {
        // SAFETY: only lanes with set bits are read, which is the caller's promise.
        Quad(std::array::from_fn(|j| if bits >> j & 1 == 1 { unsafe { *p.add(j) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn fetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn fetch_far(_: *const f32) {}

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_bits(self, p: *mut f32, bits: u32) {
        for (j, v) in self.0.into_iter().enumerate() {
            if bits >> j & 1 == 1 {
                // SAFETY: only lanes with set bits are written, which is the caller's promise.
                unsafe { *p.add(j) = v }
            }
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Quad, c: Quad) -> Quad {
        // Where no instruction does it, `mul_add` is a call.
        const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        let one = |j: usize| if FUSED { self.0[j].mul_add(b.0[j], c.0[j]) } else { self.0[j] * b.0[j] + c.0[j] };
        Quad(std::array::from_fn(one))
    }

    #[inline(always)]
    unsafe fn mul(self, b: Quad) -> Quad {
        Quad(std::array::from_fn(|j| self.0[j] * b.0[j]))
    }

    #[inline(always)]
    unsafe fn mul_sign(self, s: Quad) -> Quad {
        Quad(std::array::from_fn(|j| self.0[j] * sign(s.0[j])))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Quad; 16]) {
        for a in 0..4 {
            for b in a + 1..4 {
                let v = rows[a].0[b];
                rows[a].0[b] = rows[b].0[a];
                rows[b].0[a] = v;
            }
        }
    }
}

/// The portable kernel.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    type Simd = vmath::Portable;
    const MR: usize = 4;
    const NR: usize = 8;

    unsafe fn tile(t: Tile<'_>) {
        tile_heights!(Quad, t, 4: 1 2 3 4)
    }

    unsafe fn pack_rows(w: &Weight<'_>, col: usize, panel: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_rows::<Quad>(w, col, panel) }
    }

    unsafe fn pack_cols(w: &Weight<'_>, first: usize, panel: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_cols::<Quad>(w, first, panel) }
    }

    unsafe fn pack_strips(m: Mat<'_, f32>, strip: usize, out: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { pack_strips::<Quad>(m, strip, out) }
    }

    unsafe fn dots(x: &[&[f32]], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32], ld: usize) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { dots::<Quad>(x, w, bias, y, ld) }
    }

    unsafe fn finish(e: Epilogue<'_>) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { finish::<Quad>(e) }
    }

    unsafe fn listed(panel: &[f32], cols: &[u16], values: &[f16], start: f32, out: &mut [f32]) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { listed::<Quad>(panel, cols, values, start, out) }
    }
}
