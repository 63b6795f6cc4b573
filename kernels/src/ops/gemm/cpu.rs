//! CPU code.

use crate::operand::Call;

pub(super) fn gemm(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn gemm_dx(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn gemm_dw(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn bias_dw(_c: &mut Call<'_>) {
    unimplemented!()
}
