//! Product with a bit-masked weight, its gradients and the straight-through score gradient.
//!
//! A cleared bit means the weight is *not read*: it may hold NaN or another task's value. `x` and `dy` are finite:
//! whether an infinity there meets a cleared bit as zero or as NaN differs between variants. The score gradient reads
//! the weight of every candidate, in the mask or not.

mod cpu;
mod lists;
mod reference;
#[cfg(test)]
pub(super) mod tests;

use crate::contract::*;
use crate::ops::gemm::micro::Portable;
#[cfg(target_arch = "x86_64")]
use crate::ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512};
use crate::ops::gemm::{product, sums, tiled};
use crate::simd::Isa;

/// The variants of a masked product: bits applied while the weight is packed into tiles, kept weights as lists, and the
/// choice between the two by the crossover table. Each is (code, first stage, length of what that prepares, workspace).
macro_rules! listed {
    (@one $K:ty, $needs:expr, $name:literal, ($run:path, $prepare:path, $len:path, $scratch:path), $from:expr) => {{
        use $len as len;
        use $prepare as prepare;
        use $run as run;
        use $scratch as scratch;
        Variant::needs($needs, $name, run::<$K>)
            .with_scratch(scratch::<$K>)
            .preparing(Prepare { from: $from, len: len::<$K>, run: prepare::<$K> })
    }};
    ($plain:expr, $tiles:tt, $lists:tt, $chosen:tt, $from:expr) => {
        &[
            Variant::any("plain", $plain),
            listed!(@one Portable, Isa::Scalar, "tiles", $tiles, $from),
            listed!(@one Portable, Isa::Scalar, "lists", $lists, $from),
            listed!(@one Portable, Isa::Scalar, "by_density", $chosen, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx2, Isa::Avx2, "tiles_avx2", $tiles, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx2, Isa::Avx2, "lists_avx2", $lists, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx2, Isa::Avx2, "by_density_avx2", $chosen, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx512, Isa::Avx512, "tiles_avx512", $tiles, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx512, Isa::Avx512, "lists_avx512", $lists, $from),
            #[cfg(target_arch = "x86_64")]
            listed!(@one Avx512, Isa::Avx512, "by_density_avx512", $chosen, $from),
        ]
    };
}

/// `y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask`
pub static MASKED_GEMM: Contract = Contract {
    name: "masked_gemm",
    formula: "y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask",
    args: &[
        read("x", F32, &['r', 'i']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("bias", F32, &['o']).optional(),
        read("bias_mask", BITS, &['o']).optional(),
        write("y", F32, &['r', 'o']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm,
    cpu: listed!(
        cpu::masked_gemm,
        (cpu::masked_gemm_tiled, cpu::masked_gemm_pack, product::forward_len, lists::no_scratch),
        (lists::masked_gemm_lists, lists::masked_gemm_list, lists::forward_len, lists::forward_scratch),
        (lists::masked_gemm_by_density, lists::masked_gemm_choose, lists::forward_most, lists::forward_scratch),
        &[1, 2, 3, 4]
    ),
    cuda: &[],
    wgsl: &[],
};

/// `dx = dy (w ⊙ mask)`
pub static MASKED_GEMM_DX: Contract = Contract {
    name: "masked_gemm_dx",
    formula: "dx = dy (w ⊙ mask)",
    args: &[
        read("dy", F32, &['r', 'o']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        write("dx", F32, &['r', 'i']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dx,
    cpu: listed!(
        cpu::masked_gemm_dx,
        (cpu::masked_gemm_dx_tiled, cpu::masked_gemm_dx_pack, product::back_len, lists::no_scratch),
        (lists::masked_gemm_dx_lists, lists::masked_gemm_dx_list, lists::back_len, lists::back_scratch),
        (lists::masked_gemm_dx_by_density, lists::masked_gemm_dx_choose, lists::back_most, lists::back_scratch),
        &[1, 2]
    ),
    cuda: &[],
    wgsl: &[],
};

/// `g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
///
/// `sign(0) = 0`. An absent score counts as positive everywhere, absent candidates are all entries.
pub static MASKED_GEMM_DW: Contract = Contract {
    name: "masked_gemm_dw",
    formula: "g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32, &['r', 'o']),
        read("x", F32, &['r', 'i']),
        read("w", F32, &['o', 'i']),
        read("mask", BITS, &['o', 'i']),
        read("score", F32, &['o', 'i']).optional(),
        read("candidates", BITS, &['o', 'i']).optional(),
        write("dw", F32, &['o', 'i']),
        write("ds", F32, &['o', 'i']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('r') * d.size('i') * d.size('o')) as u64,
    reference: reference::masked_gemm_dw,
    cpu: tiled!(cpu::masked_gemm_dw, masked_gemm_dw_tiled, scratch outer_scratch),
    cuda: &[],
    wgsl: &[],
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
    cuda: &[],
    wgsl: &[],
};
