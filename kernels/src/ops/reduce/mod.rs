//! Reductions of fixed shape: sums, column moments, symmetric KL.

pub(crate) mod blocks;
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `y = sum of all entries`
pub static SUM: Contract = Contract {
    name: "sum",
    formula: "y = sum of all entries",
    args: &[read("x", F32, &['r', 'c']), write("y", F32, &['1'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::sum,
    cpu: &[Variant::any("plain", cpu::sum).with_scratch(cpu::sum_scratch)],
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("sum_blocks", 256, |d| cuda::line(d.size('r') * d.size('c'), 4096)),
                Launch::new("sum_combine", 256, |_| [1, 1, 1])
            ]
        )
        .with_work(|d| 2 * (d.size('r') * d.size('c')).div_ceil(4096))
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("sum.wgsl"),
            &[
                Dispatch { entry: "blocks", groups: |d| wgsl::line(d.size('r') * d.size('c'), 4096) },
                Dispatch { entry: "combine", groups: |_| [1, 1, 1] }
            ]
        )
        .with_work(|d| 2 * (d.size('r') * d.size('c')).div_ceil(4096))
    ],
};

/// `mean and population variance of every column, variance at least floor`
///
/// Without rows the mean is 0 and the variance is the floor.
pub static MOMENTS: Contract = Contract {
    name: "moments",
    formula: "mean and population variance of every column, variance at least floor",
    args: &[read("x", F32, &['r', 'c']), write("mean", F32, &['c']), write("var", F32, &['c'])],
    scalars: &["floor"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 4 * (d.size('r') * d.size('c')) as u64,
    reference: reference::moments,
    cpu: &[Variant::any("plain", cpu::moments)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("moments_plain", 128, |d| cuda::line(d.size('c'), 128))]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("moments.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('c'), 16) }]
    )],
};

/// `kl = ½ (KL(p‖q) + KL(q‖p)) of diagonal Gaussians, in nats`
///
/// Variances must be positive ([`MOMENTS`] keeps them at its floor). Source: closed form for Gaussians; Bishop, PRML
/// (2006), exercise 2.13.
pub static SYM_KL: Contract = Contract {
    name: "sym_kl",
    formula: "kl = ½ (KL(p‖q) + KL(q‖p)) of diagonal Gaussians, in nats",
    args: &[
        read("mean_p", F32, &['d']),
        read("var_p", F32, &['d']),
        read("mean_q", F32, &['d']),
        read("var_q", F32, &['d']),
        write("kl", F32, &['1']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 12 * d.size('d') as u64,
    reference: reference::sym_kl,
    cpu: &[Variant::any("plain", cpu::sym_kl)],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[Launch::new("sym_kl_plain", 256, |_| [1, 1, 1])])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("sym_kl.wgsl"),
        &[Dispatch { entry: "plain", groups: |_| [1, 1, 1] }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("reduce", "reduce/reduce.cu");
