//! CPU code.

use crate::operand::Call;

pub(super) fn topk(_c: &mut Call<'_>) {
    unimplemented!()
}
