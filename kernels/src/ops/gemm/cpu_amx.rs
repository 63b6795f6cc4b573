//! Products on matrix tiles where they are large enough for that, and what runs instead where they are not.

use super::amx::{self, Element};
use super::cpu::{after_back, after_forward, dense};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;

type Run = fn(&mut Call<'_>);
type Len = fn(&Dims) -> usize;
type Room = fn(&Dims) -> Scratch;

pub(super) fn len<T: Element>(d: &Dims, instead: Len) -> usize {
    if amx::forward_pays::<T>(d) { amx::forward_len::<T>(d) } else { instead(d) }
}

pub(super) fn scratch<T: Element>(d: &Dims, instead: Room) -> Scratch {
    if amx::forward_pays::<T>(d) { amx::scratch::<T>(d.size('i')) } else { instead(d) }
}

pub(super) fn pack<T: Element>(c: &mut Call<'_>, instead: Run) {
    if !amx::forward_pays::<T>(c.dims) {
        return instead(c);
    }
    let (w, bias) = (T::take(c, 1), c.f32_opt(2).map(dense));
    amx::pack_forward(c, w, None, bias);
}

pub(super) fn gemm<T: Element>(c: &mut Call<'_>, instead: Run) {
    if !amx::forward_pays::<T>(c.dims) {
        return instead(c);
    }
    let (x, y) = (T::take(c, 0), c.f32_mut(3));
    let after = after_forward(c);
    amx::product(c, x, y, after);
}

pub(super) fn dx_len<T: Element>(d: &Dims, instead: Len) -> usize {
    if amx::back_pays::<T>(d) { amx::back_len::<T>(d) } else { instead(d) }
}

pub(super) fn dx_scratch<T: Element>(d: &Dims, instead: Room) -> Scratch {
    if amx::back_pays::<T>(d) { amx::scratch::<T>(d.size('o')) } else { instead(d) }
}

pub(super) fn dx_pack<T: Element>(c: &mut Call<'_>, instead: Run) {
    if !amx::back_pays::<T>(c.dims) {
        return instead(c);
    }
    let w = T::take(c, 1);
    amx::pack_back(c, w, None);
}

pub(super) fn gemm_dx<T: Element>(c: &mut Call<'_>, instead: Run) {
    if !amx::back_pays::<T>(c.dims) {
        return instead(c);
    }
    let (dy, dx) = (T::take(c, 0), c.f32_mut(2));
    let after = after_back(c);
    amx::product(c, dy, dx, after);
}

pub(super) fn dw_scratch<T: Element>(d: &Dims, instead: Room) -> Scratch {
    if amx::outer_pays(d) { amx::outer_scratch::<T>(d) } else { instead(d) }
}

pub(super) fn gemm_dw<T: Element>(c: &mut Call<'_>, instead: Run) {
    if !amx::outer_pays(c.dims) {
        return instead(c);
    }
    let (dy, x, dw) = (T::take(c, 0), T::take(c, 1), c.f32_mut(2));
    amx::outer(c, dy, x, (dw, None), |_, _, _, _| ());
}
