//! Row gather, masked, and its scatter-add.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `y[r] = (w ⊙ mask)[min(ids[r], v - 1)]`
///
/// A cleared bit means the weight is not read. An empty table gives zeros.
pub static EMBED: Contract = Contract {
    name: "embed",
    formula: "y[r] = (w ⊙ mask)[min(ids[r], v - 1)]",
    args: &[
        read("ids", U32, &['r']),
        read("w", F32, &['v', 'c']),
        read("mask", BITS, &['v', 'c']).optional(),
        write("y", F32, &['r', 'c']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |_| 0,
    reference: reference::embed,
    cpu: &[Variant::any("plain", cpu::embed)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("embed_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256)).in_batches()]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("embed.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `g[v] = sum of dy[r] with ids[r] = v, r ascending; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
///
/// Ids past the table count for its last row, as in [`EMBED`]. `sign(0) = 0`. `ds` needs `w` and `score`; without them it
/// is zero. Absent `mask` and `candidates` mean all entries.
pub static EMBED_DW: Contract = Contract {
    name: "embed_dw",
    formula: "g[v] = sum of dy[r] with ids[r] = v, r ascending; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['r', 'c']),
        read("ids", U32, &['r']),
        read("w", F32, &['v', 'c']).optional(),
        read("mask", BITS, &['v', 'c']).optional(),
        read("score", F32, &['v', 'c']).optional(),
        read("candidates", BITS, &['v', 'c']).optional(),
        write("dw", F32, &['v', 'c']),
        write("ds", F32, &['v', 'c']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::embed_dw,
    cpu: &[Variant::any("plain", cpu::embed_dw)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("embed_dw_plain", 256, |d| cuda::line(d.size('v') * d.size('c'), 256))]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("embed_dw.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('v') * d.size('c'), 64) }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("embed", "embed/embed.cu");
