//! The one list of ops. Conformance, benches, tidy and docs iterate it.

use crate::contract::Contract;

pub mod adamw;
pub mod attend;
pub mod attention;
pub mod bits;
pub mod consolidate;
pub mod conv;
pub mod cosine;
pub mod dropout;
pub mod embed;
pub mod gemm;
pub mod kmeans;
pub mod layernorm;
mod lists;
pub mod loss;
pub mod masked_gemm;
pub mod packed_gemm;
pub mod pointwise;
pub mod reduce;
pub mod tokens;
pub mod topk;
mod vmath;

/// Every op.
pub static OPS: &[&Contract] = &[
    &gemm::GEMM,
    &gemm::GEMM_DX,
    &gemm::GEMM_DW,
    &gemm::BIAS_DW,
    &masked_gemm::MASKED_GEMM,
    &masked_gemm::MASKED_GEMM_DX,
    &masked_gemm::MASKED_GEMM_DW,
    &masked_gemm::MASKED_BIAS_DW,
    &packed_gemm::PACKED_GEMM,
    &conv::CONV,
    &conv::CONV_DX,
    &conv::CONV_DW,
    &attention::ATTENTION,
    &attention::ATTENTION_DX,
    &attend::ATTEND,
    &layernorm::LAYERNORM,
    &layernorm::LAYERNORM_DX,
    &pointwise::GELU,
    &pointwise::GELU_DX,
    &pointwise::ADD,
    &pointwise::FILL,
    &dropout::DROPOUT,
    &dropout::DROPOUT_DX,
    &embed::EMBED,
    &embed::EMBED_DW,
    &tokens::INTERLEAVE,
    &tokens::INTERLEAVE_DX,
    &tokens::SELECT,
    &tokens::SELECT_DX,
    &tokens::SLIDE,
    &loss::CROSS_ENTROPY,
    &loss::CROSS_ENTROPY_DX,
    &loss::MASKED_MSE,
    &loss::MASKED_MSE_DX,
    &topk::TOPK,
    &adamw::ADAMW,
    &adamw::SUMSQ,
    &adamw::CLIP,
    &consolidate::PULL,
    &consolidate::PATH_INTEGRAL,
    &reduce::SUM,
    &reduce::MOMENTS,
    &reduce::SYM_KL,
    &cosine::COSINE,
    &cosine::COSINE_TOPK,
    &kmeans::KMEANS,
    &bits::PACK_BITS,
    &bits::UNPACK_BITS,
];

/// The op of a name.
pub fn find(name: &str) -> Option<&'static Contract> {
    OPS.iter().copied().find(|op| op.name == name)
}
