//! f64 references.

use crate::reference::Reference;

pub(super) fn conv(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn conv_dx(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn conv_dw(_r: &mut Reference) {
    unimplemented!()
}
