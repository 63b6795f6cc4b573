//! Dropout by element index: no mask is stored, backward draws the same numbers again.
//!
//! Element `e = row * cols + col` owns 16 random bits: half-word `e % 8` (the low half of word `e % 8 / 2` first) of
//! the Philox block with counter `[block low, block high, call, rng[2]]` and key `[rng[0], rng[1]]`, `block = e / 8`.
//! It is kept iff they are at least `round(drop * 65536)`, so the rate that holds is that threshold over 65536, and
//! kept elements are scaled by the inverse of *its* complement. A dropped element is not read: NaN there gives 0.

mod cpu;
mod draw;
mod reference;
#[cfg(test)]
mod tests;

use super::vmath;
use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;
pub(crate) use draw::{Draw, check_drop};

/// `y = add + x ⊙ keep / (1 - drop)`
pub static DROPOUT: Contract = Contract {
    name: "dropout",
    formula: "y = add + x ⊙ keep / (1 - drop)",
    args: &[
        read("x", F32, &['r', 'c']),
        read("add", F32, &['r', 'c']).optional(),
        read("rng", U32, &['4']),
        write("y", F32, &['r', 'c']),
    ],
    scalars: &["drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: |d| 2 * (d.size('r') * d.size('c')) as u64,
    reference: reference::dropout,
    cpu: &[
        Variant::any("plain", cpu::plain),
        #[cfg(not(tsn_small))]
        Variant::any("strips", cpu::dropout::<vmath::Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::dropout::<vmath::Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::dropout::<vmath::Avx512>),
    ],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("dropout_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256)).as_stage(Some("x"), "y")]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("dropout.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `dx = dy ⊙ keep / (1 - drop)`
pub static DROPOUT_DX: Contract = Contract {
    name: "dropout_dx",
    formula: "dx = dy ⊙ keep / (1 - drop)",
    args: &[read("dy", F32, &['r', 'c']), read("rng", U32, &['4']), write("dx", F32, &['r', 'c'])],
    scalars: &["drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::dropout_dx,
    cpu: &[
        Variant::any("plain", cpu::plain_dx),
        Variant::any("strips", cpu::dropout_dx::<vmath::Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::dropout_dx::<vmath::Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::dropout_dx::<vmath::Avx512>),
    ],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("dropout_dx_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256))
            .as_stage(Some("dy"), "dx")]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("dropout_dx.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

fn check(d: &Dims) -> Result<(), String> {
    check_drop(d.scalar_f32(0))
}

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("dropout", "dropout/dropout.cu");
