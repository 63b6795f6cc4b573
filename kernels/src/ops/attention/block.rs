//! What forward and backward share: queries in lanes.
//!
//! A task is one head of one sequence. Queries go in blocks of `N` vectors, one query per element, so that a softmax
//! over keys is a chain of vector operations and a key that is hidden or lies ahead is one that is left out. Only
//! queries are transposed. The visible keys and values are copied side by side; scores of a block exist for
//! [`CHUNK`] keys at a time.
//!
//! ```text
//! product:  a[key, q]  = sum_j row[key, j] turned[j, q]     lanes: q, order: j ascending
//! values:   out[i, q] += sum_key row[key, i] a[key, q]      lanes: q, order: keys ascending, those up to q
//! columns:  out[key, i] += sum_q a[key, q] row[q, i]        lanes: i, order: q ascending, those from the key on
//! ```

use super::Shape;
use crate::operand::Mat;
use crate::ops::dropout::Draw;
use crate::ops::vmath::{Random, Simd};

/// Visible keys whose scores are in the workspace at once.
pub(super) const CHUNK: usize = 64;
/// Rows that a tile may hang over the last key; at least its rows.
pub(super) const OVERHANG: usize = 8;
/// Tokens asked for with each tile of scores: in a short sequence all of them before the last tile. Without this a third
/// of the time is waiting for rows of one head, which lie far apart.
pub(super) const FETCH: usize = 6;
/// Queries of the largest block.
pub(super) const QUERIES: usize = 32;

/// Pitch of rows of one head.
pub(super) fn pitch(d: usize) -> usize {
    d.next_multiple_of(16)
}

/// Words of kept bits: a bit per key of the sequence for each query of a block.
pub(super) fn kept_words(t: usize) -> usize {
    (t / 32 + 1) * QUERIES
}

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) shape: Shape,
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) qkv: Mat<'a, f32>,
    pub(super) valid: &'a [u8],
    pub(super) draw: Option<Draw>,
}

impl<'a> Head<'a> {
    /// Elements of part 0 (q), 1 (k) or 2 (v) of a token.
    #[inline(always)]
    pub(super) fn row(&self, token: usize, part: usize) -> &'a [f32] {
        &self.qkv.row(self.sequence * self.shape.t + token)[self.shape.columns(part, self.head)]
    }

    /// The head of the task that this worker takes next if all are as fast; `None` at the end, and where a head is so large
    /// that it would fill the cache.
    pub(super) fn next(self, workers: usize, valid: Mat<'a, u8>) -> Option<Head<'a>> {
        let Shape { heads, t, d } = self.shape;
        let task = self.sequence * heads + self.head + workers;
        let (sequence, head) = (task / heads, task % heads);
        let fits = t * d <= 8192;
        (fits && sequence < valid.rows).then(|| Head { sequence, head, valid: valid.row(sequence), ..self })
    }

    /// Asks for the query, key and value of a token.
    #[inline(always)]
    pub(super) fn fetch<S: Simd>(&self, s: S, token: usize) {
        for part in 0..3 {
            s.fetch(self.row(token, part));
        }
    }

    /// Copies the visible keys and values side by side; returns their number. `at` gets their tokens, and then one that
    /// never comes for every row a tile may hang over.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(&self, s: S, at: &mut [u32], k: &mut [f32], v: &mut [f32]) -> usize {
        let wide = pitch(self.shape.d);
        let mut count = 0;
        for token in (0..self.shape.t).filter(|token| self.valid[*token] != 0) {
            at[count] = token as u32;
            copy(s, self.row(token, 1), &mut k[count * wide..][..wide]);
            copy(s, self.row(token, 2), &mut v[count * wide..][..wide]);
            count += 1;
        }
        at[count..][..OVERHANG].fill(u32::MAX);
        count
    }

    /// Kept bits of the keys below `end` for `count` queries from `first`: bit `p % 32` of word
    /// `p / 32 * pitch + query - first`.
    #[inline(always)]
    pub(super) fn draw<S: Simd>(&self, s: S, first: usize, count: usize, end: usize, kept: &mut [u32], pitch: usize) {
        let Some(random) = self.draw.and_then(|draw| draw.random()) else { return kept.fill(0) };
        for lane in (0..count).step_by(S::WIDTH) {
            let (mut number, mut skip) = ([0u64; 16], [0u32; 16]);
            for i in 0..S::WIDTH {
                let element = self.shape.element(self.sequence, self.head, first + lane + i);
                (number[i], skip[i]) = (element / 8, (element % 8) as u32);
            }
            // No query of these sees a key after the last of them.
            let end = end.min(first + lane + S::WIDTH);
            let blocks = (end + 7).div_ceil(8);
            let mut this = stream(s, random, &number, 0, blocks);
            for at in 0..end.div_ceil(32) {
                let next = stream(s, random, &number, at + 1, blocks);
                let to = &mut kept[at * pitch + lane..][..S::WIDTH];
                for i in 0..S::WIDTH {
                    to[i] = ((u64::from(next[i]) << 32 | u64::from(this[i])) >> skip[i]) as u32;
                }
                this = next;
            }
        }
    }
}

/// Word `at` of the bits of the blocks from `number`, of which `blocks` are drawn.
#[inline(always)]
fn stream<S: Simd>(s: S, random: Random, number: &[u64; 16], at: usize, blocks: usize) -> [u32; 16] {
    let (mut word, mut byte, mut low, mut high) = ([0; 16], [0; 16], [0; 16], [0; 16]);
    for block in 4 * at..blocks.min(4 * at + 4) {
        for i in 0..S::WIDTH {
            let number = number[i] + block as u64;
            (low[i], high[i]) = (number as u32, (number >> 32) as u32);
        }
        s.reached(&low, &high, random, &mut byte);
        for i in 0..S::WIDTH {
            word[i] |= byte[i] << (8 * (block % 4));
        }
    }
    word
}

/// `to` is `from` and zeros.
#[inline(always)]
pub(super) fn copy<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks(S::WIDTH).zip(to.chunks_exact_mut(S::WIDTH)) {
        s.store(if from.len() == S::WIDTH { s.load(from) } else { s.load_part(from) }, to);
    }
    to[from.len()..].fill(0.0);
}

/// Transposes `count` rows of `cols` elements into columns of `to`.
#[inline(always)]
pub(super) fn turn<S: Simd>(s: S, from: &[f32], ld: usize, count: usize, cols: usize, to: &mut [f32], to_ld: usize) {
    for r in (0..count).step_by(S::WIDTH) {
        for c in (0..cols).step_by(S::WIDTH) {
            let (rows, cols) = (S::WIDTH.min(count - r), S::WIDTH.min(cols - c));
            s.turn(&from[r * ld + c..], ld, rows, cols, &mut to[c * to_ld + r..], to_ld);
        }
    }
}

/// First element of a vector of queries from `first` that may see the key of token `at`.
#[inline(always)]
pub(super) fn first_lane(at: u32, first: usize) -> usize {
    (at as usize).saturating_sub(first)
}

/// `acc[r][n] = sum_j rows[r][j] turned[j, n]` for `depth` values of `j`.
#[inline(always)]
pub(super) fn product<S: Simd, const R: usize, const N: usize>(
    s: S,
    rows: &[f32],
    wide: usize,
    depth: usize,
    turned: &[f32],
    ld: usize,
) -> [[S::V; N]; R] {
    let mut acc = [[s.splat(0.0); N]; R];
    let mut own: [&[f32]; R] = [&[]; R];
    for (r, own) in own.iter_mut().enumerate() {
        *own = &rows[r * wide..][..depth];
    }
    for (j, b) in turned.chunks(ld).enumerate().take(depth) {
        let b: [S::V; N] = load_row(s, b);
        for r in 0..R {
            let x = s.splat(own[r][j]);
            for n in 0..N {
                acc[r][n] = s.madd(x, b[n], acc[r][n]);
            }
        }
    }
    acc
}

/// Rows of keys or values and their tokens.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) wide: usize,
    pub(super) at: &'a [u32],
}

/// `out[i, q] += sum_key rows[key, i] a[key, q]` for a block of queries from `first`, all `wide` values of `i`.
#[inline(always)]
pub(super) fn values<S: Simd, const R: usize, const N: usize>(
    s: S,
    rows: Rows<'_>,
    a: &[f32],
    first: usize,
    out: &mut [f32],
) {
    let ld = N * S::WIDTH;
    let Rows { data, wide, at } = rows;
    // Every query of the block sees these.
    let whole = at.partition_point(|token| *token as usize <= first);
    for i in (0..wide).step_by(R) {
        let out = &mut out[i * ld..][..R * ld];
        let mut acc = [[s.splat(0.0); N]; R];
        for r in 0..R {
            acc[r] = load_row(s, &out[r * ld..]);
        }
        for (row, a) in data.chunks(wide).zip(a.chunks(ld)).take(whole) {
            let (row, a): (&[f32], [S::V; N]) = (&row[i..][..R], load_row(s, a));
            for r in 0..R {
                let x = s.splat(row[r]);
                for n in 0..N {
                    acc[r][n] = s.madd(x, a[n], acc[r][n]);
                }
            }
        }
        for n in 0..N {
            let first = first + n * S::WIDTH;
            let mut key = whole;
            while key < at.len() && first_lane(at[key], first) < S::WIDTH {
                // A value that lies ahead is left out, not multiplied by zero: it may be NaN.
                let lane = first_lane(at[key], first);
                let (row, a) = (&data[key * wide + i..][..R], s.load(&a[key * ld + n * S::WIDTH..]));
                for r in 0..R {
                    acc[r][n] = s.upper(lane, s.madd(s.splat(row[r]), a, acc[r][n]), acc[r][n]);
                }
                key += 1;
            }
        }
        for r in 0..R {
            store_row(s, &acc[r], &mut out[r * ld..]);
        }
    }
}

/// `out[key, i] += sum_q a[key, q] rows[q, i]` for all keys `at`, and `count` queries from `first`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices in and one out")]
pub(super) fn columns<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    ld: usize,
    at: &[u32],
    first: usize,
    count: usize,
    rows: &[f32],
    wide: usize,
    out: &mut [f32],
) {
    for key in (0..at.len()).step_by(R) {
        let (a, out) = (&a[key * ld..], &mut out[key * wide..]);
        let at = &at[key..at.len().min(key + R)];
        let mut i = 0;
        while wide - i >= N * S::WIDTH {
            columns_tile::<S, R, N>(s, a, ld, at, first, count, &rows[i..], wide, &mut out[i..]);
            i += N * S::WIDTH;
        }
        while i < wide {
            columns_tile::<S, R, 1>(s, a, ld, at, first, count, &rows[i..], wide, &mut out[i..]);
            i += S::WIDTH;
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices in and one out")]
fn columns_tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &[f32],
    ld: usize,
    at: &[u32],
    first: usize,
    count: usize,
    rows: &[f32],
    wide: usize,
    out: &mut [f32],
) {
    let mut acc = [[s.splat(0.0); N]; R];
    let mut own: [&[f32]; R] = [&[]; R];
    for r in 0..R {
        acc[r] = load_row(s, &out[r * wide..]);
        own[r] = &a[r * ld..][..count];
    }
    let start = first_lane(at[0], first).min(count);
    let whole = first_lane(at[at.len() - 1], first).min(count);
    for q in start..whole {
        let row: [S::V; N] = load_row(s, &rows[q * wide..]);
        for r in 0..R {
            if r < at.len() && at[r] as usize <= first + q {
                let x = s.splat(own[r][q]);
                for n in 0..N {
                    acc[r][n] = s.madd(x, row[n], acc[r][n]);
                }
            }
        }
    }
    for q in whole..count {
        let row: [S::V; N] = load_row(s, &rows[q * wide..]);
        for r in 0..R {
            let x = s.splat(own[r][q]);
            for n in 0..N {
                acc[r][n] = s.madd(x, row[n], acc[r][n]);
            }
        }
    }
    for r in 0..R {
        // Rows past `at` may be those of later keys, and zero times NaN is not zero.
        if r < at.len() {
            store_row(s, &acc[r], &mut out[r * wide..]);
        }
    }
}

#[inline(always)]
pub(super) fn load_row<S: Simd, const N: usize>(s: S, from: &[f32]) -> [S::V; N] {
    let from = &from[..N * S::WIDTH];
    let mut v = [s.splat(0.0); N];
    for (n, v) in v.iter_mut().enumerate() {
        *v = s.load(&from[n * S::WIDTH..]);
    }
    v
}

#[inline(always)]
pub(super) fn store_row<S: Simd, const N: usize>(s: S, v: &[S::V; N], to: &mut [f32]) {
    let to = &mut to[..N * S::WIDTH];
    for n in 0..N {
        s.store(v[n], &mut to[n * S::WIDTH..]);
    }
}
