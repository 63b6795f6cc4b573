//! CPU code.

use crate::operand::Call;

pub(super) fn layernorm(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn layernorm_dx(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn layernorm_dw(_c: &mut Call<'_>) {
    unimplemented!()
}
