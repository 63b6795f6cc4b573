//! `dyᵀ x` at kept entries alone: for a mask that no longer changes.
//!
//! ```text
//!   dy, x rows of a strip ── turned ──► dyT[o, ROWS], panel[SPAN, ROWS]
//!   kept (o, j): lanes = sum over vectors of dyT[o] * panel[j]      the vectors of dyT[o] stay in registers
//!   lanes of W entries ── summed crosswise ──► W sums at once, added to the entries in list order
//! ```
//! Order of a sum: lanes first over the vectors of a strip, then crosswise, then strips ascending in each of at most
//! [`PARTS`] parts of the rows, then parts ascending.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use super::turn::{Turn, turn_in};
use super::{ListKernel, OUT};
use crate::operand::{BitMat, Mat, MatMut};
use crate::ops::gemm::micro::{Lanes, low_bits};
use crate::ops::gemm::product::{ALIGN, aligned};
use crate::par::Pool;

/// Inputs of a piece: with AVX-512 its panel is 32 KiB.
const SPAN: usize = 64;
/// Vectors of a strip.
const VECTORS: usize = 8;
/// Most parts of the rows, which go to different workers.
const PARTS: usize = 4;
/// Fewest strips of a part.
const PART_STRIPS: usize = 4;
/// Entries whose lanes wait to be summed: those left over from an output and those of the next one fit.
const WAITING: usize = 128;

/// Vectors that are summed crosswise.
///
/// # Safety
/// The CPU has the instruction set of the implementing type.
pub(crate) trait Crosswise: Turn {
    /// Lane `n` of the result is the sum of the lanes of vector `n`, for the first `W` vectors.
    unsafe fn sums(v: &[Self; 16]) -> Self;
}

/// Entries of a mask, in chunks of [`SPAN`] inputs and [`OUT`] outputs.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a> {
    n: usize,
    k: usize,
    /// For each chunk, where its sums begin, and at the end how many there are: chunks are padded to whole vectors.
    base: &'a [u32],
    /// For each chunk and output of it, where its list begins in the chunk; then row offsets of the panel in bytes.
    chunks: &'a [u32],
}

const CHUNK: usize = OUT + 1 + OUT * SPAN;

fn chunk_count(n: usize, k: usize) -> usize {
    n.div_ceil(OUT) * k.div_ceil(SPAN)
}

/// Sums of one part, padding included, for any mask.
fn sums_len(n: usize, k: usize) -> usize {
    n * k + chunk_count(n, k) * ALIGN
}

/// Elements that [`prepare`] fills.
pub(crate) fn prepared_len(n: usize, k: usize) -> usize {
    chunk_count(n, k) * (1 + CHUNK) + 1
}

/// Elements shared by all workers.
pub(crate) fn shared_len<K: ListKernel>(rows: usize, n: usize, k: usize) -> usize {
    parts::<K>(rows).0 * sums_len(n, k)
}

/// Elements of one worker.
pub(crate) fn worker_len<K: ListKernel>(n: usize) -> usize {
    let rows = VECTORS * K::STRIP / 4;
    rows * (n + SPAN) + WAITING * K::STRIP / 4 + ALIGN
}

/// Parts, and strips of each.
fn parts<K: ListKernel>(rows: usize) -> (usize, usize) {
    let strips = rows.div_ceil(VECTORS * K::STRIP / 4).max(1);
    let most = strips.div_ceil(PARTS).max(PART_STRIPS);
    (strips.div_ceil(most), most)
}

fn of<'a>(n: usize, k: usize, prepared: &'a [f32]) -> Entries<'a> {
    let words: &[u32] = bytemuck::cast_slice(&prepared[..prepared_len(n, k)]);
    let (base, chunks) = words.split_at(chunk_count(n, k) + 1);
    Entries { n, k, base, chunks }
}

/// Notes where the mask's entries are.
pub(crate) fn prepare<K: ListKernel>(pool: &Pool, mask: &BitMat<'_>, prepared: &mut [f32]) {
    let (n, k) = (mask.rows, mask.cols);
    let words: &mut [u32] = bytemuck::cast_slice_mut(&mut prepared[..prepared_len(n, k)]);
    let count = chunk_count(n, k);
    let (base, chunks) = words.split_at_mut(count + 1);
    let blocks = n.div_ceil(OUT);
    let pitch = VECTORS * K::STRIP;
    pool.rows(MatMut::dense(chunks, count, CHUNK).split(), 1, &mut [], |at, chunk, _| {
        let (k0, n0) = (at / blocks * SPAN, at % blocks * OUT);
        let (begins, offsets) = chunk.data.split_at_mut(OUT + 1);
        let mut len = 0;
        for (row, begin) in begins.iter_mut().enumerate() {
            *begin = len as u32;
            if row < OUT.min(n - n0) {
                for j in kept(mask, n0 + row, k0) {
                    offsets[len] = ((j - k0) * pitch) as u32;
                    len += 1;
                }
            }
        }
    });
    let mut end = 0;
    for (base, chunk) in base.iter_mut().zip(chunks.chunks_exact(CHUNK)) {
        *base = end;
        end += chunk[OUT].next_multiple_of(ALIGN as u32);
    }
    base[count] = end;
}

/// Columns of one piece that a mask row keeps, ascending.
fn kept<'a>(mask: &'a BitMat<'_>, row: usize, k0: usize) -> impl Iterator<Item = usize> + use<'a> {
    let words = mask.row(row);
    (k0 / 32..words.len().min((k0 + SPAN) / 32)).flat_map(move |word| {
        // Bits behind the last column may be anything.
        let mut bits = words[word] & low_bits(mask.cols - word * 32);
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| word * 32 + bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            bit
        })
    })
}

/// `dw = (dyᵀ x) ⊙ mask` after [`prepare`] of the mask.
pub(crate) fn outer<K: ListKernel>(
    pool: &Pool,
    dy: Mat<'_, f32>,
    x: Mat<'_, f32>,
    mask: &BitMat<'_>,
    prepared: &[f32],
    (shared, workers): (&mut [f32], &mut [f32]),
    dw: MatMut<'_, f32>,
) {
    let entries = of(mask.rows, mask.cols, prepared);
    if entries.n == 0 || entries.k == 0 {
        return;
    }
    let (count, strips) = parts::<K>(x.rows);
    let len = entries.base[chunk_count(entries.n, entries.k)] as usize;
    let rows = strips * VECTORS * K::STRIP / 4;
    let sums = &mut shared[..count * len];
    let own_len = worker_len::<K>(entries.n) - ALIGN;
    if len > 0 {
        pool.rows(MatMut::dense(&mut *sums, count, len).split(), 1, workers, |part, sums, own| {
            let first = part * rows;
            let count = (x.rows - first).min(rows);
            let (dy, x) = (dy.block(first, count), x.block(first, count));
            // SAFETY: a kernel's variant runs where its instructions are.
            unsafe { K::sample(Sample { dy, x, entries, own: aligned(own, own_len), sums: sums.data }) }
        });
    }
    let blocks = entries.n.div_ceil(OUT);
    pool.rows(dw.split(), OUT, &mut [], |first, mut dw, _| {
        for row in 0..dw.rows {
            let dw = dw.row(row);
            dw.fill(0.0);
            for piece in 0..entries.k.div_ceil(SPAN) {
                let at = piece * blocks + first / OUT;
                let begin = (entries.base[at] + entries.chunks[at * CHUNK + row]) as usize;
                for (nth, j) in kept(mask, first + row, piece * SPAN).enumerate() {
                    dw[j] = (0..count).fold(0.0, |sum, part| sum + sums[part * len + begin + nth]);
                }
            }
        }
    });
}

/// One part of the rows.
pub(crate) struct Sample<'a> {
    dy: Mat<'a, f32>,
    x: Mat<'a, f32>,
    entries: Entries<'a>,
    /// Workspace of [`worker_len`].
    own: &'a mut [f32],
    sums: &'a mut [f32],
}

/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn sample<L: Crosswise>(s: Sample<'_>) {
    let Sample { dy, x, entries, own, sums } = s;
    let Entries { n, k, base, chunks } = entries;
    let rows = VECTORS * L::W;
    let (turned, rest) = own.split_at_mut(n * rows);
    let (panel, waiting) = rest.split_at_mut(SPAN * rows);
    sums.fill(0.0);
    let blocks = n.div_ceil(OUT);
    for first in (0..x.rows).step_by(rows) {
        let row = |q| first + q * L::W;
        // SAFETY: the caller has the instructions.
        unsafe { turn_in::<L, VECTORS>(&dy, row, 0, n, rows, turned) }
        for piece in 0..k.div_ceil(SPAN) {
            let k0 = piece * SPAN;
            // SAFETY: the caller has the instructions.
            unsafe { turn_in::<L, VECTORS>(&x, row, k0, (k - k0).min(SPAN), rows, panel) }
            for block in 0..blocks {
                let at = piece * blocks + block;
                let sums = &mut sums[base[at] as usize..base[at + 1] as usize];
                let turned = &turned[block * OUT * rows..];
                let next = [next(&dy, first + rows, block * OUT), next(&x, first + rows, k0)];
                // SAFETY: the caller has the instructions.
                unsafe {
                    fetch::<L>(next, [dy.ld, x.ld], (piece, k.div_ceil(SPAN)), (block, blocks));
                    chunk::<L>(&chunks[at * CHUNK..][..CHUNK], turned, panel, waiting, sums);
                }
            }
        }
    }
}

/// Where column `col` of row `row` is or would be.
fn next(m: &Mat<'_, f32>, row: usize, col: usize) -> *const f32 {
    m.data.as_ptr().wrapping_add(row * m.ld + col)
}

/// Asks for this chunk's share of the next strip: of the columns of dy that its block turns, a part for every piece, and of
/// the columns of x that its piece turns, a part for every block.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn fetch<L: Lanes>(
    [dy, x]: [*const f32; 2],
    [dy_ld, x_ld]: [usize; 2],
    (piece, pieces): (usize, usize),
    (block, blocks): (usize, usize),
) {
    const LINE: usize = 16;
    let rows = VECTORS * L::W;
    // SAFETY: fetching touches nothing, whatever the address.
    unsafe {
        for row in rows * piece / pieces..rows * (piece + 1) / pieces {
            for line in 0..OUT / LINE {
                L::fetch_far(dy.wrapping_add(row * dy_ld + line * LINE));
            }
        }
        for row in rows * block / blocks..rows * (block + 1) / blocks {
            for line in 0..SPAN / LINE {
                L::fetch_far(x.wrapping_add(row * x_ld + line * LINE));
            }
        }
    }
}

/// Adds one strip's share to the sums of one chunk.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn chunk<L: Crosswise>(chunk: &[u32], turned: &[f32], panel: &[f32], waiting: &mut [f32], sums: &mut [f32]) {
    let rows = VECTORS * L::W;
    let (begins, offsets) = chunk.split_at(OUT + 1);
    assert!(panel.len() >= SPAN * rows && waiting.len() >= WAITING * L::W, "workspace of a sample");
    assert!(sums.len() >= (begins[OUT] as usize).next_multiple_of(L::W), "sums of a chunk are padded");
    let (mut made, mut summed) = (0, 0);
    for (row, turned) in turned.chunks_exact(rows).take(OUT).enumerate() {
        let list = &offsets[begins[row] as usize..begins[row + 1] as usize];
        // SAFETY: `turned` holds the vectors of a strip; a chunk has OUT * SPAN entries at most and its lists SPAN, so
        // that fewer than W + SPAN wait; by remainder and rounding an offset is that of a whole row of the panel.
        unsafe {
            let mut dy = [L::splat(0.0); VECTORS];
            for (q, v) in dy.iter_mut().enumerate() {
                *v = L::load(turned.as_ptr().add(q * L::W));
            }
            for offset in list {
                let x = panel.as_ptr().add(*offset as usize / 4 % (SPAN * rows) / rows * rows);
                let mut even = dy[0].mul(L::load(x));
                let mut odd = dy[1].mul(L::load(x.add(L::W)));
                for q in (2..VECTORS).step_by(2) {
                    even = dy[q].mul_add(L::load(x.add(q * L::W)), even);
                    odd = dy[q + 1].mul_add(L::load(x.add((q + 1) * L::W)), odd);
                }
                odd.mul_add(L::splat(1.0), even).store(waiting.as_mut_ptr().add(made % WAITING * L::W));
                made += 1;
            }
            while made - summed >= L::W {
                add_sums::<L>(waiting, summed, &mut sums[summed..][..L::W]);
                summed += L::W;
            }
        }
    }
    if made > summed {
        for at in made..summed + L::W {
            waiting[at % WAITING * L::W..][..L::W].fill(0.0);
        }
        // SAFETY: the caller has the instructions.
        unsafe { add_sums::<L>(waiting, summed, &mut sums[summed..][..L::W]) }
    }
}

/// # Safety
/// The CPU has the instructions of `L`; `waiting` holds `WAITING` vectors.
#[inline(always)]
unsafe fn add_sums<L: Crosswise>(waiting: &[f32], first: usize, sums: &mut [f32]) {
    assert!(sums.len() == L::W && waiting.len() >= WAITING * L::W, "one vector of sums");
    // SAFETY: places are taken modulo the number of vectors; `sums` is one vector.
    unsafe {
        let mut v = [L::splat(0.0); 16];
        for (n, v) in v[..L::W].iter_mut().enumerate() {
            *v = L::load(waiting.as_ptr().add((first + n) % WAITING * L::W));
        }
        L::sums(&v).mul_add(L::splat(1.0), L::load(sums.as_ptr())).store(sums.as_mut_ptr());
    }
}
