//! CPU code.

use crate::operand::Call;

pub(super) fn packed_gemm(_c: &mut Call<'_>) {
    unimplemented!()
}
