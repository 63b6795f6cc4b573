//! CPU code.

use crate::operand::Call;

pub(super) fn kmeans(_c: &mut Call<'_>) {
    unimplemented!()
}
