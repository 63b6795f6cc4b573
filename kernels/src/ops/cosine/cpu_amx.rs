//! Scores on matrix tiles: 16 rows of the bank meet 32 queries at a time, one row's scores of 16 queries to a register.
#![expect(unsafe_code, reason = "vector stores, and calls of functions compiled for instruction sets the CPU has")]

use super::cpu_blocks::{self, keep_blocks, store_blocks};
use super::cpu_lanes::{LANES, Sink, scale_of};
use super::cpu_x86::{Avx512, sweep_avx512};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat};
use crate::ops::gemm::amx;
use std::arch::x86_64::*;

/// Fewest queries and coordinates that fill enough of a tile.
const LEAST: usize = 16;

pub(super) fn scratch(d: &Dims) -> Scratch {
    with_tiles(cpu_blocks::scratch(d), cpu_blocks::BLOCK, d)
}

pub(super) fn scratch_topk(d: &Dims) -> Scratch {
    with_tiles(cpu_blocks::scratch_topk(d), cpu_blocks::block(d), d)
}

/// And room for the scaled queries of a block, and their tiles.
fn with_tiles(own: Scratch, queries: usize, d: &Dims) -> Scratch {
    let width = d.size('d');
    Scratch { worker: own.worker + queries * width + amx::meet_room(queries, width), ..own }
}

pub(super) fn cosine(c: &mut Call<'_>) {
    // SAFETY: the variant states Isa::Amx, which `Isa::detect` reports only where all these sets exist.
    store_blocks(c, |q, p, own, sink| unsafe { sweep(q, p, own, sink) });
}

pub(super) fn cosine_topk(c: &mut Call<'_>) {
    // SAFETY: as in `cosine`.
    keep_blocks(c, |q, p, own, sink| unsafe { sweep(q, p, own, sink) });
}

/// Scores of all `q` with all `p`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn sweep(q: Mat<'_, f32>, p: Mat<'_, f32>, own: &mut [f32], sink: &mut impl Sink) {
    if q.rows < LEAST || q.cols < LEAST {
        return sweep_avx512(q, p, own, sink);
    }
    let (scaled, room) = own.split_at_mut(q.rows * q.cols);
    for (i, to) in scaled.chunks_exact_mut(q.cols).enumerate() {
        let scale = scale_of::<Avx512>(q.row(i));
        to.iter_mut().zip(q.row(i)).for_each(|(to, x)| *to = x * scale);
    }
    let scaled = Mat::dense(scaled, q.rows, q.cols);
    let groups = q.rows.div_ceil(LANES);
    let mut scales = [0.0; 16];
    amx::meet(p, scaled, room, |j, column, products| {
        // The first columns come first.
        if column == 0 {
            scales[j % 16] = scale_of::<Avx512>(p.row(j));
        }
        for (group, sums) in (column / LANES..groups).zip(products) {
            let mut scores = [0.0; LANES];
            // SAFETY: 16 floats; only called with the instructions.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), _mm512_mul_ps(sums, _mm512_set1_ps(scales[j % 16]))) }
            sink.lane::<Avx512>(group, j, &scores);
        }
    });
}
