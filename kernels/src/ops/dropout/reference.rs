//! f64 references.

use crate::reference::Reference;

pub(super) fn dropout(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn dropout_dx(_r: &mut Reference) {
    unimplemented!()
}
