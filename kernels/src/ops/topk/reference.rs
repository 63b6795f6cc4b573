//! f64 references.

use crate::reference::Reference;

pub(super) fn topk(_r: &mut Reference) {
    unimplemented!()
}
