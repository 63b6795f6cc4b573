//! CPU code.

use crate::operand::Call;

pub(super) fn attention(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn attention_dx(_c: &mut Call<'_>) {
    unimplemented!()
}
