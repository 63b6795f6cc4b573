//! Exact one-dimensional k-means.

mod cpu;
mod reference;

use crate::contract::*;
// STUB-RELATIONS: write check/flops functions named below.

/// `k centres of the selected x in one dimension: the exact optimum, or Lloyd from init; used = min(k, distinct values)`
pub static KMEANS: Contract = Contract {
    name: "kmeans",
    formula: "k centres of the selected x in one dimension: the exact optimum, or Lloyd from init; used = min(k, distinct values)",
    args: &[
        read("x", F32, &['n']),
        read("select", BITS, &['n']).optional(),
        read("init", F32, &['k']).optional(),
        write("center", F32, &['k']),
        write("code", U8, &['n']),
        write("inertia", F32, &['1']),
        write("used", U32, &['1']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: |_| 0,
    reference: reference::kmeans,
    cpu: &[Variant::any("plain", cpu::kmeans)],
    cuda: &[],
    wgsl: &[],
};

fn check(_d: &Dims) -> Result<(), String> {
    Ok(())
}
