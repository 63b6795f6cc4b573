//! CPU code.

use crate::operand::Call;

pub(super) fn masked_gemm(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn masked_gemm_dx(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn masked_gemm_dw(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn masked_bias_dw(_c: &mut Call<'_>) {
    unimplemented!()
}
