//! CPU code.

use crate::operand::Call;

pub(super) fn conv(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn conv_dx(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn conv_dw(_c: &mut Call<'_>) {
    unimplemented!()
}
