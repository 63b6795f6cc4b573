//! The weight gradient at kept entries alone, where no score learns, and the choice between it and tiles.

use super::MASKED_GEMM_DW;
use super::cpu::masked_gemm_dw_tiled;
use super::lists::{HEADER, header, keep};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Operand};
use crate::ops::gemm::gradient;
use crate::ops::lists::{ListKernel, sampled};
use crate::simd::Isa;

const TILES: f32 = 0.0;
const SAMPLED: f32 = 1.0;

/// Tiles prepare nothing.
pub(super) fn nothing<K: ListKernel>(_: &mut Call<'_>) {}

pub(super) fn no_len<K: ListKernel>(_: &Dims) -> usize {
    0
}

pub(super) fn len<K: ListKernel>(d: &Dims) -> usize {
    HEADER + sampled::prepared_len(d.size('o'), d.size('i'))
}

pub(super) fn scratch<K: ListKernel>(d: &Dims) -> Scratch {
    let tiles = gradient::outer_scratch::<K>(d);
    Scratch {
        shared: tiles.shared.max(sampled::shared_len::<K>(d.size('r'), d.size('o'), d.size('i'))),
        worker: tiles.worker.max(sampled::worker_len::<K>(d.size('o'))),
    }
}

/// First stage of the variant that samples at any density.
pub(super) fn sample<K: ListKernel>(c: &mut Call<'_>) {
    prepare::<K>(c, f64::INFINITY);
}

/// First stage of the variant that asks the table.
pub(super) fn choose_way<K: ListKernel>(c: &mut Call<'_>) {
    choose::<K>(c, K::ISA);
}

pub(super) fn choose<K: ListKernel>(c: &mut Call<'_>, isa: Isa) {
    let below = c.crossover.lists_below_keep(MASKED_GEMM_DW.name, isa, c.dims.size('r'), c.dims.size('i'));
    prepare::<K>(c, f64::from(below));
}

fn prepare<K: ListKernel>(c: &mut Call<'_>, below: f64) {
    let mask = c.bits(3);
    // A score gradient needs the contraction outside the mask as well.
    let sampled = matches!(c.args[7], Operand::Absent) && keep(&mask) < below;
    header(c)[0] = if sampled { SAMPLED } else { TILES };
    if sampled {
        sampled::prepare::<K>(c.pool, &mask, c.prepared);
    }
}

pub(super) fn by_density<K: ListKernel>(c: &mut Call<'_>) {
    run::<K>(c, masked_gemm_dw_tiled::<K>);
}

/// Kept entries alone if that was prepared, `tiles` otherwise.
pub(super) fn run<K: ListKernel>(c: &mut Call<'_>, tiles: fn(&mut Call<'_>)) {
    if header(c)[0] == SAMPLED {
        let (dy, x, mask, dw) = (c.f32(0), c.f32(1), c.bits(3), c.f32_mut(6));
        sampled::outer::<K>(c.pool, dy, x, &mask, c.prepared, (c.shared, c.workers), dw);
    } else {
        tiles(c);
    }
}
