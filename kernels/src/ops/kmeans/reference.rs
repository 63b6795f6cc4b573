//! f64 references.

use crate::reference::Reference;

pub(super) fn kmeans(_r: &mut Reference) {
    unimplemented!()
}
