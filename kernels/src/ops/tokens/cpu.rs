//! CPU code.

use crate::operand::Call;

pub(super) fn interleave(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn interleave_dx(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn select(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn select_dx(_c: &mut Call<'_>) {
    unimplemented!()
}
