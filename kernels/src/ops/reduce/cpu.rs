//! CPU code.

use crate::operand::Call;

pub(super) fn sum(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn moments(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn sym_kl(_c: &mut Call<'_>) {
    unimplemented!()
}
