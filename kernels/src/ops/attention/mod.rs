//! Causal attention with padding and dropout on the probabilities.
//!
//! `qkv` rows are tokens, columns are q, k, v of all heads (head-major inside each), so head `i` of width `d` has its
//! queries in columns `i d ..`, its keys in `c + i d ..` and its values in `2 c + i d ..`. `valid` holds a flag per
//! token: 0 hides its key and value, which are then not read. A query without a visible key gives zeros, stores 0 in
//! `stats` and takes no gradient. Later tokens are never read, so changing them leaves earlier outputs bit-equal.
//!
//! Dropout draws element `((b * heads + head) * t + q) * t + p` of the probabilities as `dropout` does. Without `rng`
//! there is no dropout, whatever the scalar `drop` says.
//!
//! `qkv` and, for the gradient, `dy` may both be f16.

mod block;
mod cpu;
#[cfg(feature = "wgsl")]
mod dispatch;
mod keys;
mod keys_dx;
#[cfg(feature = "launches")]
mod launch;
mod reference;
#[cfg(test)]
mod tests;

use super::dropout::{Draw, check_drop};
use super::vmath;
use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;
use half::f16;

/// `y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); key p is visible to query q when p <= q and valid[p]; stats = log-sum-exp per head`
pub static ATTENTION: Contract = Contract {
    name: "attention",
    formula: "y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); key p is visible to query q when p <= q and valid[p]; stats = log-sum-exp per head",
    args: &[
        read("qkv", F32_F16, &['r', 'e']),
        read("valid", U8, &['b', 't']),
        read("rng", U32, &['4']).optional(),
        write("y", F32, &['r', 'c']),
        write("stats", F32, &['r', 'h']),
    ],
    scalars: &["heads", "drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::attention,
    cpu: &[
        Variant::any("plain", cpu::attention::<f32>).with_scratch(cpu::scratch),
        #[cfg(not(tsn_small))]
        Variant::any("plain_f16", cpu::attention::<f16>).only(DType::F16).with_scratch(cpu::scratch),
        #[cfg(not(tsn_small))]
        Variant::any("keys", keys::forward::<vmath::Portable, 4, 1>).with_scratch(keys::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "keys_avx2", keys::forward::<vmath::Avx2, 4, 2>).with_scratch(keys::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "keys_avx512", keys::forward::<vmath::Avx512, 8, 2>).with_scratch(keys::scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN).with_work(pairs),
        Cuda::any("mma", launch::MODULE_MMA, launch::MMA).fits(launch::fits),
        Cuda::any("tiled", launch::MODULE_TILED, launch::TILED).fits(launch::fits),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_F16).only(DType::F16).with_work(pairs),
        Cuda::any("tiled_f16", launch::MODULE_TILED, launch::TILED_F16).only(DType::F16).fits(launch::fits),
        Cuda::any("mma_f16", launch::MODULE_MMA_F16, launch::MMA_F16).only(DType::F16).fits(launch::fits),
        Cuda::any("wgmma_f16", launch::MODULE_WGMMA, launch::WGMMA_F16)
            .only(DType::F16)
            .fits(launch::fits_in_steps)
            .made_for(launch::many_queries),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("attention.wgsl"), dispatch::PLAIN).with_work(pairs),
        Wgsl::any("subgroups", wgsl_of_f32!("attention_subgroups.wgsl"), dispatch::SUBGROUPS)
            .needs(&[GpuFeature::Subgroups])
            .fits(dispatch::columns_fit),
        Wgsl::any("tiled", wgsl_of_f32!("attention_tiled.wgsl"), dispatch::TILED).fits(dispatch::fits),
        Wgsl::any("plain_f16", wgsl_of_f16!("attention.wgsl"), dispatch::PLAIN)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(pairs),
        Wgsl::any("subgroups_f16", wgsl_of_f16!("attention_subgroups.wgsl"), dispatch::SUBGROUPS)
            .only(DType::F16)
            .needs(&[GpuFeature::F16, GpuFeature::Subgroups])
            .fits(dispatch::columns_fit),
        Wgsl::any("tiled_f16", wgsl_of_f16!("attention_tiled.wgsl"), dispatch::TILED)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .fits(dispatch::fits),
    ],
};

/// `dqkv from dy, probabilities recomputed from stats`
pub static ATTENTION_DX: Contract = Contract {
    name: "attention_dx",
    formula: "dqkv from dy, probabilities recomputed from stats",
    args: &[
        read("qkv", F32_F16, &['r', 'e']),
        read("valid", U8, &['b', 't']),
        read("rng", U32, &['4']).optional(),
        read("y", F32, &['r', 'c']),
        read("stats", F32, &['r', 'h']),
        read("dy", F32_F16, &['r', 'c']),
        write("dqkv", F32, &['r', 'e']),
    ],
    scalars: &["heads", "drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops: flops_dx,
    reference: reference::attention_dx,
    cpu: &[
        Variant::any("plain", cpu::attention_dx::<f32>).with_scratch(cpu::scratch),
        Variant::any("plain_f16", cpu::attention_dx::<f16>).only(DType::F16).with_scratch(cpu::scratch),
        Variant::any("keys", keys_dx::backward::<vmath::Portable, 4, 1>).with_scratch(keys_dx::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx2, "keys_avx2", keys_dx::backward::<vmath::Avx2, 4, 2>).with_scratch(keys_dx::scratch),
        #[cfg(target_arch = "x86_64")]
        Variant::needs(Isa::Avx512, "keys_avx512", keys_dx::backward::<vmath::Avx512, 8, 2>)
            .with_scratch(keys_dx::scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN_DX).with_work(|d| 2 * pairs(d)),
        Cuda::any("mma", launch::MODULE_MMA, launch::MMA_DX).fits(launch::fits),
        Cuda::any("tiled", launch::MODULE_TILED, launch::TILED_DX).fits(launch::fits),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_DX_F16).only(DType::F16).with_work(|d| 2 * pairs(d)),
        Cuda::any("tiled_f16", launch::MODULE_TILED, launch::TILED_DX_F16).only(DType::F16).fits(launch::fits),
        Cuda::any("mma_f16", launch::MODULE_MMA_F16, launch::MMA_DX_F16).only(DType::F16).fits(launch::fits),
        Cuda::any("wgmma_f16", launch::MODULE_WGMMA_DX, launch::WGMMA_DX_F16)
            .only(DType::F16)
            .with_work(queries)
            .fits(launch::fits_in_steps)
            .made_for(launch::many_queries),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("attention_dx.wgsl"), dispatch::PLAIN_DX).with_work(|d| 2 * pairs(d)),
        Wgsl::any("tiled", wgsl_of_f32!("attention_dx_tiled.wgsl"), dispatch::TILED_DX)
            .with_work(queries)
            .fits(dispatch::fits),
        Wgsl::any("plain_f16", wgsl_of_f16!("attention_dx.wgsl"), dispatch::PLAIN_DX)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(|d| 2 * pairs(d)),
        Wgsl::any("tiled_f16", wgsl_of_f16!("attention_dx_tiled.wgsl"), dispatch::TILED_DX)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(queries)
            .fits(dispatch::fits),
    ],
};

fn check(d: &Dims) -> Result<(), String> {
    let (heads, width) = (d.scalar(0) as usize, d.size('c'));
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(format!("dim `c` is {width}, not a positive multiple of scalar `heads` = {heads}"));
    }
    d.product_is('h', "scalar `heads`", heads)?;
    d.product_is('r', "b * t", d.size('b') * d.size('t'))?;
    d.product_is('e', "3 * c", 3 * width)?;
    check_drop(d.scalar_f32(1))
}

/// Half of the square: two products of `t * t / 2` by `d` per head.
fn flops(d: &Dims) -> u64 {
    2 * (d.size('r') * d.size('t') * d.size('c')) as u64
}

/// Five products, the recomputed scores among them.
fn flops_dx(d: &Dims) -> u64 {
    5 * (d.size('r') * d.size('t') * d.size('c')) as u64
}

/// Queries and heads.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn queries(d: &Dims) -> usize {
    d.size('r') * d.scalar(0) as usize
}

/// A word per query, head and key.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn pairs(d: &Dims) -> usize {
    queries(d) * d.size('t')
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    /// Tokens of a sequence.
    t: usize,
    /// Width of a head.
    d: usize,
}

impl Shape {
    fn new(dims: &Dims) -> Shape {
        let heads = dims.scalar(0) as usize;
        Shape { heads, t: dims.size('t'), d: dims.size('c') / heads }
    }

    /// `1 / sqrt(d)`.
    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// First probability of a query in the numbering of dropout.
    fn element(&self, sequence: usize, head: usize, q: usize) -> u64 {
        (((sequence * self.heads + head) * self.t + q) * self.t) as u64
    }

    /// Columns of `qkv` that hold part 0 (q), 1 (k) or 2 (v) of a head.
    fn columns(&self, part: usize, head: usize) -> std::ops::Range<usize> {
        let first = (part * self.heads + head) * self.d;
        first..first + self.d
    }
}

/// The dropout of a call; `None` if every probability is kept.
fn draw(rng: Option<&[u32]>, dims: &Dims) -> Option<Draw> {
    rng.map(|rng| Draw::new(rng, dims.scalar_f32(1), dims.scalar(2))).filter(|draw| !draw.keeps_all())
}
