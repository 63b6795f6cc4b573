//! What penalties on changing a dense model need: the pull back to earlier weights, and how much each weight's way
//! through a task lowered the loss.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `y = g + strength * f * (p - a)`
///
/// The gradient of a loss plus `strength / 2 * sum of f (p - a)²`: `f` is the importance of every entry, `a` its value
/// after earlier tasks. Source: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (2017), eq. 3.
pub static PULL: Contract = Contract {
    name: "pull",
    formula: "y = g + strength * f * (p - a)",
    args: &[
        read("g", F32, &['o', 'i']),
        read("f", F32, &['o', 'i']),
        read("p", F32, &['o', 'i']),
        read("a", F32, &['o', 'i']),
        write("y", F32, &['o', 'i']),
    ],
    scalars: &["strength"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 4 * (d.size('o') * d.size('i')) as u64,
    reference: reference::pull,
    cpu: &[Variant::any("plain", cpu::pull)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("pull_plain", 256, |d| cuda::line(d.size('o') * d.size('i'), 256)).in_batches()]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("pull.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('o') * d.size('i'), 64) }]
    )],
};

/// `w = w - g * (p - last); last = p`
///
/// Called after every update: `w` sums up how much each entry lowered the loss, to first order. Source: Zenke et al.,
/// Continual Learning Through Synaptic Intelligence (2017), section 3.
pub static PATH_INTEGRAL: Contract = Contract {
    name: "path_integral",
    formula: "w = w - g * (p - last); last = p",
    args: &[
        read("g", F32, &['o', 'i']),
        read("p", F32, &['o', 'i']),
        update("last", F32, &['o', 'i']),
        update("w", F32, &['o', 'i']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 3 * (d.size('o') * d.size('i')) as u64,
    reference: reference::path_integral,
    cpu: &[Variant::any("plain", cpu::path_integral)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("path_integral_plain", 256, |d| cuda::line(d.size('o') * d.size('i'), 256)).in_batches()]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("path_integral.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('o') * d.size('i'), 64) }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("consolidate", "consolidate/consolidate.cu");
