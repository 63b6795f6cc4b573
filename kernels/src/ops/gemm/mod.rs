//! Dense product and its gradients.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(super) mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_amx;
mod cpu_bf16;
#[cfg(feature = "wgsl")]
pub(super) mod dispatch;
pub(super) mod finish;
pub(super) mod gradient;
#[cfg(feature = "launches")]
pub(super) mod launch;
pub(crate) mod micro;
#[cfg(target_arch = "x86_64")]
pub(super) mod micro_avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod micro_avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod pairs;
pub(super) mod product;
pub(super) mod reference;
pub(super) mod sums;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod widened;

use crate::contract::*;

/// The variants of a product: the plain loop, then the tiles of `micro` for every instruction set, with a workspace or
/// with panels prepared from some arguments; then others. A small build has the plain loop.
#[cfg(tsn_small)]
macro_rules! tiled {
    (also $also:tt, $plain:expr, $($rest:tt)*) => {
        &[Variant::any("plain", $plain)]
    };
    ($plain:expr, $($rest:tt)*) => {
        &[Variant::any("plain", $plain)]
    };
}

#[cfg(not(tsn_small))]
macro_rules! tiled {
    (@with $K:ty, $variant:expr, scratch $scratch:ident) => {
        $variant.with_scratch(gradient::$scratch::<$K>)
    };
    (@with $K:ty, $variant:expr, $pack:ident from $from:expr, $len:ident) => {
        $variant.preparing(Prepare { from: $from, len: product::$len::<$K>, run: cpu::$pack::<$K> })
    };
    (also [$($also:tt)*], $plain:expr, $run:ident, $($with:tt)*) => {
        &[
            Variant::any("plain", $plain),
            tiled!(@with Portable, Variant::any("tiles", cpu::$run::<Portable>), $($with)*),
            #[cfg(target_arch = "x86_64")]
            tiled!(@with Avx2, Variant::needs(Isa::Avx2, "tiles_avx2", cpu::$run::<Avx2>), $($with)*),
            #[cfg(target_arch = "x86_64")]
            tiled!(@with Avx512, Variant::needs(Isa::Avx512, "tiles_avx512", cpu::$run::<Avx512>), $($with)*),
            $($also)*
        ]
    };
    ($plain:expr, $run:ident, $($with:tt)*) => {
        tiled!(also [], $plain, $run, $($with)*)
    };
}

use crate::simd::Isa;
use micro::{Kernel, Portable};
#[cfg(target_arch = "x86_64")]
use {half::bf16, micro_avx2::Avx2, micro_avx512::Avx512};

/// The CUDA column of a product: its plain loop over `$blocks` in a module, and tiles over `$tiles` in another; then others.
///
/// The f32 tiles come behind the six products on tensor cores: that those are faster no GPU has said yet, and how they round
/// is no part of their specification.
macro_rules! in_tiles {
    ($op:literal, $module:expr, $blocks:expr, $tiled:expr, $tiles:expr $(, $also:expr)* $(,)?) => {
        cuda_variants![
            Cuda::any("plain", $module, &[launch::over($blocks, concat!($op, "_plain"))]),
            Cuda::any("mma", $tiled, &[$tiles.mma(concat!($op, "_mma"))]).fits($tiles.fits),
            Cuda::any("tiled", $tiled, &[$tiles.tiled(concat!($op, "_tiled"), concat!($op, "_rows"))]).fits($tiles.fits),
            Cuda::any("tiled_wide", $tiled, &[$tiles.tiled_wide(concat!($op, "_tiled_wide"))]).fits($tiles.wide),
            Cuda::any("plain_bf16", $module, &[launch::over($blocks, concat!($op, "_plain_bf16"))]).only(DType::Bf16),
            Cuda::any("mma_bf16", $tiled, &[$tiles.mma_bf16(concat!($op, "_mma_bf16"))])
                .only(DType::Bf16)
                .fits($tiles.fits),
            Cuda::any("mma_wide_bf16", $tiled, &[$tiles.mma_wide_bf16(concat!($op, "_mma_wide_bf16"))])
                .only(DType::Bf16)
                .fits($tiles.wide),
            Cuda::any("plain_f16", $module, &[launch::over($blocks, concat!($op, "_plain_f16"))]).only(DType::F16),
            Cuda::any("mma_f16", $tiled, &[$tiles.mma_f16(concat!($op, "_mma_f16"))]).only(DType::F16).fits($tiles.fits),
            $($also,)*
        ]
    };
}
pub(super) use in_tiles;

/// Variants of a weight gradient that share rows among blocks, beside those of `in_tiles`; then others.
macro_rules! dw_in_tiles {
    ($op:literal, $module:expr, $tiled:expr $(, $also:expr)* $(,)?) => {
        in_tiles!(
            $op,
            $module,
            launch::OI,
            $tiled,
            launch::TILES_OI,
            Cuda::any(
                "tiled_parts",
                $tiled,
                &[
                    launch::tiled_parts(concat!($op, "_tiled_parts")),
                    launch::over(launch::OI, concat!($op, "_combine")).in_batches()
                ]
            )
            .with_work(launch::part_count)
            .fits(launch::in_parts),
            Cuda::any(
                "mma_parts_bf16",
                $tiled,
                &[
                    launch::mma_parts(concat!($op, "_mma_parts_bf16")),
                    launch::over(launch::OI, concat!($op, "_combine_bf16")).in_batches()
                ]
            )
            .only(DType::Bf16)
            .with_work(launch::part_count)
            .fits(launch::in_parts),
            $($also),*
        )
    };
}
pub(super) use dw_in_tiles;

/// Of products of bf16. The floor is twice the largest error that `bf16_errors_are_known` meets.
pub(super) static BF16: Tol = Tol::times_plain(2.0, 3e-6);

/// bf16 on the f32 tiles.
const fn by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::widened::<K>)
        .only(DType::Bf16)
        .with_scratch(widened::scratch)
        .preparing(Prepare { from: &[1, 2], len: widened::len::<K>, run: cpu_bf16::widened_pack::<K> })
}

/// The same for a gradient that prepares its weight.
const fn dx_by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::dx_widened::<K>)
        .only(DType::Bf16)
        .with_scratch(widened::back_scratch)
        .preparing(Prepare { from: &[1], len: widened::back_len::<K>, run: cpu_bf16::dx_widened_pack::<K> })
}

/// The same for a weight gradient.
const fn dw_by_widening<K: Kernel>(needs: Isa, name: &'static str) -> Variant {
    Variant::needs(needs, name, cpu_bf16::dw_widened::<K>).only(DType::Bf16).with_scratch(widened::outer_scratch::<K>)
}

/// `y = x wᵀ + bias; with slope y = gelu(x wᵀ + bias) and slope its derivative there`
///
/// `x` and `w` are both f32, both bf16 or both f16; sums are f32.
pub static GEMM: Contract = Contract {
    name: "gemm",
    formula: "y = x wᵀ + bias; with slope y = gelu(x wᵀ + bias) and slope its derivative there",
    args: &[
        read("x", REAL, &['r', 'i']),
        read("w", REAL, &['o', 'i']),
        read("bias", F32, &['o']).optional(),
        write("y", F32, &['r', 'o']),
        write("slope", F32, &['r', 'o']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm,
    cpu: tiled!(
        also [
            Variant::any("plain_bf16", cpu_bf16::gemm).only(DType::Bf16),
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
                from: &[1, 2],
                len: pairs::forward_len,
                run: cpu_bf16::pairs_pack,
            }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", |c| cpu_amx::gemm::<f32>(c, cpu::gemm_tiled::<Avx512>))
                .with_scratch(|d| cpu_amx::scratch::<f32>(d, |_| Scratch::default()))
                .preparing(Prepare {
                    from: &[1, 2],
                    len: |d| cpu_amx::len::<f32>(d, product::forward_len::<Avx512>),
                    run: |c| cpu_amx::pack::<f32>(c, cpu::gemm_pack::<Avx512>),
                }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", |c| cpu_amx::gemm::<bf16>(c, cpu_bf16::pairs))
                .only(DType::Bf16)
                .with_scratch(|d| cpu_amx::scratch::<bf16>(d, |_| Scratch::default()))
                .preparing(Prepare {
                    from: &[1, 2],
                    len: |d| cpu_amx::len::<bf16>(d, pairs::forward_len),
                    run: |c| cpu_amx::pack::<bf16>(c, cpu_bf16::pairs_pack),
                }),
        ],
        cpu::gemm, gemm_tiled, gemm_pack from &[1, 2], forward_len
    ),
    cuda: in_tiles!("gemm", launch::MODULE, launch::RO, launch::TILES, launch::TILES_RO),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("gemm.wgsl"), dispatch::PLAIN_RO),
        Wgsl::any("tiled", wgsl_of_f32!("gemm_tiled.wgsl"), dispatch::TILED_RO).made_for(dispatch::many_rows),
        Wgsl::any("subgroups", wgsl_of_f32!("gemm_subgroups.wgsl"), dispatch::SUBGROUPS_RO)
            .needs(&[GpuFeature::Subgroups])
            .fits(dispatch::few_rows),
        Wgsl::any("plain_bf16", include_str!("gemm_bf16.wgsl"), dispatch::PLAIN_RO).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("gemm_tiled_bf16.wgsl"), dispatch::TILED_RO)
            .made_for(dispatch::many_rows)
            .only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("gemm.wgsl"), dispatch::PLAIN_RO)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("gemm_tiled.wgsl"), dispatch::TILED_RO)
            .made_for(dispatch::many_rows)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("subgroups_f16", wgsl_of_f16!("gemm_subgroups.wgsl"), dispatch::SUBGROUPS_RO)
            .only(DType::F16)
            .needs(&[GpuFeature::F16, GpuFeature::Subgroups])
            .fits(dispatch::few_rows),
    ],
};

/// `dx = dy w; with slope dx = dy w ⊙ slope`
///
/// `dy` and `w` are both f32, both bf16 or both f16; sums and `dx` are f32.
pub static GEMM_DX: Contract = Contract {
    name: "gemm_dx",
    formula: "dx = dy w; with slope dx = dy w ⊙ slope",
    args: &[
        read("dy", REAL, &['r', 'o']),
        read("w", REAL, &['o', 'i']),
        write("dx", F32, &['r', 'i']),
        read("slope", F32, &['r', 'i']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm_dx,
    cpu: tiled!(
        also [
            Variant::any("plain_bf16", cpu_bf16::gemm_dx).only(DType::Bf16),
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
                from: &[1],
                len: pairs::back_len,
                run: cpu_bf16::dx_pairs_pack,
            }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", |c| cpu_amx::gemm_dx::<f32>(c, cpu::gemm_dx_tiled::<Avx512>))
                .with_scratch(|d| cpu_amx::dx_scratch::<f32>(d, |_| Scratch::default()))
                .preparing(Prepare {
                    from: &[1],
                    len: |d| cpu_amx::dx_len::<f32>(d, product::back_len::<Avx512>),
                    run: |c| cpu_amx::dx_pack::<f32>(c, cpu::gemm_dx_pack::<Avx512>),
                }),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", |c| cpu_amx::gemm_dx::<bf16>(c, cpu_bf16::dx_pairs))
                .only(DType::Bf16)
                .with_scratch(|d| cpu_amx::dx_scratch::<bf16>(d, |_| Scratch::default()))
                .preparing(Prepare {
                    from: &[1],
                    len: |d| cpu_amx::dx_len::<bf16>(d, pairs::back_len),
                    run: |c| cpu_amx::dx_pack::<bf16>(c, cpu_bf16::dx_pairs_pack),
                }),
        ],
        cpu::gemm_dx, gemm_dx_tiled, gemm_dx_pack from &[1], back_len
    ),
    cuda: in_tiles!("gemm_dx", launch::MODULE, launch::RI, launch::TILES, launch::TILES_RI),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("gemm_dx.wgsl"), dispatch::PLAIN_RI),
        Wgsl::any("tiled", wgsl_of_f32!("gemm_dx_tiled.wgsl"), dispatch::TILED_RI),
        Wgsl::any("plain_bf16", include_str!("gemm_dx_bf16.wgsl"), dispatch::PLAIN_RI).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("gemm_dx_tiled_bf16.wgsl"), dispatch::TILED_RI).only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("gemm_dx.wgsl"), dispatch::PLAIN_RI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("gemm_dx_tiled.wgsl"), dispatch::TILED_RI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
    ],
};

/// `dw = dyᵀ x`
///
/// `dy` and `x` are both f32, both bf16 or both f16; sums and `dw` are f32.
pub static GEMM_DW: Contract = Contract {
    name: "gemm_dw",
    formula: "dw = dyᵀ x",
    args: &[read("dy", REAL, &['r', 'o']), read("x", REAL, &['r', 'i']), write("dw", F32, &['o', 'i'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6).with_bf16(&BF16),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::gemm_dw,
    cpu: tiled!(
        also [
            Variant::any("plain_bf16", cpu_bf16::gemm_dw).only(DType::Bf16),
            Variant::any("plain_f16", |c| {
                let (dy, x) = (c.f16(0), c.f16(1));
                cpu::plain_dw(c, dy, x);
            })
            .only(DType::F16),
            dw_by_widening::<Portable>(Isa::Scalar, "widened"),
            #[cfg(target_arch = "x86_64")]
            dw_by_widening::<Avx2>(Isa::Avx2, "widened_avx2"),
            #[cfg(target_arch = "x86_64")]
            dw_by_widening::<Avx512>(Isa::Avx512, "widened_avx512"),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "tiles_amx", |c| cpu_amx::gemm_dw::<f32>(c, cpu::gemm_dw_tiled::<Avx512>))
                .with_scratch(|d| cpu_amx::dw_scratch::<f32>(d, gradient::outer_scratch::<Avx512>)),
            #[cfg(target_arch = "x86_64")]
            Variant::needs(Isa::Amx, "pairs_amx", |c| cpu_amx::gemm_dw::<bf16>(c, cpu_bf16::dw_widened::<Avx512>))
                .only(DType::Bf16)
                .with_scratch(|d| cpu_amx::dw_scratch::<bf16>(d, widened::outer_scratch::<Avx512>)),
        ],
        cpu::gemm_dw, gemm_dw_tiled, scratch outer_scratch
    ),
    cuda: dw_in_tiles!("gemm_dw", launch::MODULE, launch::TILES),
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("gemm_dw.wgsl"), dispatch::PLAIN_OI),
        Wgsl::any("tiled", wgsl_of_f32!("gemm_dw_tiled.wgsl"), dispatch::TILED_OI),
        Wgsl::any("plain_bf16", include_str!("gemm_dw_bf16.wgsl"), dispatch::PLAIN_OI).only(DType::Bf16),
        Wgsl::any("tiled_bf16", include_str!("gemm_dw_tiled_bf16.wgsl"), dispatch::TILED_OI).only(DType::Bf16),
        Wgsl::any("plain_f16", wgsl_of_f16!("gemm_dw.wgsl"), dispatch::PLAIN_OI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("gemm_dw_tiled.wgsl"), dispatch::TILED_OI)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
    ],
};

/// `db[o] = sum over r and inner of dy[r, o * inner]`
pub static BIAS_DW: Contract = Contract {
    name: "bias_dw",
    formula: "db[o] = sum over r and inner of dy[r, o * inner]",
    args: &[read("dy", F32, &['r', 'e']), write("db", F32, &['o'])],
    scalars: &["inner"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('e', "o * inner", d.size('o') * d.scalar(0) as usize),
    flops: |d| (d.size('r') * d.size('e')) as u64,
    reference: reference::bias_dw,
    cpu: &[
        Variant::any("plain", cpu::bias_dw),
        Variant::any("blocks", cpu::bias_dw_blocks).with_scratch(sums::blocks_scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("blocks", launch::MODULE, &[launch::sums("bias_dw_blocks"), launch::per_channel("bias_dw_combine")])
            .with_work(launch::sum_count),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("blocks", include_str!("bias_dw.wgsl"), &[dispatch::BLOCKS, dispatch::per_channel("combine")])
            .with_work(dispatch::sums),
    ],
};
