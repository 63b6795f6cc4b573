//! Convolution as an implicit GEMM, masked.
//!
//! Rows of `x` are images flattened as (channel, y, x); rows of `y` are flattened as (output, y, x). No patch matrix is
//! materialised.

mod cpu;
mod reference;

use crate::contract::*;
// STUB-RELATIONS: write check/flops functions named below.

/// `valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are divided by 255`
pub static CONV: Contract = Contract {
    name: "conv",
    formula: "valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are divided by 255",
    args: &[
        read("x", &[DType::F32, DType::U8], &['n', 'a']),
        read("w", F32, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        read("bias", F32, &['o']).optional(),
        read("bias_mask", BITS, &['o']).optional(),
        write("y", F32, &['n', 'e']),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv,
    cpu: &[Variant::any("plain", cpu::conv)],
    cuda: &[],
    wgsl: &[],
};

/// `gradient of conv with respect to x`
pub static CONV_DX: Contract = Contract {
    name: "conv_dx",
    formula: "gradient of conv with respect to x",
    args: &[
        read("dy", F32, &['n', 'e']),
        read("w", F32, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        write("dx", F32, &['n', 'a']),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv_dx,
    cpu: &[Variant::any("plain", cpu::conv_dx)],
    cuda: &[],
    wgsl: &[],
};

/// `g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
pub static CONV_DW: Contract = Contract {
    name: "conv_dw",
    formula: "g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['n', 'e']),
        read("x", &[DType::F32, DType::U8], &['n', 'a']),
        read("w", F32, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        read("score", F32, &['o', 'j']).optional(),
        read("candidates", BITS, &['o', 'j']).optional(),
        write("dw", F32, &['o', 'j']),
        write("ds", F32, &['o', 'j']).optional(),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv_dw,
    cpu: &[Variant::any("plain", cpu::conv_dw)],
    cuda: &[],
    wgsl: &[],
};

fn check(_d: &Dims) -> Result<(), String> {
    Ok(())
}

fn flops(_d: &Dims) -> u64 {
    0
}
