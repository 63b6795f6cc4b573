//! Exact top-k by magnitude over candidates, written as bits. Radix select, no sort.
//!
//! The key of a score is its bits with the sign cleared, which orders magnitudes as integers; NaN ranks above infinity.
//! `plain` finds the k-th key digit by digit with histograms over all candidates. The other variants first bracket it
//! from a sample, so that one pass settles all but a few percent of the entries.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_avx512;
mod cpu_bracket;
#[cfg(feature = "wgsl")]
mod dispatch;
#[cfg(feature = "launches")]
mod launch;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;

#[cfg(target_arch = "x86_64")]
const CPU: &[Variant] = &[
    Variant::any("plain", cpu::topk).with_scratch(cpu::scratch),
    Variant::any("bracket", cpu_bracket::topk).with_scratch(cpu_bracket::scratch),
    Variant::needs(Isa::Avx512, "bracket_avx512", cpu_avx512::topk).with_scratch(cpu_bracket::scratch),
];
#[cfg(not(target_arch = "x86_64"))]
const CPU: &[Variant] = &[
    Variant::any("plain", cpu::topk).with_scratch(cpu::scratch),
    Variant::any("bracket", cpu_bracket::topk).with_scratch(cpu_bracket::scratch),
];

/// `mask = base, plus the k candidates of largest |score|, lower index first on ties (ties = 1: every candidate not below the k-th)`
///
/// Absent `candidates` are all entries, an absent `base` is empty. `k` is read when the op runs; `k = 0` gives `base`, `k`
/// at least the number of candidates adds them all. Index means row major without padding; pad bits stay zero.
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
    cpu: CPU,
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN).with_work(launch::work),
        Cuda::any("block", launch::MODULE, launch::BLOCK).fits(launch::fits_block),
    ],
    wgsl: wgsl_sources![Wgsl::any("plain", include_str!("topk.wgsl"), dispatch::PLAIN).with_work(dispatch::work)],
};
