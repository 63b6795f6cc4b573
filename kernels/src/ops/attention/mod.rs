//! Causal attention with padding and dropout on the probabilities.
//!
//! `qkv` rows are tokens, columns are q, k, v of all heads (head-major inside each). A query without a visible key gives
//! zeros and takes no gradient. Dropout draws element `((b * heads + h) * t + q) * t + p`.

mod cpu;
mod reference;

use crate::contract::*;
// STUB-RELATIONS: write check/flops functions named below.

/// `y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); key p is visible to query q when p <= q and valid[p]; stats = log-sum-exp per head`
pub static ATTENTION: Contract = Contract {
    name: "attention",
    formula: "y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); key p is visible to query q when p <= q and valid[p]; stats = log-sum-exp per head",
    args: &[
        read("qkv", F32, &['r', 'e']),
        read("valid", U8, &['b', 't']),
        read("rng", U32, &['4']).optional(),
        write("y", F32, &['r', 'c']),
        write("stats", F32, &['r', 'h']),
    ],
    scalars: &["heads", "drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::attention,
    cpu: &[Variant::any("plain", cpu::attention)],
    cuda: &[],
    wgsl: &[],
};

/// `dqkv from dy, probabilities recomputed from stats`
pub static ATTENTION_DX: Contract = Contract {
    name: "attention_dx",
    formula: "dqkv from dy, probabilities recomputed from stats",
    args: &[
        read("qkv", F32, &['r', 'e']),
        read("valid", U8, &['b', 't']),
        read("rng", U32, &['4']).optional(),
        read("y", F32, &['r', 'c']),
        read("stats", F32, &['r', 'h']),
        read("dy", F32, &['r', 'c']),
        write("dqkv", F32, &['r', 'e']),
    ],
    scalars: &["heads", "drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: flops_dx,
    reference: reference::attention_dx,
    cpu: &[Variant::any("plain", cpu::attention_dx)],
    cuda: &[],
    wgsl: &[],
};

fn check(_d: &Dims) -> Result<(), String> {
    Ok(())
}

fn flops(_d: &Dims) -> u64 {
    0
}

fn flops_dx(_d: &Dims) -> u64 {
    0
}
