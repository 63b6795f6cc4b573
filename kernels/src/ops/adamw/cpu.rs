//! CPU code.

use crate::operand::Call;

pub(super) fn adamw(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn sumsq(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn clip(_c: &mut Call<'_>) {
    unimplemented!()
}
