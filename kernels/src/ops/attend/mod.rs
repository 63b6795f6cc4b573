//! Attention of the last token of each sequence alone: what the last block of a decision needs.
//!
//! `kv` rows are tokens, columns are k and v of all heads (head-major inside each), so head `i` of width `d` has its
//! keys in columns `i d ..` and its values in `c + i d ..`. `valid` holds a flag per token: 0 hides its key and value,
//! which are then not read. A query without a visible key gives zeros.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;
mod vectors;

use super::vmath;
use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;

/// `y = softmax(q kᵀ / sqrt(d)) v over the valid keys, one query per sequence`
pub static ATTEND: Contract = Contract {
    name: "attend",
    formula: "y = softmax(q kᵀ / sqrt(d)) v over the valid keys, one query per sequence",
    args: &[
        read("q", F32, &['b', 'c']),
        read("kv", F32, &['r', 'e']),
        read("valid", U8, &['b', 't']),
        write("y", F32, &['b', 'c']),
    ],
    scalars: &["heads"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: |d| 4 * (d.size('r') * d.size('c')) as u64,
    reference: reference::attend,
    cpu: &[
        Variant::any("plain", cpu::attend).with_scratch(cpu::scratch),
        #[cfg(not(tsn_small))]
        Variant::any("vectors", vectors::attend::<vmath::Portable>).with_scratch(vectors::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "vectors_avx2", vectors::attend::<vmath::Avx2>).with_scratch(vectors::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "vectors_avx512", vectors::attend::<vmath::Avx512>).with_scratch(vectors::scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", MODULE, &[Launch::new("attend_plain", 128, |d| cuda::line(heads(d), 128))])
            .with_work(scores),
        Cuda::any("block", MODULE, &[Launch::new("attend_block", 128, |d| cuda::line(heads(d), 1))]).with_work(scores),
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("attend.wgsl"),
            &[Dispatch { entry: "plain", groups: |d| wgsl::line(heads(d), 64) }],
        )
        .with_work(scores),
    ],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("attend", "attend/attend.cu");

/// Heads of all sequences.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn heads(d: &Dims) -> usize {
    d.size('b') * d.scalar(0) as usize
}

/// A word per head and key.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn scores(d: &Dims) -> usize {
    d.size('r') * d.scalar(0) as usize
}

fn check(d: &Dims) -> Result<(), String> {
    let (heads, width) = (d.scalar(0) as usize, d.size('c'));
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(format!("dim `c` is {width}, not a positive multiple of scalar `heads` = {heads}"));
    }
    d.product_is('r', "b * t", d.size('b') * d.size('t'))?;
    d.product_is('e', "2 * c", 2 * width)
}

/// Sizes of a call: heads, tokens of a sequence, width of a head.
fn sizes(dims: &Dims) -> (usize, usize, usize) {
    let heads = dims.scalar(0) as usize;
    (heads, dims.size('t'), dims.size('c') / heads)
}
