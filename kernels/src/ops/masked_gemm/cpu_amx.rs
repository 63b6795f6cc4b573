//! Masked products on matrix tiles, bits applied while the weight is packed; what runs instead where they are small; and
//! the choice between tiles and lists.

use super::cpu::{
    after_back, after_forward, masked_bias, masked_gemm_dw_tiled, masked_gemm_dx_pack, masked_gemm_dx_tiled,
    masked_gemm_pack, masked_gemm_tiled,
};
use super::lists::{self, HEADER, as_chosen, choose};
use super::{MASKED_GEMM, MASKED_GEMM_DX, cpu_bf16, sampled};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;
use crate::ops::gemm::amx::{self, Element};
use crate::ops::gemm::micro_avx512::Avx512;
use crate::ops::gemm::widened::{self, HalfWeight};
use crate::ops::gemm::{gradient, pairs, product};
use crate::simd::Isa;
use half::bf16;

fn pack<T: Element>(c: &mut Call<'_>) {
    let (w, mask, bias) = (T::take(c, 1), c.bits(2), masked_bias(c, 3, 4));
    amx::pack_forward(c, w, Some(mask), bias);
}

fn product<T: Element>(c: &mut Call<'_>) {
    let (x, y) = (T::take(c, 0), c.f32_mut(5));
    let after = after_forward(c);
    amx::product(c, x, y, after);
}

fn pack_back<T: Element>(c: &mut Call<'_>) {
    let (w, mask) = (T::take(c, 1), c.bits(2));
    amx::pack_back(c, w, Some(mask));
}

fn product_back<T: Element>(c: &mut Call<'_>) {
    let (dy, dx) = (T::take(c, 0), c.f32_mut(3));
    let after = after_back(c);
    amx::product(c, dy, dx, after);
}

pub(super) fn tiles_len(d: &Dims) -> usize {
    if amx::forward_pays::<f32>(d) { amx::forward_len::<f32>(d) } else { product::forward_len::<Avx512>(d) }
}

pub(super) fn tiles_scratch(d: &Dims) -> Scratch {
    if amx::forward_pays::<f32>(d) { amx::scratch::<f32>(d.size('i')) } else { Scratch::default() }
}

pub(super) fn tiles_pack(c: &mut Call<'_>) {
    if amx::forward_pays::<f32>(c.dims) { pack::<f32>(c) } else { masked_gemm_pack::<Avx512>(c) }
}

pub(super) fn tiles(c: &mut Call<'_>) {
    if amx::forward_pays::<f32>(c.dims) { product::<f32>(c) } else { masked_gemm_tiled::<Avx512>(c) }
}

pub(super) fn most(d: &Dims) -> usize {
    HEADER + lists::forward_len::<Avx512>(d).max(tiles_len(d))
}

pub(super) fn most_scratch(d: &Dims) -> Scratch {
    larger(lists::forward_scratch::<Avx512>(d), tiles_scratch(d))
}

pub(super) fn choose_way(c: &mut Call<'_>) {
    choose(c, (&MASKED_GEMM, Isa::Amx), c.dims.size('i'), lists::masked_gemm_list::<Avx512>, tiles_pack);
}

pub(super) fn by_density(c: &mut Call<'_>) {
    as_chosen(c, lists::masked_gemm::<Avx512>, tiles);
}

pub(super) fn dx_tiles_len(d: &Dims) -> usize {
    if amx::back_pays::<f32>(d) { amx::back_len::<f32>(d) } else { product::back_len::<Avx512>(d) }
}

pub(super) fn dx_tiles_scratch(d: &Dims) -> Scratch {
    if amx::back_pays::<f32>(d) { amx::scratch::<f32>(d.size('o')) } else { Scratch::default() }
}

pub(super) fn dx_tiles_pack(c: &mut Call<'_>) {
    if amx::back_pays::<f32>(c.dims) { pack_back::<f32>(c) } else { masked_gemm_dx_pack::<Avx512>(c) }
}

pub(super) fn dx_tiles(c: &mut Call<'_>) {
    if amx::back_pays::<f32>(c.dims) { product_back::<f32>(c) } else { masked_gemm_dx_tiled::<Avx512>(c) }
}

pub(super) fn dx_most(d: &Dims) -> usize {
    HEADER + lists::back_len::<Avx512>(d).max(dx_tiles_len(d))
}

pub(super) fn dx_most_scratch(d: &Dims) -> Scratch {
    larger(lists::back_scratch::<Avx512>(d), dx_tiles_scratch(d))
}

pub(super) fn dx_choose_way(c: &mut Call<'_>) {
    choose(c, (&MASKED_GEMM_DX, Isa::Amx), c.dims.size('o'), lists::masked_gemm_dx_list::<Avx512>, dx_tiles_pack);
}

pub(super) fn dx_by_density(c: &mut Call<'_>) {
    as_chosen(c, lists::masked_gemm_dx::<Avx512>, dx_tiles);
}

pub(super) fn dw_tiles_scratch(d: &Dims) -> Scratch {
    if amx::outer_pays(d) { amx::outer_scratch::<f32>(d) } else { gradient::outer_scratch::<Avx512>(d) }
}

pub(super) fn dw_tiles(c: &mut Call<'_>) {
    if !amx::outer_pays(c.dims) {
        return masked_gemm_dw_tiled::<Avx512>(c);
    }
    let (dy, x, w, mask) = (c.f32(0), c.f32(1), c.f32(2), c.bits(3));
    let epilogue = gradient::masked_epilogue::<Avx512>(w, mask, c.f32_opt(4), c.bits_opt(5));
    let out = (c.f32_mut(6), c.f32_mut_opt(7));
    amx::outer(c, dy, x, out, epilogue);
}

pub(super) fn dw_most_scratch(d: &Dims) -> Scratch {
    larger(sampled::scratch::<Avx512>(d), dw_tiles_scratch(d))
}

pub(super) fn dw_choose_way(c: &mut Call<'_>) {
    sampled::choose::<Avx512>(c, Isa::Amx);
}

pub(super) fn dw_by_density(c: &mut Call<'_>) {
    sampled::run::<Avx512>(c, dw_tiles);
}

pub(super) fn pairs_len(d: &Dims) -> usize {
    if amx::forward_pays::<bf16>(d) { amx::forward_len::<bf16>(d) } else { pairs::forward_len(d) }
}

pub(super) fn pairs_scratch(d: &Dims) -> Scratch {
    if amx::forward_pays::<bf16>(d) { amx::scratch::<bf16>(d.size('i')) } else { Scratch::default() }
}

pub(super) fn pairs_pack(c: &mut Call<'_>) {
    if amx::forward_pays::<bf16>(c.dims) { pack::<bf16>(c) } else { cpu_bf16::pairs_pack(c) }
}

pub(super) fn pairs(c: &mut Call<'_>) {
    if amx::forward_pays::<bf16>(c.dims) { product::<bf16>(c) } else { cpu_bf16::pairs(c) }
}

pub(super) fn dx_pairs_len(d: &Dims) -> usize {
    if amx::back_pays::<bf16>(d) { amx::back_len::<bf16>(d) } else { pairs::back_len(d) }
}

pub(super) fn dx_pairs_scratch(d: &Dims) -> Scratch {
    if amx::back_pays::<bf16>(d) { amx::scratch::<bf16>(d.size('o')) } else { Scratch::default() }
}

pub(super) fn dx_pairs_pack(c: &mut Call<'_>) {
    if amx::back_pays::<bf16>(c.dims) { pack_back::<bf16>(c) } else { cpu_bf16::dx_pairs_pack(c) }
}

pub(super) fn dx_pairs(c: &mut Call<'_>) {
    if amx::back_pays::<bf16>(c.dims) { product_back::<bf16>(c) } else { cpu_bf16::dx_pairs(c) }
}

/// Room for the wide w.
pub(super) fn dw_pairs_scratch(d: &Dims) -> Scratch {
    match amx::outer_pays(d) {
        true => Scratch { shared: d.size('o') * d.size('i'), ..amx::outer_scratch::<bf16>(d) },
        false => cpu_bf16::dw_scratch::<Avx512>(d),
    }
}

pub(super) fn dw_pairs(c: &mut Call<'_>) {
    if !amx::outer_pays(c.dims) {
        return cpu_bf16::dw_widened::<Avx512>(c);
    }
    let (dy, x, w, mask) = (c.bf16(0), c.bf16(1), c.bf16(2), c.bits(3));
    let (score, candidates) = (c.f32_opt(4), c.bits_opt(5));
    let out = (c.f32_mut(6), c.f32_mut_opt(7));
    let w = widened::wide(c.pool, HalfWeight { w, mask: None }, &mut std::mem::take(&mut c.shared));
    amx::outer(c, dy, x, out, gradient::masked_epilogue::<Avx512>(w, mask, score, candidates));
}

fn larger(a: Scratch, b: Scratch) -> Scratch {
    Scratch { shared: a.shared.max(b.shared), worker: a.worker.max(b.worker) }
}
