//! Product with a bit-masked weight, its gradients and the straight-through score gradient.
//!
//! A cleared bit means the weight is *not read*: it may hold NaN or another task's value. `x` and `dy` are finite:
//! whether an infinity there meets a cleared bit as zero or as NaN differs between variants. The score gradient reads
//! the weight of every candidate, in the mask or not.

mod cpu;
mod reference;
#[cfg(test)]
pub(super) mod tests;

use crate::contract::*;
use crate::ops::gemm::micro::Portable;
use crate::ops::gemm::{product, sums, tiled};
#[cfg(target_arch = "x86_64")]
use crate::{
    ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512},
    simd::Isa,
};

/// `y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask`
pub static MASKED_GEMM: Contract = Contract {
    name: "masked_gemm",
    formula: "y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask",
    args: &[
        read("x", F32, &['r', 'i']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("bias", F32, &['o']).optional(),
        read("bias_mask", BITS, &['o']).optional(),
        write("y", F32, &['r', 'o']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm,
    cpu: tiled!(cpu::masked_gemm, masked_gemm_tiled, masked_gemm_pack from &[1, 2, 3, 4], forward_len),
    cuda: &[],
    wgsl: &[],
};

/// `dx = dy (w ⊙ mask)`
pub static MASKED_GEMM_DX: Contract = Contract {
    name: "masked_gemm_dx",
    formula: "dx = dy (w ⊙ mask)",
    args: &[
        read("dy", F32, &['r', 'o']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        write("dx", F32, &['r', 'i']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dx,
    cpu: tiled!(cpu::masked_gemm_dx, masked_gemm_dx_tiled, masked_gemm_dx_pack from &[1, 2], back_len),
    cuda: &[],
    wgsl: &[],
};

/// `g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
///
/// `sign(0) = 0`. An absent score counts as positive everywhere, absent candidates are all entries.
pub static MASKED_GEMM_DW: Contract = Contract {
    name: "masked_gemm_dw",
    formula: "g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['r', 'o']),
        read("x", F32, &['r', 'i']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("score", F32, &['o', 'i']).optional(),
        read("candidates", BITS, &['o', 'i']).optional(),
        write("dw", F32, &['o', 'i']),
        write("ds", F32, &['o', 'i']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dw,
    cpu: tiled!(cpu::masked_gemm_dw, masked_gemm_dw_tiled, scratch outer_scratch),
    cuda: &[],
    wgsl: &[],
};

/// `g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero outside the candidates`
pub static MASKED_BIAS_DW: Contract = Contract {
    name: "masked_bias_dw",
    formula: "g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['r', 'e']),
        read("bias", F32, &['o']),
        read("mask", BITS, &['o']),
        read("score", F32, &['o']).optional(),
        read("candidates", BITS, &['o']).optional(),
        write("db", F32, &['o']),
        write("ds", F32, &['o']).optional(),
    ],
    scalars: &["inner"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('e', "o * inner", d.size('o') * d.scalar(0) as usize),
    flops: |d| (d.size('r') * d.size('e')) as u64,
    reference: reference::masked_bias_dw,
    cpu: &[
        Variant::any("plain", cpu::masked_bias_dw),
        Variant::any("blocks", cpu::masked_bias_dw_blocks).with_scratch(sums::blocks_scratch),
    ],
    cuda: &[],
    wgsl: &[],
};
