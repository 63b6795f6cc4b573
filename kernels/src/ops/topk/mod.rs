//! Exact top-k by magnitude over candidates, written as bits. Radix select, no sort.

mod cpu;
mod reference;

use crate::contract::*;

/// `mask = base, plus the k candidates of largest |score|, lower index first on ties (ties = 1: every candidate not below the k-th)`
pub static TOPK: Contract = Contract {
    name: "topk",
    formula: "mask = base, plus the k candidates of largest |score|, lower index first on ties (ties = 1: every candidate not below the k-th)",
    args: &[
        read("score", F32, &['o', 'i']),
        read("candidates", BITS, &['o', 'i']).optional(),
        read("base", BITS, &['o', 'i']).optional(),
        read("k", U32, &['1']),
        write("mask", BITS, &['o', 'i']),
    ],
    scalars: &["ties"],
    tol: Tol::exact(),
    check: no_check,
    flops: |_| 0,
    reference: reference::topk,
    cpu: &[Variant::any("plain", cpu::topk)],
    cuda: &[],
    wgsl: &[],
};
