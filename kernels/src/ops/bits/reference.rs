//! f64 references.

use crate::reference::Reference;

pub(super) fn pack_bits(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn unpack_bits(_r: &mut Reference) {
    unimplemented!()
}
