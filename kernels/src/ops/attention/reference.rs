//! f64 references.

use crate::reference::Reference;

pub(super) fn attention(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn attention_dx(_r: &mut Reference) {
    unimplemented!()
}
