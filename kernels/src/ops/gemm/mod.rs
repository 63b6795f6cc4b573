//! Dense product and its gradients.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = x wᵀ + bias`
pub static GEMM: Contract = Contract {
    name: "gemm",
    formula: "y = x wᵀ + bias",
    args: &[
        read("x", F32, &['r', 'i']),
        read("w", F32, &['o', 'i']),
        read("bias", F32, &['o']).optional(),
        write("y", F32, &['r', 'o']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm,
    cpu: &[Variant::any("plain", cpu::gemm)],
    cuda: &[],
    wgsl: &[],
};

/// `dx = dy w`
pub static GEMM_DX: Contract = Contract {
    name: "gemm_dx",
    formula: "dx = dy w",
    args: &[read("dy", F32, &['r', 'o']), read("w", F32, &['o', 'i']), write("dx", F32, &['r', 'i'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm_dx,
    cpu: &[Variant::any("plain", cpu::gemm_dx)],
    cuda: &[],
    wgsl: &[],
};

/// `dw = dyᵀ x`
pub static GEMM_DW: Contract = Contract {
    name: "gemm_dw",
    formula: "dw = dyᵀ x",
    args: &[read("dy", F32, &['r', 'o']), read("x", F32, &['r', 'i']), write("dw", F32, &['o', 'i'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm_dw,
    cpu: &[Variant::any("plain", cpu::gemm_dw)],
    cuda: &[],
    wgsl: &[],
};

/// `db[o] = sum over r and inner of dy[r, o * inner]`
pub static BIAS_DW: Contract = Contract {
    name: "bias_dw",
    formula: "db[o] = sum over r and inner of dy[r, o * inner]",
    args: &[read("dy", F32, &['r', 'e']), write("db", F32, &['o'])],
    scalars: &["inner"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('e', "o * inner", d.size('o') * d.scalar(0) as usize),
    flops: |d| (d.size('r') * d.size('e')) as u64,
    reference: reference::bias_dw,
    cpu: &[Variant::any("plain", cpu::bias_dw)],
    cuda: &[],
    wgsl: &[],
};
