//! f64 references.

use crate::reference::Reference;

pub(super) fn masked_gemm(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn masked_gemm_dx(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn masked_gemm_dw(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn masked_bias_dw(_r: &mut Reference) {
    unimplemented!()
}
