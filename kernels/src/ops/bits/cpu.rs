//! CPU code.

use crate::operand::Call;

pub(super) fn pack_bits(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn unpack_bits(_c: &mut Call<'_>) {
    unimplemented!()
}
