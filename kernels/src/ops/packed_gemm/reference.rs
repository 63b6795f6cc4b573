//! f64 references.

use crate::reference::Reference;

pub(super) fn packed_gemm(_r: &mut Reference) {
    unimplemented!()
}
