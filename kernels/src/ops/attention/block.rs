//! What forward and backward share: keys in lanes.
//!
//! A task is one head of one sequence. Keys go in chunks of [`CHUNK`], queries in tiles of `R` rows; the logits of a tile and a
//! chunk are a few vectors per query, so a mask of 64 bits says which of them count: visible keys and, for dropout, kept
//! ones. Keys that do not count may be NaN: they are masked where they are elements of a vector, and left out where they are a
//! term of a sum.
//!
//! ```text
//! product:   a[q, key]   = sum_j row[q, j] turned[j, key]   lanes: keys, order: j ascending
//! weighted:  out[q, i]   += sum_key a[q, key] row[key, i]   lanes: i, order: keys ascending, those up to q
//! gathered:  out[key, i] += sum_q a[q, key] row[q, i]       lanes: i, order: q ascending, those from the key on
//! ```

use super::Shape;
use crate::operand::Mat;
use crate::ops::dropout::Draw;
use crate::ops::vmath::Simd;

/// Keys of a chunk; a multiple of the rows of any tile, so that a tile ends in the chunk in which it begins.
pub(super) const CHUNK: usize = 64;

/// Rows of the largest tile.
pub(super) const ROWS: usize = 8;

/// Pitch of copied rows of one head.
pub(super) fn pitch(d: usize) -> usize {
    d.next_multiple_of(16)
}

/// Elements of a copy of the rows of one head; none if they are whole vectors where they are. Rows of long sequences are read
/// often and lie a page apart, so they are copied, too.
pub(super) fn copy_len(t: usize, d: usize) -> usize {
    if pitch(d) == d && t <= 2 * CHUNK { 0 } else { t * pitch(d) }
}

/// Rows of whole vectors: what one head has of each token of its sequence.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    ld: usize,
}

impl<'a> Rows<'a> {
    /// From a row on.
    #[inline(always)]
    pub(super) fn from(self, row: usize) -> Rows<'a> {
        Rows { data: &self.data[row * self.ld..], ld: self.ld }
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) shape: Shape,
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) valid: &'a [u8],
    pub(super) draw: Option<Draw>,
}

impl<'a> Head<'a> {
    /// Number `task` of all heads of all sequences, if there are as many.
    pub(super) fn new(shape: Shape, task: usize, valid: Mat<'a, u8>, draw: Option<Draw>) -> Option<Head<'a>> {
        let (sequence, head) = (task / shape.heads, task % shape.heads);
        (sequence < valid.rows).then(|| Head { shape, sequence, head, valid: valid.row(sequence), draw })
    }

    /// What the worker does next if all are as fast; `None` where a head is so large that it would fill the cache.
    pub(super) fn next(self, workers: usize, valid: Mat<'a, u8>) -> Option<Head<'a>> {
        let Shape { heads, t, d } = self.shape;
        let task = self.sequence * heads + self.head + workers;
        Head::new(self.shape, task, valid, self.draw).filter(|_| t * d <= 8192)
    }

    /// Elements of the head in part 0 (q or any other), 1 (k) or 2 (v) of a token.
    #[inline(always)]
    pub(super) fn row<'m>(&self, of: Mat<'m, f32>, token: usize, part: usize) -> &'m [f32] {
        &of.row(self.sequence * self.shape.t + token)[self.shape.columns(part, self.head)]
    }

    /// What the head has in a part of every token: in place if that is whole vectors, else copied.
    #[inline(always)]
    pub(super) fn rows<'m, S: Simd>(&self, s: S, of: Mat<'m, f32>, part: usize, copy_to: &'m mut [f32]) -> Rows<'m> {
        let Shape { t, d, .. } = self.shape;
        if copy_to.is_empty() {
            let first = self.sequence * t * of.ld + self.shape.columns(part, self.head).start;
            return Rows { data: &of.data[first..], ld: of.ld };
        }
        for (token, to) in copy_to.chunks_exact_mut(pitch(d)).enumerate() {
            copy(s, self.row(of, token, part), to);
        }
        Rows { data: copy_to, ld: pitch(d) }
    }

    /// Bits of the keys of the chunk from `first` that are not hidden.
    #[inline(always)]
    pub(super) fn valid_bits(&self, first: usize) -> u64 {
        let flags = self.valid[first..].iter().take(CHUNK);
        flags.enumerate().fold(0, |bits, (at, flag)| bits | u64::from(*flag != 0) << at)
    }

    /// Kept bits of the keys from `chunk` on for `count` queries from `first`; those that a query does not see are anything.
    #[inline(always)]
    pub(super) fn draw<S: Simd>(&self, s: S, first: usize, count: usize, chunk: usize, kept: &mut [u64]) {
        let Some(random) = self.draw.and_then(|draw| draw.random()) else { return kept.fill(0) };
        // Bytes of bits, a block of random numbers each; a chunk may begin in the middle of one.
        let mut bytes = [[0u8; 16]; 8];
        let (mut low, mut high, mut drawn) = ([0u32; 16], [0u32; 16], [0u32; 16]);
        let (mut place, mut waiting) = ([(0usize, 0usize); 16], 0);
        for query in 0..count {
            let element = self.shape.element(self.sequence, self.head, first + query) + chunk as u64;
            let seen = CHUNK.min(first + query + 1 - chunk);
            let blocks = (element as usize % 8 + seen).div_ceil(8);
            for block in 0..blocks {
                let number = element / 8 + block as u64;
                (low[waiting], high[waiting]) = (number as u32, (number >> 32) as u32);
                place[waiting] = (query, block);
                waiting += 1;
                if waiting == S::WIDTH || (query + 1 == count && block + 1 == blocks) {
                    s.reached(&low, &high, random, &mut drawn);
                    for ((query, block), byte) in place.iter().zip(&drawn).take(waiting) {
                        bytes[*query][*block] = *byte as u8;
                    }
                    waiting = 0;
                }
            }
        }
        for (query, (bytes, kept)) in bytes.iter().zip(kept).enumerate().take(count) {
            let element = self.shape.element(self.sequence, self.head, first + query) + chunk as u64;
            *kept = (u128::from_le_bytes(*bytes) >> (element % 8)) as u64;
        }
    }
}

/// Bits of the keys of a chunk from `chunk` that do not lie ahead of a query.
#[inline(always)]
pub(super) fn up_to(query: usize, chunk: usize) -> u64 {
    match query - chunk {
        at if at < CHUNK => u64::MAX >> (CHUNK - 1 - at),
        _ => u64::MAX,
    }
}

/// Those of the bits of a chunk that belong to vector `n`.
#[inline(always)]
pub(super) fn of_vector<S: Simd>(bits: u64, n: usize) -> u32 {
    (bits >> (n * S::WIDTH)) as u32
}

/// `to` is `from` and zeros.
#[inline(always)]
pub(super) fn copy<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks(S::WIDTH).zip(to.chunks_exact_mut(S::WIDTH)) {
        s.store(if from.len() == S::WIDTH { s.load(from) } else { s.load_part(from) }, to);
    }
    to[from.len()..].fill(0.0);
}

/// The elements of a padded row that there are, times `factor`.
#[inline(always)]
pub(super) fn store_head<S: Simd>(s: S, from: &[f32], factor: f32, to: &mut [f32]) {
    let factor = s.splat(factor);
    for (from, to) in from.chunks_exact(S::WIDTH).zip(to.chunks_mut(S::WIDTH)) {
        let v = s.mul(s.load(from), factor);
        if to.len() == S::WIDTH { s.store(v, to) } else { s.store_part(v, to) }
    }
}

/// Turns `count` rows of `d` elements, a chunk or less: `to[j * CHUNK + row]`.
#[inline(always)]
pub(super) fn turn<S: Simd>(s: S, from: Rows<'_>, count: usize, d: usize, to: &mut [f32]) {
    for row in (0..count).step_by(S::WIDTH) {
        let rows = S::WIDTH.min(count - row);
        for col in (0..d).step_by(S::WIDTH) {
            let cols = S::WIDTH.min(d - col);
            s.turn(&from.data[row * from.ld + col..], from.ld, rows, cols, &mut to[col * CHUNK + row..], CHUNK);
        }
    }
}

/// `a[r, key] = sum_j rows[r, j] turned[j, key]` for the first `vectors` vectors of keys; `a` has pitch [`CHUNK`]. There are
/// `count` rows; the last one stands for those beyond.
#[inline(always)]
pub(super) fn product<S: Simd, const R: usize, const N: usize>(
    s: S,
    rows: Rows<'_>,
    count: usize,
    turned: &[f32],
    vectors: usize,
    a: &mut [f32],
) {
    let d = turned.len() / CHUNK;
    let mut own: [&[f32]; R] = [&[]; R];
    for (r, own) in own.iter_mut().enumerate() {
        *own = &rows.data[r.min(count - 1) * rows.ld..][..d];
    }
    let mut n = 0;
    while vectors - n >= N {
        product_tile::<S, R, N>(s, own, &turned[n * S::WIDTH..], &mut a[n * S::WIDTH..]);
        n += N;
    }
    while n < vectors {
        product_tile::<S, R, 1>(s, own, &turned[n * S::WIDTH..], &mut a[n * S::WIDTH..]);
        n += 1;
    }
}

#[inline(always)]
fn product_tile<S: Simd, const R: usize, const N: usize>(s: S, own: [&[f32]; R], turned: &[f32], a: &mut [f32]) {
    let mut acc = [[s.splat(0.0); N]; R];
    // Four columns at a time: bounds are looked at once for each.
    let (mut fours, mut last): ([&[[f32; 4]]; R], [&[f32]; R]) = ([&[]; R], [&[]; R]);
    for r in 0..R {
        (fours[r], last[r]) = own[r].as_chunks();
    }
    let whole = fours[0].len();
    for (at, b) in turned.chunks(4 * CHUNK).enumerate().take(whole) {
        let mut x = [&[0.0; 4]; R];
        for r in 0..R {
            x[r] = &fours[r][at];
        }
        for j in 0..4 {
            let b: [S::V; N] = load_row(s, &b[j * CHUNK..]);
            for r in 0..R {
                let x = s.splat(x[r][j]);
                for n in 0..N {
                    acc[r][n] = s.madd(x, b[n], acc[r][n]);
                }
            }
        }
    }
    for j in 0..last[0].len() {
        let b: [S::V; N] = load_row(s, &turned[(4 * whole + j) * CHUNK..]);
        for r in 0..R {
            let x = s.splat(last[r][j]);
            for n in 0..N {
                acc[r][n] = s.madd(x, b[n], acc[r][n]);
            }
        }
    }
    for r in 0..R {
        store_row(s, &acc[r], &mut a[r * CHUNK..]);
    }
}

/// `out[r, i] += sum_key a[r, key] rows[key, i]` over keys of a chunk whose bits are set in `keys`: those up to `whole` for all
/// rows of a tile, and one more for each row after the first.
#[inline(always)]
pub(super) fn weighted<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    rows: Rows<'_>,
    keys: u64,
    whole: usize,
    wide: usize,
    out: &mut [f32],
) {
    let mut i = 0;
    while wide - i >= N * S::WIDTH {
        weighted_tile::<S, R, N>(s, a, rows, keys, whole, i, wide, out);
        i += N * S::WIDTH;
    }
    while i < wide {
        weighted_tile::<S, R, 1>(s, a, rows, keys, whole, i, wide, out);
        i += S::WIDTH;
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices in, one out, and what of them")]
fn weighted_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    rows: Rows<'_>,
    keys: u64,
    whole: usize,
    i: usize,
    wide: usize,
    out: &mut [f32],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    for r in 0..R {
        acc[r] = load_row(s, &out[r * wide + i..]);
    }
    let a: &[[f32; CHUNK]] = &a.as_chunks().0[..R];
    let mut left = keys & up_to(whole, 0);
    while left != 0 {
        let key = left.trailing_zeros() as usize;
        left &= left - 1;
        let row: [S::V; N] = load_row(s, &rows.data[key * rows.ld + i..]);
        for r in 0..R {
            let x = s.splat(a[r][key]);
            for n in 0..N {
                acc[r][n] = s.madd(x, row[n], acc[r][n]);
            }
        }
    }
    for after in 1..R {
        let key = whole + after;
        if key < CHUNK && keys >> key & 1 == 1 {
            let row: [S::V; N] = load_row(s, &rows.data[key * rows.ld + i..]);
            for r in after..R {
                let x = s.splat(a[r][key]);
                for n in 0..N {
                    acc[r][n] = s.madd(x, row[n], acc[r][n]);
                }
            }
        }
    }
    for r in 0..R {
        store_row(s, &acc[r], &mut out[r * wide + i..]);
    }
}

/// `out[key, i] += sum_r a[r, key] rows[r, i]` for `count` rows of a tile: for all of them of the first `whole` keys, a
/// multiple of `R`, and for those from the key on of the next `R` if `diagonal`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices in, one out, and what of them")]
pub(super) fn gathered<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    rows: Rows<'_>,
    count: usize,
    whole: usize,
    diagonal: bool,
    wide: usize,
    out: &mut [f32],
) {
    let keys = if diagonal { whole + R } else { whole };
    for key in (0..keys).step_by(R) {
        let (a, out, diagonal) = (&a[key..], &mut out[key * wide..], key == whole);
        let mut i = 0;
        while wide - i >= N * S::WIDTH {
            gathered_tile::<S, R, N>(s, a, rows, count, diagonal, i, wide, out);
            i += N * S::WIDTH;
        }
        while i < wide {
            gathered_tile::<S, R, 1>(s, a, rows, count, diagonal, i, wide, out);
            i += S::WIDTH;
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices in, one out, and what of them")]
fn gathered_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    rows: Rows<'_>,
    count: usize,
    diagonal: bool,
    i: usize,
    wide: usize,
    out: &mut [f32],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    for r in 0..R {
        acc[r] = load_row(s, &out[r * wide + i..]);
    }
    if diagonal {
        for q in 0..R {
            if q < count {
                let (own, row): (&[f32], [S::V; N]) =
                    (&a[q * CHUNK..][..R], load_row(s, &rows.data[q * rows.ld + i..]));
                for r in 0..=q {
                    let x = s.splat(own[r]);
                    for n in 0..N {
                        acc[r][n] = s.madd(x, row[n], acc[r][n]);
                    }
                }
            }
        }
    } else {
        for (q, own) in a.chunks(CHUNK).enumerate().take(count) {
            let (own, row): (&[f32], [S::V; N]) = (&own[..R], load_row(s, &rows.data[q * rows.ld + i..]));
            for r in 0..R {
                let x = s.splat(own[r]);
                for n in 0..N {
                    acc[r][n] = s.madd(x, row[n], acc[r][n]);
                }
            }
        }
    }
    for r in 0..R {
        store_row(s, &acc[r], &mut out[r * wide + i..]);
    }
}

#[inline(always)]
fn load_row<S: Simd, const N: usize>(s: S, from: &[f32]) -> [S::V; N] {
    let from = &from[..N * S::WIDTH];
    let mut v = [s.splat(0.0); N];
    for (n, v) in v.iter_mut().enumerate() {
        *v = s.load(&from[n * S::WIDTH..]);
    }
    v
}

#[inline(always)]
fn store_row<S: Simd, const N: usize>(s: S, v: &[S::V; N], to: &mut [f32]) {
    let to = &mut to[..N * S::WIDTH];
    for n in 0..N {
        s.store(v[n], &mut to[n * S::WIDTH..]);
    }
}
