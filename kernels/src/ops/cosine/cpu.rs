//! CPU code.

use crate::operand::Call;

pub(super) fn cosine(_c: &mut Call<'_>) {
    unimplemented!()
}

pub(super) fn cosine_topk(_c: &mut Call<'_>) {
    unimplemented!()
}
