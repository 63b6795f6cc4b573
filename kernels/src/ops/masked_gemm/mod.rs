//! Product with a bit-masked weight, its gradients and the straight-through score gradient.
//!
//! A cleared bit means the weight is *not read*: it may hold NaN or another task's value. `x` and `dy` are finite:
//! whether an infinity there meets a cleared bit as zero or as NaN differs between variants. The score gradient reads
//! the weight of every candidate, in the mask or not.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_amx;
mod cpu_bf16;
mod lists;
mod reference;
mod sampled;
#[cfg(test)]
pub(super) mod tests;

#[cfg(feature = "launches")]
use super::gemm::launch;
use crate::contract::*;
#[cfg(feature = "wgsl")]
use crate::ops::gemm::dispatch;
use crate::ops::gemm::micro::{Kernel, Portable};
use crate::ops::gemm::{BF16, dw_in_tiles, gradient, in_tiles, product, sums, widened};
#[cfg(target_arch = "x86_64")]
use crate::ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512, pairs};
use crate::simd::Isa;

/// The variants of a masked product for every instruction set: bits applied at tiles, kept weights alone, and the choice
/// between the two by the crossover table. Each is (name, code, first stage, length of what that makes, workspace). A
/// small build has the plain loop.
#[cfg(tsn_small)]
macro_rules! by_density {
    ($plain:expr, $($rest:tt)*) => {
        &[Variant::any("plain", $plain)]
    };
}

#[cfg(not(tsn_small))]
macro_rules! by_density {
    (@one $K:ty, $isa:expr, $suffix:literal, ($name:literal, $run:path, $prepare:path, $len:path, $scratch:path), $from:expr) => {{
        use $len as len;
        use $prepare as prepare;
        use $run as run;
        use $scratch as scratch;
        Variant::needs($isa, concat!($name, $suffix), run::<$K>)
            .with_scratch(scratch::<$K>)
            .preparing(Prepare { from: $from, len: len::<$K>, run: prepare::<$K> })
    }};
    ($plain:expr, from $from:expr, $tiles:tt, $lists:tt, $chosen:tt, also [$($also:tt)*]) => {
        &[
            Variant::any("plain", $plain),
            by_density!(@one Portable, Isa::Scalar, "", $tiles, $from),
            by_density!(@one Portable, Isa::Scalar, "", $lists, $from),
            by_density!(@one Portable, Isa::Scalar, "", $chosen, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx2, Isa::Avx2, "_avx2", $tiles, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx2, Isa::Avx2, "_avx2", $lists, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx2, Isa::Avx2, "_avx2", $chosen, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx512, Isa::Avx512, "_avx512", $tiles, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx512, Isa::Avx512, "_avx512", $lists, $from),
            #[cfg(target_arch = "x86_64")]
            by_density!(@one Avx512, Isa::Avx512, "_avx512", $chosen, $from),
            $($also)*
        ]
    };
}

/// bf16 on the f32 tiles, bits applied while the weight is widened.
const fn by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::widened::<K>)
        .only(DType::Bf16)
        .with_scratch(widened::scratch)
        .preparing(Prepare { from: &[1, 2, 3, 4], len: widened::len::<K>, run: cpu_bf16::widened_pack::<K> })
}

/// The same for a gradient that prepares its weight.
const fn dx_by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::dx_widened::<K>)
        .only(DType::Bf16)
        .with_scratch(widened::back_scratch)
        .preparing(Prepare { from: &[1, 2], len: widened::back_len::<K>, run: cpu_bf16::dx_widened_pack::<K> })
}

/// The same for a weight gradient.
const fn dw_by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::dw_widened::<K>).only(DType::Bf16).with_scratch(cpu_bf16::dw_scratch::<K>)
}

/// `y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask; with slope y = gelu of that and slope its derivative there`
///
/// `x` and `w` are both f32, both bf16 or both f16; sums are f32.
pub static MASKED_GEMM: Contract = Contract {
    name: "masked_gemm",
    formula: "y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask; with slope y = gelu of that and slope its derivative there",
    args: &[
        read("x", REAL, &['r', 'i']),
        read("w", REAL, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("bias", F32, &['o']).optional(),
        read("bias_mask", BITS, &['o']).optional(),
        write("y", F32, &['r', 'o']),
        write("slope", F32, &['r', 'o']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm,
    cpu: by_density!(
        cpu::masked_gemm,
        from & [1, 2, 3, 4],
        ("tiles", cpu::masked_gemm_tiled, cpu::masked_gemm_pack, product::forward_len, lists::no_scratch),
        ("lists", lists::masked_gemm, lists::masked_gemm_list, lists::forward_len, lists::forward_scratch),
        (
            "by_density",
            lists::masked_gemm_by_density,
            lists::masked_gemm_choose,
            lists::forward_most,
            lists::forward_scratch
        ),
        also [
            Variant::any("plain_bf16", cpu_bf16::masked_gemm).only(DType::Bf16),
            Variant::any("plain_f16", |c| {
                let (x, w) = (c.f16(0), c.f16(1));
                cpu::plain(c, x, w);
            })
            .only(DType::F16),
            by_widening::<Portable>(Isa::Scalar, "widened"),
            #[cfg(target_arch = "x86_64")]
            by_widening::<Avx2>(Isa::Avx2, "widened_avx2"),
            #[cfg(target_arch = "x86_64")]
            by_widening::<Avx512>(Isa::Avx512, "widened_avx512"),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Avx512Bf16, "pairs_avx512", cpu_bf16::pairs).only(DType::Bf16).preparing(Prepare {
                from: &[1, 2, 3, 4],
                len: pairs::forward_len,
                run: cpu_bf16::pairs_pack,
            }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", cpu_amx::tiles)
                .with_scratch(cpu_amx::tiles_scratch)
                .preparing(Prepare { from: &[1, 2, 3, 4], len: cpu_amx::tiles_len, run: cpu_amx::tiles_pack }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "by_density_amx", cpu_amx::by_density)
                .with_scratch(cpu_amx::most_scratch)
                .preparing(Prepare { from: &[1, 2, 3, 4], len: cpu_amx::most, run: cpu_amx::choose_way }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", cpu_amx::pairs)
                .only(DType::Bf16)
                .with_scratch(cpu_amx::pairs_scratch)
                .preparing(Prepare { from: &[1, 2, 3, 4], len: cpu_amx::pairs_len, run: cpu_amx::pairs_pack }),
        ]
    ),
    cuda: in_tiles!(
        "masked_gemm",
        MODULE,
        launch::RO,
        TILES,
        launch::TILES_RO,
        Cuda::any("wgmma_bf16", GROUPS, &[launch::groups_ro("masked_gemm_wgmma_bf16").mapping(&["x"])])
            .only(DType::Bf16)
            .fits(launch::groups_fit_ro)
            .made_for(launch::TILES_RO.wide),
        Cuda::any("few_rows", TILES, &[FEW_ROWS]).fits(|d| d.size('r') <= 16),
        Cuda::any("few_rows_bf16", TILES, &[FEW_ROWS_BF16]).only(DType::Bf16).fits(|d| d.size('r') <= 16)
    ),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("masked_gemm.wgsl"), dispatch::PLAIN_RO),
        Wgsl::any("tiled", wgsl_of_f32!("masked_gemm_tiled.wgsl"), dispatch::TILED_RO).made_for(dispatch::many_rows),
        Wgsl::any("subgroups", wgsl_of_f32!("masked_gemm_subgroups.wgsl"), dispatch::SUBGROUPS_RO)
            .needs(&[GpuFeature::Subgroups])
            .fits(dispatch::few_rows),
        Wgsl::any("plain_bf16", include_str!("masked_gemm_bf16.wgsl"), dispatch::PLAIN_RO).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("masked_gemm_tiled_bf16.wgsl"), dispatch::TILED_RO)
            .made_for(dispatch::many_rows)
            .only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("masked_gemm.wgsl"), dispatch::PLAIN_RO)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("masked_gemm_tiled.wgsl"), dispatch::TILED_RO)
            .made_for(dispatch::many_rows)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("subgroups_f16", wgsl_of_f16!("masked_gemm_subgroups.wgsl"), dispatch::SUBGROUPS_RO)
            .only(DType::F16)
            .needs(&[GpuFeature::F16, GpuFeature::Subgroups])
            .fits(dispatch::few_rows),
    ],
};

/// `dx = dy (w ⊙ mask); with slope dx = dy (w ⊙ mask) ⊙ slope`
///
/// `dy` and `w` are both f32, both bf16 or both f16; sums and `dx` are f32.
pub static MASKED_GEMM_DX: Contract = Contract {
    name: "masked_gemm_dx",
    formula: "dx = dy (w ⊙ mask); with slope dx = dy (w ⊙ mask) ⊙ slope",
    args: &[
        read("dy", REAL, &['r', 'o']),
        read("w", REAL, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        write("dx", F32, &['r', 'i']),
        read("slope", F32, &['r', 'i']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dx,
    cpu: by_density!(
        cpu::masked_gemm_dx,
        from & [1, 2],
        ("tiles", cpu::masked_gemm_dx_tiled, cpu::masked_gemm_dx_pack, product::back_len, lists::no_scratch),
        ("lists", lists::masked_gemm_dx, lists::masked_gemm_dx_list, lists::back_len, lists::back_scratch),
        (
            "by_density",
            lists::masked_gemm_dx_by_density,
            lists::masked_gemm_dx_choose,
            lists::back_most,
            lists::back_scratch
        ),
        also [
            Variant::any("plain_bf16", cpu_bf16::masked_gemm_dx).only(DType::Bf16),
            Variant::any("plain_f16", |c| {
                let (dy, w) = (c.f16(0), c.f16(1));
                cpu::plain_dx(c, dy, w);
            })
            .only(DType::F16),
            dx_by_widening::<Portable>(Isa::Scalar, "widened"),
            #[cfg(target_arch = "x86_64")]
            dx_by_widening::<Avx2>(Isa::Avx2, "widened_avx2"),
            #[cfg(target_arch = "x86_64")]
            dx_by_widening::<Avx512>(Isa::Avx512, "widened_avx512"),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Avx512Bf16, "pairs_avx512", cpu_bf16::dx_pairs).only(DType::Bf16).preparing(Prepare {
                from: &[1, 2],
                len: pairs::back_len,
                run: cpu_bf16::dx_pairs_pack,
            }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", cpu_amx::dx_tiles)
                .with_scratch(cpu_amx::dx_tiles_scratch)
                .preparing(Prepare { from: &[1, 2], len: cpu_amx::dx_tiles_len, run: cpu_amx::dx_tiles_pack }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "by_density_amx", cpu_amx::dx_by_density)
                .with_scratch(cpu_amx::dx_most_scratch)
                .preparing(Prepare { from: &[1, 2], len: cpu_amx::dx_most, run: cpu_amx::dx_choose_way }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", cpu_amx::dx_pairs)
                .only(DType::Bf16)
                .with_scratch(cpu_amx::dx_pairs_scratch)
                .preparing(Prepare { from: &[1, 2], len: cpu_amx::dx_pairs_len, run: cpu_amx::dx_pairs_pack }),
        ]
    ),
    cuda: in_tiles!(
        "masked_gemm_dx",
        MODULE,
        launch::RI,
        TILES,
        launch::TILES_RI,
        Cuda::any("wgmma_bf16", GROUPS, &[launch::groups_ri("masked_gemm_dx_wgmma_bf16").mapping(&["dy"])])
            .only(DType::Bf16)
            .fits(launch::groups_fit_ri)
            .made_for(launch::TILES_RI.wide),
    ),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("masked_gemm_dx.wgsl"), dispatch::PLAIN_RI),
        Wgsl::any("tiled", wgsl_of_f32!("masked_gemm_dx_tiled.wgsl"), dispatch::TILED_RI),
        Wgsl::any("plain_bf16", include_str!("masked_gemm_dx_bf16.wgsl"), dispatch::PLAIN_RI).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("masked_gemm_dx_tiled_bf16.wgsl"), dispatch::TILED_RI).only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("masked_gemm_dx.wgsl"), dispatch::PLAIN_RI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("masked_gemm_dx_tiled.wgsl"), dispatch::TILED_RI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
    ],
};

/// `g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
///
/// `sign(0) = 0`. An absent score counts as positive everywhere, absent candidates are all entries. `dy`, `x` and `w`
/// are all f32, all bf16 or all f16; sums and outputs are f32.
pub static MASKED_GEMM_DW: Contract = Contract {
    name: "masked_gemm_dw",
    formula: "g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", REAL, &['r', 'o']),
        read("x", REAL, &['r', 'i']),
        read("w", REAL, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("score", F32, &['o', 'i']).optional(),
        read("candidates", BITS, &['o', 'i']).optional(),
        write("dw", F32, &['o', 'i']),
        write("ds", F32, &['o', 'i']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dw,
    cpu: by_density!(
        cpu::masked_gemm_dw,
        from & [3],
        ("tiles", cpu::masked_gemm_dw_tiled, sampled::nothing, sampled::no_len, gradient::outer_scratch),
        ("sampled", sampled::by_density, sampled::sample, sampled::len, sampled::scratch),
        ("by_density", sampled::by_density, sampled::choose_way, sampled::len, sampled::scratch),
        also [
            Variant::any("plain_bf16", cpu_bf16::masked_gemm_dw).only(DType::Bf16),
            Variant::any("plain_f16", |c| {
                let (dy, x, w) = (c.f16(0), c.f16(1), c.f16(2));
                cpu::plain_dw(c, dy, x, w);
            })
            .only(DType::F16),
            dw_by_widening::<Portable>(Isa::Scalar, "widened"),
            #[cfg(target_arch = "x86_64")]
            dw_by_widening::<Avx2>(Isa::Avx2, "widened_avx2"),
            #[cfg(target_arch = "x86_64")]
            dw_by_widening::<Avx512>(Isa::Avx512, "widened_avx512"),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", cpu_amx::dw_tiles).with_scratch(cpu_amx::dw_tiles_scratch),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "by_density_amx", cpu_amx::dw_by_density)
                .with_scratch(cpu_amx::dw_most_scratch)
                .preparing(Prepare { from: &[3], len: sampled::len::<Avx512>, run: cpu_amx::dw_choose_way }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", cpu_amx::dw_pairs)
                .only(DType::Bf16)
                .with_scratch(cpu_amx::dw_pairs_scratch),
        ]
    ),
    cuda: dw_in_tiles!(
        "masked_gemm_dw",
        MODULE,
        TILES,
        Cuda::any("wgmma_bf16", GROUPS, &[launch::groups_oi("masked_gemm_dw_wgmma_bf16").mapping(&["dy", "x"])])
            .only(DType::Bf16)
            .fits(launch::groups_fit_oi)
            .made_for(launch::TILES_OI.wide),
    ),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("masked_gemm_dw.wgsl"), dispatch::PLAIN_OI),
        Wgsl::any("tiled", wgsl_of_f32!("masked_gemm_dw_tiled.wgsl"), dispatch::TILED_OI),
        Wgsl::any("plain_bf16", include_str!("masked_gemm_dw_bf16.wgsl"), dispatch::PLAIN_OI).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("masked_gemm_dw_tiled_bf16.wgsl"), dispatch::TILED_OI).only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("masked_gemm_dw.wgsl"), dispatch::PLAIN_OI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("masked_gemm_dw_tiled.wgsl"), dispatch::TILED_OI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
    ],
};

/// `g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero outside the candidates`
pub static MASKED_BIAS_DW: Contract = Contract {
    name: "masked_bias_dw",
    formula: "g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['r', 'e']),
        read("bias", F32, &['o']),
        read("mask", BITS, &['o']),
        read("score", F32, &['o']).optional(),
        read("candidates", BITS, &['o']).optional(),
        write("db", F32, &['o']),
        write("ds", F32, &['o']).optional(),
    ],
    scalars: &["inner"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('e', "o * inner", d.size('o') * d.scalar(0) as usize),
    flops: |d| (d.size('r') * d.size('e')) as u64,
    reference: reference::masked_bias_dw,
    cpu: &[
        Variant::any("plain", cpu::masked_bias_dw),
        Variant::any("blocks", cpu::masked_bias_dw_blocks).with_scratch(sums::blocks_scratch),
    ],
    cuda: cuda_variants![
        Cuda::any(
            "blocks",
            MODULE,
            &[launch::sums("masked_bias_dw_blocks"), launch::per_channel("masked_bias_dw_combine")]
        )
        .with_work(launch::sum_count),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("blocks", include_str!("masked_bias_dw.wgsl"), &[dispatch::BLOCKS, dispatch::per_channel("finish")])
            .with_work(dispatch::sums),
    ],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("masked_gemm", "masked_gemm/masked_gemm.cu");
#[cfg(feature = "launches")]
const TILES: cuda::Module = module!("masked_gemm_tiles", "masked_gemm/masked_gemm_tiles.cu");
/// The same by warpgroups.
#[cfg(feature = "launches")]
const GROUPS: cuda::Module = module!("masked_gemm_wgmma", "masked_gemm/masked_gemm_wgmma.cu", Sm90a);
/// One warp for four outputs of at most 16 rows.
#[cfg(feature = "launches")]
const FEW_ROWS: cuda::Launch = cuda::Launch::new("masked_gemm_few_rows", 256, |d| cuda::line(d.size('o'), 32));
#[cfg(feature = "launches")]
const FEW_ROWS_BF16: cuda::Launch =
    cuda::Launch::new("masked_gemm_few_rows_bf16", 256, |d| cuda::line(d.size('o'), 32));
