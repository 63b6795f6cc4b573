//! f64 references.

use crate::reference::Reference;

pub(super) fn gemm(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn gemm_dx(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn gemm_dw(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn bias_dw(_r: &mut Reference) {
    unimplemented!()
}
