//! f64 references.

use crate::reference::Reference;

pub(super) fn embed(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn embed_dw(_r: &mut Reference) {
    unimplemented!()
}
