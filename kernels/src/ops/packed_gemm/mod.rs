//! Product with packed rows, for inference.
//!
//! Columns of a row ascend and none comes twice: a variant may leave out those that do not. `x` is finite: some variants multiply it
//! by the zeros of weights that are left out, and an infinity would give NaN there.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

#[cfg(feature = "launches")]
use super::gemm::launch;
use crate::contract::*;
#[cfg(feature = "wgsl")]
use crate::ops::gemm::dispatch;
use crate::ops::gemm::micro::Portable;
#[cfg(target_arch = "x86_64")]
use crate::{
    ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512},
    simd::Isa,
};

/// `y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o + 1]] at columns col`
pub static PACKED_GEMM: Contract = Contract {
    name: "packed_gemm",
    formula: "y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o + 1]] at columns col",
    args: &[
        read("x", F32, &['r', 'i']),
        read("row_start", U32, &['p']),
        read("col", U16, &['n']),
        read("value", F16, &['n']),
        read("bias", F32, &['o']).optional(),
        write("y", F32, &['r', 'o']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('p', "o + 1", d.size('o') + 1),
    flops: |d| 2 * (d.size('r') * d.size('n')) as u64,
    reference: reference::packed_gemm,
    cpu: &[
        Variant::any("plain", cpu::packed_gemm),
        Variant::any("strips", cpu::packed_gemm_strips::<Portable>).with_scratch(cpu::strip_scratch::<Portable>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "strips_avx2", cpu::packed_gemm_strips::<Avx2>)
            .with_scratch(cpu::strip_scratch::<Avx2>),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "strips_avx512", cpu::packed_gemm_strips::<Avx512>)
            .with_scratch(cpu::strip_scratch::<Avx512>),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", MODULE, &[launch::over(launch::RO, "packed_gemm_plain")]),
        Cuda::any("mma", MODULE, &[launch::TILES_RO.mma("packed_gemm_mma")]).fits(launch::TILES_RO.fits),
        Cuda::any("by_warps", MODULE, &[BY_WARPS]).fits(|d| d.size('r').div_ceil(16) <= cuda::MAX_BLOCKS_YZ as usize),
        Cuda::any("tiled", MODULE, &[TILED]).fits(launch::TILES_RO.fits).made_for(many),
    ],
    wgsl: wgsl_sources![Wgsl::any("plain", include_str!("packed_gemm.wgsl"), dispatch::PLAIN_RO)],
};

/// Rows and weights for which a product with all weights, of which most are zeros, is less work than finding those that are kept:
/// by counting loads, for no GPU has measured it.
#[cfg(feature = "launches")]
fn many(d: &Dims) -> bool {
    d.size('r') > 16 && 10 * d.size('n') >= d.size('i') * d.size('o')
}

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("packed_gemm", "packed_gemm/packed_gemm.cu");
/// One warp for an output of 16 rows.
#[cfg(feature = "launches")]
const BY_WARPS: cuda::Launch =
    cuda::Launch::new("packed_gemm_by_warps", 256, |d| cuda::grid(d.size('r'), 16, d.size('o'), 8));
/// Tiles of 64 x 64.
#[cfg(feature = "launches")]
const TILED: cuda::Launch = launch::TILES_RO.launch(false, "packed_gemm_tiled", |_| launch::f32_bytes(64));
