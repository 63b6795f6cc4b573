//! f64 references.

use crate::reference::Reference;

pub(super) fn interleave(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn interleave_dx(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn select(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn select_dx(_r: &mut Reference) {
    unimplemented!()
}
