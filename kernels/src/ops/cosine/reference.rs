//! f64 references.

use crate::reference::Reference;

pub(super) fn cosine(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn cosine_topk(_r: &mut Reference) {
    unimplemented!()
}
