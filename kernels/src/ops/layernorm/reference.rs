//! f64 references.

use crate::reference::Reference;

pub(super) fn layernorm(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn layernorm_dx(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn layernorm_dw(_r: &mut Reference) {
    unimplemented!()
}
