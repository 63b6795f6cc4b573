//! CPU code.

use crate::operand::Call;

pub(super) fn dropout(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn dropout_dx(_c: &mut Call<'_>) {
    unimplemented!()
}
