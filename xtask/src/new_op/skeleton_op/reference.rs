//! f64 reference, written to be obviously right.

use crate::reference::Reference;

pub(super) fn skeleton_op(r: &mut Reference) {
    let y = r.f(0);
    r.put_f(1, y);
}
