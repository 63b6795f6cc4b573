//! Batched cosine similarity, with optional fused selection.
//!
//! A zero vector has cosine 0 with everything. Norms and products are f32: lengths between 1e-18 and 1e18 are safe, a
//! longer vector may give NaN. Queries and references may both be f16. The last bits of a score may depend on how many queries are in the call, not on workers.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_amx;
mod cpu_blocks;
mod cpu_lanes;
#[cfg(target_arch = "x86_64")]
mod cpu_x86;
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
use half::f16;

/// `y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))`
pub static COSINE: Contract = Contract {
    name: "cosine",
    formula: "y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))",
    args: &[read("q", F32_F16, &['n', 'd']), read("p", F32_F16, &['m', 'd']), write("y", F32, &['n', 'm'])],
    scalars: &[],
    tol: TOL,
    check: no_check,
    flops,
    reference: reference::cosine,
    cpu: &[
        Variant::any("plain", cpu::cosine::<f32>),
        #[cfg(not(tsn_small))]
        Variant::any("plain_f16", cpu::cosine::<f16>).only(DType::F16),
        #[cfg(not(tsn_small))]
        Variant::any("lanes", cpu_blocks::cosine_lanes).with_scratch(cpu_blocks::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "lanes_avx2", cpu_x86::cosine_avx2).with_scratch(cpu_blocks::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "lanes_avx512", cpu_x86::cosine_avx512).with_scratch(cpu_blocks::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Amx, "tiles_amx", cpu_amx::cosine).with_scratch(cpu_amx::scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN),
        Cuda::any("mma", launch::MODULE_TILED, launch::MMA).fits(launch::fits_mma),
        Cuda::any("tiled", launch::MODULE_TILED, launch::TILED).fits(launch::fits),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("cosine.wgsl"), dispatch::PLAIN),
        Wgsl::any("tiled", wgsl_of_f32!("cosine_tiled.wgsl"), dispatch::TILED)
            .with_work(dispatch::lengths)
            .made_for(dispatch::many_queries),
        Wgsl::any("subgroups", wgsl_of_f32!("cosine_subgroups.wgsl"), dispatch::SUBGROUPS)
            .needs(&[GpuFeature::Subgroups])
            .fits(dispatch::few_queries),
        Wgsl::any("plain_f16", wgsl_of_f16!("cosine.wgsl"), dispatch::PLAIN).only(DType::F16).needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("cosine_tiled.wgsl"), dispatch::TILED)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(dispatch::lengths)
            .made_for(dispatch::many_queries),
        Wgsl::any("subgroups_f16", wgsl_of_f16!("cosine_subgroups.wgsl"), dispatch::SUBGROUPS)
            .only(DType::F16)
            .needs(&[GpuFeature::F16, GpuFeature::Subgroups])
            .fits(dispatch::few_queries),
    ],
};

/// `the k largest cosines of every query, descending, lower index first on ties`
///
/// Needs `1 <= k <= m` (any `k <= m` without queries). A NaN cosine ranks last and is reported as minus infinity.
pub static COSINE_TOPK: Contract = Contract {
    name: "cosine_topk",
    formula: "the k largest cosines of every query, descending, lower index first on ties",
    args: &[
        read("q", F32_F16, &['n', 'd']),
        read("p", F32_F16, &['m', 'd']),
        write("score", F32, &['n', 'k']),
        write("index", U32, &['n', 'k']),
    ],
    scalars: &[],
    tol: TOL,
    check: check_topk,
    flops,
    reference: reference::cosine_topk,
    cpu: &[
        Variant::any("plain", cpu::cosine_topk::<f32>),
        Variant::any("plain_f16", cpu::cosine_topk::<f16>).only(DType::F16),
        Variant::any("lanes", cpu_blocks::cosine_topk_lanes).with_scratch(cpu_blocks::scratch_topk),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "lanes_avx2", cpu_x86::cosine_topk_avx2).with_scratch(cpu_blocks::scratch_topk),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "lanes_avx512", cpu_x86::cosine_topk_avx512).with_scratch(cpu_blocks::scratch_topk),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Amx, "tiles_amx", cpu_amx::cosine_topk).with_scratch(cpu_amx::scratch_topk),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN_TOPK),
        Cuda::any("mma", launch::MODULE_TILED, launch::MMA_TOPK).with_work(launch::work).fits(launch::fits_mma_topk),
        Cuda::any("tiled", launch::MODULE_TILED, launch::TILED_TOPK).with_work(launch::work).fits(launch::fits_topk),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_TOPK_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("cosine_topk.wgsl"), dispatch::PLAIN_TOPK),
        Wgsl::any("tiled", wgsl_of_f32!("cosine_topk_tiled.wgsl"), dispatch::TILED_TOPK)
            .with_work(dispatch::scores)
            .fits(dispatch::fits),
        Wgsl::any("subgroups", wgsl_of_f32!("cosine_topk_subgroups.wgsl"), dispatch::SUBGROUPS_TOPK)
            .needs(&[GpuFeature::Subgroups])
            .with_work(dispatch::scores)
            .fits(dispatch::fits),
        Wgsl::any("plain_f16", wgsl_of_f16!("cosine_topk.wgsl"), dispatch::PLAIN_TOPK)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("cosine_topk_tiled.wgsl"), dispatch::TILED_TOPK)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(dispatch::scores)
            .fits(dispatch::fits),
        Wgsl::any("subgroups_f16", wgsl_of_f16!("cosine_topk_subgroups.wgsl"), dispatch::SUBGROUPS_TOPK)
            .only(DType::F16)
            .needs(&[GpuFeature::F16, GpuFeature::Subgroups])
            .with_work(dispatch::scores)
            .fits(dispatch::fits),
    ],
};

/// Rounding moves a cosine by units of 1, however small the largest one of the call is; a call of one nearly
/// orthogonal pair needs the room.
const TOL: Tol = Tol { times: 2.0, floor: 1e-5, plain: 1e-4, bf16: None };

fn flops(d: &Dims) -> u64 {
    let (n, m, width) = (d.size('n') as u64, d.size('m') as u64, d.size('d') as u64);
    2 * width * (n * m + n + m)
}

fn check_topk(d: &Dims) -> Result<(), String> {
    let (n, m, k) = (d.size('n'), d.size('m'), d.size('k'));
    if k > m {
        return Err(format!("dim `k` is {k} but there are only m = {m} rows to choose from"));
    }
    if k == 0 && n > 0 {
        return Err(format!("dim `k` is 0 but n = {n} queries want at least one result"));
    }
    Ok(())
}
