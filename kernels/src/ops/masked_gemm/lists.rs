//! Products over kept weights alone, and the choice between them and tiles.

use super::cpu::{
    after_back, after_forward, masked_bias, masked_gemm_dx_pack, masked_gemm_dx_tiled, masked_gemm_pack,
    masked_gemm_tiled,
};
use super::{MASKED_GEMM, MASKED_GEMM_DX};
use crate::contract::{Contract, Dims, Scratch};
use crate::operand::{BitMat, Call};
use crate::ops::gemm::micro::{Weight, low_bits};
use crate::ops::gemm::product;
use crate::ops::lists::{self, ListKernel, Side};
use crate::simd::Isa;

/// Elements before what the chosen way prepared; the first is the choice.
pub(super) const HEADER: usize = 16;
const TILES: f32 = 0.0;
const LISTS: f32 = 1.0;

pub(super) fn forward_len<K: ListKernel>(d: &Dims) -> usize {
    lists::prepared_len(d.size('o'), d.size('i'))
}

pub(super) fn back_len<K: ListKernel>(d: &Dims) -> usize {
    lists::prepared_len(d.size('i'), d.size('o'))
}

pub(super) fn no_scratch<K: ListKernel>(_: &Dims) -> Scratch {
    Scratch { shared: 0, worker: 0 }
}

pub(super) fn forward_scratch<K: ListKernel>(d: &Dims) -> Scratch {
    Scratch { shared: 0, worker: lists::worker_len::<K>(d.size('o'), d.size('i')) }
}

pub(super) fn back_scratch<K: ListKernel>(d: &Dims) -> Scratch {
    Scratch { shared: 0, worker: lists::worker_len::<K>(d.size('i'), d.size('o')) }
}

pub(super) fn masked_gemm_list<K: ListKernel>(c: &mut Call<'_>) {
    let (w, bias) = (weight(c), masked_bias(c, 3, 4));
    lists::prepare::<K>(c, Side::Forward, w, bias);
}

pub(super) fn masked_gemm<K: ListKernel>(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(5));
    let after = after_forward(c);
    lists::product::<K>(c, x, y, after);
}

pub(super) fn masked_gemm_dx_list<K: ListKernel>(c: &mut Call<'_>) {
    let w = weight(c);
    lists::prepare::<K>(c, Side::Back, w, None);
}

pub(super) fn masked_gemm_dx<K: ListKernel>(c: &mut Call<'_>) {
    let (dy, dx) = (c.f32(0), c.f32_mut(3));
    let after = after_back(c);
    lists::product::<K>(c, dy, dx, after);
}

fn weight<'a>(c: &mut Call<'a>) -> Weight<'a> {
    Weight { w: c.f32(1), mask: Some(c.bits(2)) }
}

pub(super) fn forward_most<K: ListKernel>(d: &Dims) -> usize {
    HEADER + forward_len::<K>(d).max(product::forward_len::<K>(d))
}

pub(super) fn back_most<K: ListKernel>(d: &Dims) -> usize {
    HEADER + back_len::<K>(d).max(product::back_len::<K>(d))
}

pub(super) fn masked_gemm_choose<K: ListKernel>(c: &mut Call<'_>) {
    choose(c, (&MASKED_GEMM, K::ISA), c.dims.size('i'), masked_gemm_list::<K>, masked_gemm_pack::<K>);
}

pub(super) fn masked_gemm_by_density<K: ListKernel>(c: &mut Call<'_>) {
    as_chosen(c, masked_gemm::<K>, masked_gemm_tiled::<K>);
}

pub(super) fn masked_gemm_dx_choose<K: ListKernel>(c: &mut Call<'_>) {
    choose(c, (&MASKED_GEMM_DX, K::ISA), c.dims.size('o'), masked_gemm_dx_list::<K>, masked_gemm_dx_pack::<K>);
}

pub(super) fn masked_gemm_dx_by_density<K: ListKernel>(c: &mut Call<'_>) {
    as_chosen(c, masked_gemm_dx::<K>, masked_gemm_dx_tiled::<K>);
}

/// Prepares lists where the table says that they win at the mask's density, panels elsewhere, and notes which.
pub(super) fn choose(
    c: &mut Call<'_>,
    (op, isa): (&Contract, Isa),
    width: usize,
    list: fn(&mut Call<'_>),
    pack: fn(&mut Call<'_>),
) {
    let mask = c.bits(2);
    c.args[2] = crate::operand::Operand::Bits(mask);
    let below = c.crossover.lists_below_keep(op.name, isa, c.dims.size('r'), width);
    let lists = keep(&mask) < f64::from(below);
    header(c)[0] = if lists { LISTS } else { TILES };
    if lists { list(c) } else { pack(c) }
}

pub(super) fn as_chosen(c: &mut Call<'_>, lists: fn(&mut Call<'_>), tiles: fn(&mut Call<'_>)) {
    if header(c)[0] == LISTS { lists(c) } else { tiles(c) }
}

/// Takes the header off what is prepared.
pub(super) fn header<'a>(c: &mut Call<'a>) -> &'a mut [f32] {
    let (header, rest) = std::mem::take(&mut c.prepared).split_at_mut(HEADER);
    c.prepared = rest;
    header
}

/// Share of the bits that are set.
pub(super) fn keep(mask: &BitMat<'_>) -> f64 {
    // Bits behind the last column may be anything.
    let bits = |(at, word): (usize, &u32)| u64::from((word & low_bits(mask.cols - 32 * at)).count_ones());
    let set: u64 = (0..mask.rows).flat_map(|r| mask.row(r).iter().enumerate()).map(bits).sum();
    set as f64 / (mask.rows * mask.cols).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pad_bits_do_not_count() {
        let words = [0b11, u32::MAX << 8, 0, u32::MAX];
        assert_eq!(keep(&BitMat { words: &words, rows: 2, cols: 40, ld: 2 }), 10.0 / 80.0);
        assert_eq!(keep(&BitMat { words: &[], rows: 0, cols: 40, ld: 2 }), 0.0);
    }
}
