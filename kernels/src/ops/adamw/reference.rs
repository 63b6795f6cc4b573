//! f64 references.

use crate::reference::Reference;

pub(super) fn adamw(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn sumsq(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn clip(_r: &mut Reference) {
    unimplemented!()
}
