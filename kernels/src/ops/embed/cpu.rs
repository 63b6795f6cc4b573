//! CPU code.

use crate::operand::Call;

pub(super) fn embed(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn embed_dw(_c: &mut Call<'_>) {
    unimplemented!()
}
