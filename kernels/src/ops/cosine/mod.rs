//! Batched cosine similarity, with optional fused selection.

mod cpu;
mod reference;

use crate::contract::*;
// STUB-RELATIONS: write check/flops functions named below.

/// `y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))`
pub static COSINE: Contract = Contract {
    name: "cosine",
    formula: "y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))",
    args: &[read("q", F32, &['n', 'd']), read("p", F32, &['m', 'd']), write("y", F32, &['n', 'm'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('n') * d.size('m') * d.size('d')) as u64,
    reference: reference::cosine,
    cpu: &[Variant::any("plain", cpu::cosine)],
    cuda: &[],
    wgsl: &[],
};

/// `the k largest cosines of every query, descending, lower index first on ties`
pub static COSINE_TOPK: Contract = Contract {
    name: "cosine_topk",
    formula: "the k largest cosines of every query, descending, lower index first on ties",
    args: &[
        read("q", F32, &['n', 'd']),
        read("p", F32, &['m', 'd']),
        write("score", F32, &['n', 'k']),
        write("index", U32, &['n', 'k']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: check_topk,
    flops: |d| 2 * (d.size('n') * d.size('m') * d.size('d')) as u64,
    reference: reference::cosine_topk,
    cpu: &[Variant::any("plain", cpu::cosine_topk)],
    cuda: &[],
    wgsl: &[],
};

fn check_topk(_d: &Dims) -> Result<(), String> {
    Ok(())
}
