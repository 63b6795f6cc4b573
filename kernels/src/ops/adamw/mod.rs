//! AdamW that never writes a frozen entry, and the clip norm before it.
//!
//! `step` is `(lr, c1, c2, 0)` with `c1 = 1 - beta1^t`, `c2 = 1 - beta2^t`, computed in f64 on the host.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_x86;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;

#[cfg(target_arch = "x86_64")]
const ADAMW_CPU: &[Variant] = &[
    Variant::any("plain", cpu::adamw),
    Variant::needs(Isa::Avx2, "avx2_masked", cpu_x86::adamw_avx2),
    Variant::needs(Isa::Avx512, "avx512_masked", cpu_x86::adamw_avx512),
];
#[cfg(not(target_arch = "x86_64"))]
const ADAMW_CPU: &[Variant] = &[Variant::any("plain", cpu::adamw)];

#[cfg(target_arch = "x86_64")]
const SUMSQ_CPU: &[Variant] = &[
    Variant::any("plain", cpu::sumsq).with_scratch(cpu::sumsq_scratch),
    Variant::needs(Isa::Avx512, "avx512_masked", cpu_x86::sumsq_avx512).with_scratch(cpu::sumsq_scratch),
];
#[cfg(not(target_arch = "x86_64"))]
const SUMSQ_CPU: &[Variant] = &[Variant::any("plain", cpu::sumsq).with_scratch(cpu::sumsq_scratch)];

/// `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched`
///
/// The rate is `step[0] * lr_scale`. `1 - beta` is rounded to a multiple of 1e-7 on every backend: 0.999 as f32 would
/// make `v` wrong by 1.3e-5. A frozen entry of `p`, `m` and `v` is never written and may hold NaN. Source: Loshchilov and
/// Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
pub static ADAMW: Contract = Contract {
    name: "adamw",
    formula: "m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched",
    args: &[
        read("g", F32, &['o', 'i']),
        read("trainable", BITS, &['o', 'i']).optional(),
        read("step", F32, &['4']),
        read("clip", F32, &['1']).optional(),
        update("p", F32, &['o', 'i']),
        update("m", F32, &['o', 'i']),
        update("v", F32, &['o', 'i']),
    ],
    scalars: &["beta1", "beta2", "eps", "weight_decay", "lr_scale"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 14 * (d.size('o') * d.size('i')) as u64,
    reference: reference::adamw,
    cpu: ADAMW_CPU,
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("adamw_plain", 256, |d| cuda::line(d.size('o') * d.size('i'), 256)).in_batches()]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("adamw.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('o') * d.size('i'), 64) }]
    )],
};

/// `s = sum of g² over trainable entries`
///
/// Frozen entries may hold NaN. Sums in f64, of a fixed shape.
pub static SUMSQ: Contract = Contract {
    name: "sumsq",
    formula: "s = sum of g² over trainable entries",
    args: &[read("g", F32, &['o', 'i']), read("trainable", BITS, &['o', 'i']).optional(), write("s", F32, &['1'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('o') * d.size('i')) as u64,
    reference: reference::sumsq,
    cpu: SUMSQ_CPU,
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("sumsq_blocks", 256, |d| cuda::line(d.size('o') * d.size('i'), 4096)).in_batches(),
                Launch::new("sumsq_combine", 256, |_| [1, 1, 1]).in_batches()
            ]
        )
        .with_work(|d| 2 * (d.size('o') * d.size('i')).div_ceil(4096))
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("sumsq.wgsl"),
            &[
                Dispatch { entry: "blocks", groups: |d| wgsl::line(d.size('o') * d.size('i'), 4096) },
                Dispatch { entry: "combine", groups: |_| [1, 1, 1] }
            ]
        )
        .with_work(|d| 2 * (d.size('o') * d.size('i')).div_ceil(4096))
    ],
};

/// `norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))`
///
/// A `max_norm` that is not positive or not finite turns clipping off: factor 1.
pub static CLIP: Contract = Contract {
    name: "clip",
    formula: "norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))",
    args: &[read("s", F32, &['n']), write("norm", F32, &['1']), write("factor", F32, &['1'])],
    scalars: &["max_norm"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| d.size('n') as u64,
    reference: reference::clip,
    cpu: &[Variant::any("plain", cpu::clip)],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[Launch::new("clip_plain", 256, |_| [1, 1, 1])])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("clip.wgsl"),
        &[Dispatch { entry: "plain", groups: |_| [1, 1, 1] }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("adamw", "adamw/adamw.cu");
