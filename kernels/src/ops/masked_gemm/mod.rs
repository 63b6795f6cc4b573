//! Product with a bit-masked weight, its gradients and the straight-through score gradient.
//!
//! A cleared bit means the weight is *not read*: it may hold NaN or another task's value.

mod cpu;
mod reference;

use crate::contract::*;

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
    cpu: &[Variant::any("plain", cpu::masked_gemm)],
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
    cpu: &[Variant::any("plain", cpu::masked_gemm_dx)],
    cuda: &[],
    wgsl: &[],
};

/// `g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
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
    cpu: &[Variant::any("plain", cpu::masked_gemm_dw)],
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
    cpu: &[Variant::any("plain", cpu::masked_bias_dw)],
    cuda: &[],
    wgsl: &[],
};
