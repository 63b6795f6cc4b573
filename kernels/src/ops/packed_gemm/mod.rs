//! Product with packed rows, for inference.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o + 1]] at columns col`
pub static PACKED_GEMM: Contract = Contract {
    name: "packed_gemm",
    formula: "y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o + 1]] at columns col",
    args: &[
        read("x", F32, &['r', 'i']),
        read("row_start", U32, &['p']),
        read("col", U16, &['n']),
        read("value", F16, &['n']),
        read("bias", F32, &['o']).optional(),
        write("y", F32, &['r', 'o']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('p', "o + 1", d.size('o') + 1),
    flops: |d| 2 * (d.size('r') * d.size('n')) as u64,
    reference: reference::packed_gemm,
    cpu: &[Variant::any("plain", cpu::packed_gemm)],
    cuda: &[],
    wgsl: &[],
};
