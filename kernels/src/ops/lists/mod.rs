//! Kept weights as lists: products that cost what a mask keeps, not what it could keep.
//!
//! ```text
//!   x rows of a strip ── turned ──► panel[k, STRIP]       one piece of k at a time, so that it stays in first-level cache
//!   list of output n: (column, value) pairs ──► sums[n, STRIP] += value * panel[column]
//!   sums ── turned back ──► y rows of the strip
//! ```
//! A weight is stored once for each piece of [`PIECE`] inputs and block of [`OUT`] outputs, in a *chunk* of fixed length.
//! Lists are ordered by length, longest first, and neighbours make a *couple* that is walked together: its pairs hold one
//! member of each, and the shorter list ends with members that add zero. A chunk begins with a head for each couple
//! (number of pairs, two places in the block); all pairs follow. Order of a sum: from the bias on, inputs ascending.
//! Rows, and outputs if rows are few, are cut by the number of workers: a sum stays within one row and output.
//!
//! Source: row strips against a list of kept weights, as sparse products of ML inference do (Elsen et al. 2020, "Fast
//! sparse ConvNets"); order by length and chunks are this project's.
#![expect(unsafe_code, reason = "calls kernels that need an instruction set")]

mod build;
pub(super) mod sampled;
pub(super) mod strip;
mod turn;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::gemm::finish::{Finish, finish};
use super::gemm::micro::{Kernel, Lanes, Portable, Quad, Weight, masked_value};
use super::gemm::product::{ALIGN, aligned};
use crate::operand::{Call, Mat, MatMut};
use crate::par::SplitTiles;
use crate::simd::Isa;
use sampled::{Crosswise, Sample};
use strip::Strips;
use turn::Turn;

/// Inputs of a piece: with AVX-512 its panel is 32 KiB.
const PIECE: usize = 128;
/// Outputs of a chunk: the columns of one mask word, and the sums that are turned back together.
const OUT: usize = 32;
/// Lists that are walked two by two.
const COUPLES: usize = OUT / 2;
/// Vectors of rows times weights from which a few rows are shared by workers.
const WORTH_SHARING: usize = 1 << 16;
/// Words of a pair: two row offsets of a panel in bytes, two values.
const PAIR: usize = 3;

/// A kernel that runs strips.
///
/// # Safety
/// All functions: the CPU has the instruction set.
pub(crate) trait ListKernel: Kernel {
    /// Rows of a strip, four vectors.
    const STRIP: usize;
    const ISA: Isa;
    unsafe fn list(side: Side, w: &Weight<'_>, k0: usize, n0: usize, chunk: &mut [u32]);
    unsafe fn strips(s: Strips<'_>);
    unsafe fn sample(s: Sample<'_>);
}

impl ListKernel for Portable {
    const STRIP: usize = 16;
    const ISA: Isa = Isa::Scalar;

    unsafe fn list(side: Side, w: &Weight<'_>, k0: usize, n0: usize, chunk: &mut [u32]) {
        build::chunk(side, w, k0, n0, 4 * Self::STRIP, chunk);
    }

    unsafe fn strips(s: Strips<'_>) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { strip::strips::<Quad>(s) }
    }

    unsafe fn sample(s: Sample<'_>) {
        // SAFETY: plain Rust runs on every CPU.
        unsafe { sampled::sample::<Quad>(s) }
    }
}

impl Turn for Quad {
    unsafe fn block(from: *const f32, from_ld: usize, to: *mut f32, to_ld: usize) {
        for r in 0..Quad::W {
            for c in 0..Quad::W {
                // SAFETY: the caller's promise.
                unsafe { *to.add(c * to_ld + r) = *from.add(r * from_ld + c) }
            }
        }
    }
}

impl Crosswise for Quad {
    unsafe fn sums(v: &[Quad; 16]) -> Quad {
        let mut v = *v;
        // SAFETY: plain Rust runs on every CPU.
        unsafe {
            Quad::transpose(&mut v);
            let one = Quad::splat(1.0);
            one.mul_add(one.mul_add(v[0], v[1]), one.mul_add(v[2], v[3]))
        }
    }
}

/// Which product the lists are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `y = x wᵀ`: outputs are rows of the weight.
    Forward,
    /// `dx = dy w`: outputs are columns of the weight.
    Back,
}

/// Lists of a weight, and what a sum starts from.
#[derive(Clone, Copy)]
pub(crate) struct Lists<'a> {
    /// Outputs.
    pub(crate) n: usize,
    /// Inputs.
    pub(crate) k: usize,
    /// Chunks of all blocks of piece 0, of piece 1, and so on.
    chunks: &'a [u32],
    /// One value for each output, and zeros up to whole blocks.
    start: &'a [f32],
}

/// Words of a chunk of a weight with `k` inputs, every one kept.
fn chunk_len(k: usize) -> usize {
    COUPLES * (1 + PAIR * k.min(PIECE))
}

/// A product without inputs has one piece, in which all lists are empty.
fn pieces(k: usize) -> usize {
    k.div_ceil(PIECE).max(1)
}

/// Elements that [`prepare`] fills for `n` outputs and `k` inputs.
pub(crate) fn prepared_len(n: usize, k: usize) -> usize {
    n.next_multiple_of(OUT) + n.div_ceil(OUT) * pieces(k) * chunk_len(k)
}

/// Rows of sums of one strip.
fn sums_len(n: usize, k: usize) -> usize {
    if k <= PIECE { OUT } else { n.next_multiple_of(OUT) }
}

/// Strips of one task: as many as keep their sums in the second-level cache.
fn strips_of_task(n: usize, k: usize) -> usize {
    if k <= PIECE { 1 } else { (2048 / n.max(1)).clamp(1, 4) }
}

/// Workspace of one worker: a panel, as long as any 16-bit offset and one row reach, and the sums.
pub(crate) fn worker_len<K: ListKernel>(n: usize, k: usize) -> usize {
    (1 << 16) / 4 + K::STRIP * (1 + strips_of_task(n, k) * sums_len(n, k)) + ALIGN
}

/// Fills `prepared` with the lists of a weight and the bias of its outputs.
pub(crate) fn prepare<K: ListKernel>(c: &mut Call<'_>, side: Side, w: Weight<'_>, bias: Option<Weight<'_>>) {
    let (n, k) = outputs_and_inputs(side, &w);
    let (start, chunks) = c.prepared[..prepared_len(n, k)].split_at_mut(n.next_multiple_of(OUT));
    for (j, start) in start.iter_mut().enumerate() {
        *start = bias.filter(|_| j < n).map_or(0.0, |b| masked_value(&b, j));
    }
    let (blocks, len) = (n.div_ceil(OUT), chunk_len(k));
    let count = blocks * pieces(k);
    let chunks = MatMut::dense(bytemuck::cast_slice_mut::<f32, u32>(chunks), count, len);
    c.pool.rows(chunks.split(), 1, &mut [], |at, chunk, _| {
        // SAFETY: a kernel's variant runs where its instructions are.
        unsafe { K::list(side, &w, at / blocks * PIECE, at % blocks * OUT, chunk.data) }
    });
}

fn outputs_and_inputs(side: Side, w: &Weight<'_>) -> (usize, usize) {
    match side {
        Side::Forward => (w.w.rows, w.w.cols),
        Side::Back => (w.w.cols, w.w.rows),
    }
}

/// The product of `x` with the lists that [`prepare`] made.
pub(crate) fn product<K: ListKernel>(c: &mut Call<'_>, x: Mat<'_, f32>, mut y: MatMut<'_, f32>, after: Finish<'_>) {
    let (n, k) = (y.cols, x.cols);
    if y.rows == 0 || n == 0 {
        return;
    }
    let (start, chunks) = c.prepared[..prepared_len(n, k)].split_at(n.next_multiple_of(OUT));
    let lists = Lists { n, k, chunks: bytemuck::cast_slice(chunks), start };
    let len = worker_len::<K>(n, k) - ALIGN;
    // Neither way to cut changes a sum, so both may depend on the workers.
    let across = c.pool.workers() / y.rows.div_ceil(K::STRIP);
    let pays = y.rows.div_ceil(K::STRIP / 4) * n * k >= WORTH_SHARING;
    let by_outputs = pays && across.min(n.div_ceil(OUT)) > 1;
    if by_outputs {
        // Each worker turns x for itself, but walks its own lists with whole vectors.
        let tiles = SplitTiles::new(y.reborrow(), K::STRIP, n.div_ceil(across).next_multiple_of(OUT));
        c.pool.rows(tiles, 1, c.workers, |_, y, own| {
            let x = x.block(y.row, y.rows);
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::strips(Strips { x, lists, own: aligned(own, len), y }) }
        });
        if after.gelu.is_none() && after.slope.is_none() {
            return;
        }
    }
    let vector = K::STRIP / 4;
    let most = strips_of_task(n, k) * K::STRIP;
    let block = x.rows.div_ceil(c.pool.workers()).next_multiple_of(vector).clamp(vector, most);
    let Finish { gelu, slope } = after;
    c.pool.rows((y.split(), gelu.map(MatMut::split)), block, c.workers, |first, (mut y, mut gelu), own| {
        if !by_outputs {
            let x = x.block(first, y.rows);
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::strips(Strips { x, lists, own: aligned(own, len), y: y.reborrow().into() }) }
        }
        let all = 0..y.rows;
        finish::<K::Simd>(&mut y, &mut gelu, slope, first, all);
    });
}
