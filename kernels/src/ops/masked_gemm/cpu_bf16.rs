//! CPU code of calls on bf16.

use super::cpu::{after_back, after_forward, masked_bias, plain, plain_dw, plain_dx};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;
use crate::ops::gemm::gradient;
use crate::ops::gemm::micro::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::ops::gemm::pairs;
use crate::ops::gemm::widened::{self, HalfWeight};

pub(super) fn masked_gemm(c: &mut Call<'_>) {
    let (x, w) = (c.bf16(0), c.bf16(1));
    plain(c, x, w);
}

pub(super) fn widened_pack<K: Kernel>(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: Some(c.bits(2)) }, masked_bias(c, 3, 4));
    widened::pack::<K>(c, w, bias);
}

pub(super) fn widened<K: Kernel>(c: &mut Call<'_>) {
    let (x, bias, y) = (c.bf16(0), masked_bias(c, 3, 4), c.f32_mut(5));
    let after = after_forward(c);
    widened::forward::<K>(c, x, bias, y, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn pairs_pack(c: &mut Call<'_>) {
    let (w, bias) = (HalfWeight { w: c.bf16(1), mask: Some(c.bits(2)) }, masked_bias(c, 3, 4));
    pairs::pack(c, w, bias);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn pairs(c: &mut Call<'_>) {
    let (x, y) = (c.bf16(0), c.f32_mut(5));
    let after = after_forward(c);
    pairs::product(c, x, y, after);
}

pub(super) fn masked_gemm_dx(c: &mut Call<'_>) {
    let (dy, w) = (c.bf16(0), c.bf16(1));
    plain_dx(c, dy, w);
}

pub(super) fn dx_widened_pack<K: Kernel>(c: &mut Call<'_>) {
    let w = HalfWeight { w: c.bf16(1), mask: Some(c.bits(2)) };
    widened::pack_back::<K>(c, w);
}

pub(super) fn dx_widened<K: Kernel>(c: &mut Call<'_>) {
    let (dy, dx) = (c.bf16(0), c.f32_mut(3));
    let after = after_back(c);
    widened::back::<K>(c, dy, dx, after);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn dx_pairs_pack(c: &mut Call<'_>) {
    let w = HalfWeight { w: c.bf16(1), mask: Some(c.bits(2)) };
    pairs::pack_back(c, w);
}

#[cfg(target_arch = "x86_64")]
pub(super) fn dx_pairs(c: &mut Call<'_>) {
    let (dy, dx) = (c.bf16(0), c.f32_mut(3));
    let after = after_back(c);
    pairs::product(c, dy, dx, after);
}

pub(super) fn masked_gemm_dw(c: &mut Call<'_>) {
    let (dy, x, w) = (c.bf16(0), c.bf16(1), c.bf16(2));
    plain_dw(c, dy, x, w);
}

/// Room for the wide dy, x and w.
pub(super) fn dw_scratch<K: Kernel>(d: &Dims) -> Scratch {
    let factors = widened::outer_scratch::<K>(d);
    Scratch { shared: factors.shared + d.size('o') * d.size('i'), ..factors }
}

pub(super) fn dw_widened<K: Kernel>(c: &mut Call<'_>) {
    let (dy, x, w, mask) = (c.bf16(0), c.bf16(1), c.bf16(2), c.bits(3));
    let (score, candidates) = (c.f32_opt(4), c.bits_opt(5));
    let out = (c.f32_mut(6), c.f32_mut_opt(7));
    let mut room = std::mem::take(&mut c.shared);
    let w = widened::wide(c.pool, HalfWeight { w, mask: None }, &mut room);
    widened::outer::<K>(c, dy, x, room, out, gradient::masked_epilogue::<K>(w, mask, score, candidates));
}
