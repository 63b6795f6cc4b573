//! Strips with AVX2 and AVX-512.
#![expect(unsafe_code, reason = "compiled for an instruction set")]

use super::ListKernel;
use super::strip::{self, Strips};
use crate::ops::gemm::{micro_avx2::Avx2, micro_avx512::Avx512};
use crate::simd::Isa;
use std::arch::x86_64::{__m256, __m512};

impl ListKernel for Avx2 {
    const STRIP: usize = 32;
    const ISA: Isa = Isa::Avx2;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn strips(s: Strips<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { strip::strips::<__m256>(s) }
    }
}

impl ListKernel for Avx512 {
    const STRIP: usize = 64;
    const ISA: Isa = Isa::Avx512;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn strips(s: Strips<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { strip::strips::<__m512>(s) }
    }
}
