//! Layer norm over the last axis, with and without bias.
//!
//! `mean = sum x / c`, `rstd = 1 / sqrt(sum (x - mean)^2 / c + eps)`: the variance in a second pass, because
//! `sum x^2 - c mean^2` cancels when the mean is large. `layernorm_dx` takes both from `stats`
//! and gives all gradients in one pass over `dy` and `x`, which may both be f16.

mod cpu;
#[cfg(feature = "launches")]
mod launch;
mod reference;
#[cfg(test)]
mod tests;

use super::vmath;
use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;
use half::f16;

/// `y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean, rstd)`
pub static LAYERNORM: Contract = Contract {
    name: "layernorm",
    formula: "y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean, rstd)",
    args: &[
        read("x", F32_F16, &['r', 'c']),
        read("w", F32, &['c']),
        read("b", F32, &['c']).optional(),
        write("y", F32, &['r', 'c']),
        write("stats", F32, &['r', '2']),
    ],
    scalars: &["eps"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: check_eps,
    flops: |d| 7 * (d.size('r') * d.size('c')) as u64,
    reference: reference::layernorm,
    cpu: &[
        Variant::any("plain", cpu::plain_layernorm::<f32>),
        #[cfg(not(tsn_small))]
        Variant::any("plain_f16", cpu::plain_layernorm::<f16>).only(DType::F16),
        #[cfg(not(tsn_small))]
        Variant::any("lanes", cpu::layernorm::<vmath::Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::layernorm::<vmath::Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::layernorm::<vmath::Avx512>),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN),
        Cuda::any("warps", launch::MODULE_WARPS, launch::WARPS).fits(launch::fits),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("layernorm.wgsl"), &[per_row("plain")]),
        Wgsl::any("plain_f16", wgsl_of_f16!("layernorm.wgsl"), &[per_row("plain")])
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
    ],
};

/// `dx of layernorm, plus add if present; dw = sum over rows of dy ⊙ xhat, db = sum of dy`
pub static LAYERNORM_DX: Contract = Contract {
    name: "layernorm_dx",
    formula: "dx of layernorm, plus add if present; dw = sum over rows of dy ⊙ xhat, db = sum of dy",
    args: &[
        read("dy", F32_F16, &['r', 'c']),
        read("x", F32_F16, &['r', 'c']),
        read("w", F32, &['c']),
        read("stats", F32, &['r', '2']),
        read("add", F32, &['r', 'c']).optional(),
        write("dx", F32, &['r', 'c']),
        write("dw", F32, &['c']).optional(),
        write("db", F32, &['c']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 14 * (d.size('r') * d.size('c')) as u64,
    reference: reference::layernorm_dx,
    cpu: &[
        Variant::any("plain", cpu::plain_layernorm_dx::<f32>),
        Variant::any("plain_f16", cpu::plain_layernorm_dx::<f16>).only(DType::F16),
        Variant::any("lanes", cpu::layernorm_dx::<vmath::Portable>).with_scratch(cpu::partial_sums),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "avx2", cpu::layernorm_dx::<vmath::Avx2>).with_scratch(cpu::partial_sums),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "avx512", cpu::layernorm_dx::<vmath::Avx512>).with_scratch(cpu::partial_sums),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN_DX).with_work(|d| 2 * sums(d)),
        Cuda::any("warps", launch::MODULE_WARPS, launch::WARPS_DX).with_work(|d| 2 * sums(d)).fits(launch::fits_dx),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_DX_F16).only(DType::F16).with_work(|d| 2 * sums(d)),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("layernorm_dx.wgsl"), PLAIN_DX).with_work(|d| 2 * sums(d)).with_uses(USES_DX),
        Wgsl::any("plain_f16", wgsl_of_f16!("layernorm_dx.wgsl"), PLAIN_DX)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(|d| 2 * sums(d))
            .with_uses(USES_DX),
    ],
};

fn check_eps(d: &Dims) -> Result<(), String> {
    match d.scalar_f32(0) {
        eps if eps >= 0.0 && eps.is_finite() => Ok(()),
        eps => Err(format!("eps {eps} is not finite and at least 0")),
    }
}

/// One workgroup of WGSL per row.
#[cfg(feature = "wgsl")]
const fn per_row(entry: &'static str) -> Dispatch {
    Dispatch { entry, groups: |d| wgsl::line(d.size('r'), 1) }
}

/// Rows, then sums over blocks of rows, then over blocks.
#[cfg(feature = "wgsl")]
const PLAIN_DX: &[Dispatch] = &[
    per_row("rows"),
    Dispatch { entry: "blocks", groups: |d| wgsl::line(sums(d), 64) },
    Dispatch { entry: "combine", groups: |d| wgsl::line(d.size('c'), 64) },
];

/// What the dispatches of [`PLAIN_DX`] use.
#[cfg(feature = "wgsl")]
const USES_DX: &[&[u32]] = &[&[0, 1, 2, 3, 4, 5], &[0, 1, 3, 8], &[6, 7, 8]];

/// Columns times blocks of 32 rows whose sums a GPU forms apart.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn sums(d: &Dims) -> usize {
    d.size('r').div_ceil(32) * d.size('c')
}
