//! References; no arithmetic.

use crate::reference::Reference;

pub(super) fn pack_bits(r: &mut Reference) {
    let bits = r.u(0).iter().map(|flag| u32::from(*flag != 0)).collect();
    r.put_u(1, bits);
}

pub(super) fn unpack_bits(r: &mut Reference) {
    let flags = r.u(0);
    r.put_u(1, flags);
}
