//! f64 references.

use crate::reference::Reference;

pub(super) fn sum(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn moments(_r: &mut Reference) {
    unimplemented!()
}

pub(super) fn sym_kl(_r: &mut Reference) {
    unimplemented!()
}
