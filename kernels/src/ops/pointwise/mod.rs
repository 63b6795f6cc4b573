//! GELU (erf form) and addition.
//!
//! GELU is `x Φ(x)` with the standard normal distribution function `Φ(x) = (1 + erf(x / sqrt 2)) / 2` and density
//! `φ(x) = exp(-x^2 / 2) / sqrt(2π)`. NaN gives NaN; so do minus infinity (`-inf * 0`) and, in the gradient, both
//! infinities, as the formulas say.

pub(super) mod cpu;
pub(super) mod reference;
#[cfg(test)]
mod tests;

use super::vmath;
use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;

/// `y = x / 2 (1 + erf(x / sqrt 2))`
pub static GELU: Contract = Contract {
    name: "gelu",
    formula: "y = x / 2 (1 + erf(x / sqrt 2))",
    args: &[read("x", F32, &['r', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 40 * (d.size('r') * d.size('c')) as u64,
    reference: reference::gelu,
    cpu: &[
        Variant::any("plain", cpu::plain_gelu),
        #[cfg(not(tsn_small))]
        Variant::any("lanes", cpu::gelu::<vmath::Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::gelu::<vmath::Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::gelu::<vmath::Avx512>),
    ],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[per_element("gelu_plain").as_stage(Some("x"), "y")])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("gelu.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `dx = dy (Φ(x) + x φ(x))`
pub static GELU_DX: Contract = Contract {
    name: "gelu_dx",
    formula: "dx = dy (Φ(x) + x φ(x))",
    args: &[read("x", F32, &['r', 'c']), read("dy", F32, &['r', 'c']), write("dx", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 40 * (d.size('r') * d.size('c')) as u64,
    reference: reference::gelu_dx,
    cpu: &[
        Variant::any("plain", cpu::plain_gelu_dx),
        Variant::any("lanes", cpu::gelu_dx::<vmath::Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::gelu_dx::<vmath::Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::gelu_dx::<vmath::Avx512>),
    ],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[per_element("gelu_dx_plain").as_stage(Some("dy"), "dx")])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("gelu_dx.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `y = a + b`
pub static ADD: Contract = Contract {
    name: "add",
    formula: "y = a + b",
    args: &[read("a", F32, &['r', 'c']), read("b", F32, &['r', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::add,
    cpu: &[Variant::any("plain", cpu::add)],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[per_element("add_plain").as_stage(Some("a"), "y")])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("add.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `y = value`
pub static FILL: Contract = Contract {
    name: "fill",
    formula: "y = value",
    args: &[write("y", F32, &['r', 'c'])],
    scalars: &["value"],
    tol: Tol::exact(),
    check: no_check,
    flops: |_| 0,
    reference: reference::fill,
    cpu: &[Variant::any("plain", cpu::fill)],
    cuda: cuda_variants![Cuda::any("plain", MODULE, &[per_element("fill_plain")])],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("fill.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("pointwise", "pointwise/pointwise.cu");

/// One thread per element.
#[cfg(feature = "launches")]
const fn per_element(entry: &'static str) -> Launch {
    Launch::new(entry, 256, |d| cuda::line(d.size('r') * d.size('c'), 256))
}
