//! Measured on a 2-core Intel Xeon with AVX-512 (`cargo xtask tune --ship` rewrites this file).

use super::Entry;
use crate::simd::Isa;

const ANY: usize = usize::MAX;

pub(super) const ENTRIES: &[Entry] = &[
    entry("masked_gemm", Isa::Scalar, 8, ANY, 0.0),
    entry("masked_gemm", Isa::Scalar, ANY, ANY, 0.6),
    entry("masked_gemm", Isa::Avx2, 8, ANY, 0.0),
    entry("masked_gemm", Isa::Avx2, ANY, ANY, 0.6),
    entry("masked_gemm", Isa::Avx512, 8, ANY, 0.0),
    entry("masked_gemm", Isa::Avx512, ANY, ANY, 0.6),
    entry("masked_gemm_dx", Isa::Scalar, 8, ANY, 0.0),
    entry("masked_gemm_dx", Isa::Scalar, ANY, ANY, 0.6),
    entry("masked_gemm_dx", Isa::Avx2, 8, ANY, 0.0),
    entry("masked_gemm_dx", Isa::Avx2, ANY, ANY, 0.6),
    entry("masked_gemm_dx", Isa::Avx512, 8, ANY, 0.0),
    entry("masked_gemm_dx", Isa::Avx512, ANY, ANY, 0.6),
    entry("masked_gemm_dw", Isa::Scalar, ANY, ANY, 0.2),
    entry("masked_gemm_dw", Isa::Avx2, ANY, ANY, 0.2),
    entry("masked_gemm_dw", Isa::Avx512, ANY, ANY, 0.2),
];

const fn entry(op: &'static str, isa: Isa, rows_up_to: usize, width_up_to: usize, lists_below_keep: f32) -> Entry {
    Entry { op, isa, rows_up_to, width_up_to, lists_below_keep }
}
