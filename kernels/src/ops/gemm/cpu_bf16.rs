//! CPU code of calls on bf16.

use super::cpu::{after_back, after_forward, dense, plain, plain_dw, plain_dx};
use super::micro::Kernel;
#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::widened::{self, HalfWeight};
use crate::operand::Call;

pub(super) fn gemm(c: &mut Call<'_>) {
    let (x, w) = (c.bf16(0), c.bf16(1));
    plain(c, x, w);
}

pub(super) fn widened_pack<K: Kernel>(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: None }, c.f32_opt(2).map(dense));
    widened::pack::<K>(c, w, bias);
}

pub(super) fn widened<K: Kernel>(c: &mut Call<'_>) {
    let (x, bias, y) = (c.bf16(0), c.f32_opt(2).map(dense), c.f32_mut(3));
    let after = after_forward(c);
    widened::forward::<K>(c, x, bias, y, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn pairs_pack(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: None }, c.f32_opt(2).map(dense));
    pairs::pack(c, w, bias);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn pairs(c: &mut Call<'_>) {
    let (x, y) = (c.bf16(0), c.f32_mut(3));
    let after = after_forward(c);
    pairs::product(c, x, y, after);
}

pub(super) fn gemm_dx(c: &mut Call<'_>) {
    let (dy, w) = (c.bf16(0), c.bf16(1));
    plain_dx(c, dy, w);
}

pub(super) fn dx_widened_pack<K: Kernel>(c: &mut Call<'_>) {
    let w = HalfWeight { w: c.bf16(1), mask: None };
    widened::pack_back::<K>(c, w);
}

pub(super) fn dx_widened<K: Kernel>(c: &mut Call<'_>) {
    let (dy, dx) = (c.bf16(0), c.f32_mut(2));
    let after = after_back(c);
    widened::back::<K>(c, dy, dx, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn dx_pairs_pack(c: &mut Call<'_>) {
    let w = HalfWeight { w: c.bf16(1), mask: None };
    pairs::pack_back(c, w);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn dx_pairs(c: &mut Call<'_>) {
    let (dy, dx) = (c.bf16(0), c.f32_mut(2));
    let after = after_back(c);
    pairs::product(c, dy, dx, after);
}

pub(super) fn gemm_dw(c: &mut Call<'_>) {
    let (dy, x) = (c.bf16(0), c.bf16(1));
    plain_dw(c, dy, x);
}

pub(super) fn dw_widened<K: Kernel>(c: &mut Call<'_>) {
    let (dy, x, dw) = (c.bf16(0), c.bf16(1), c.f32_mut(2));
    let room = std::mem::take(&mut c.shared);
    widened::outer::<K>(c, dy, x, room, (dw, None), |_, _, _, _| ());
}
