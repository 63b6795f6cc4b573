//! Strips of rows against all lists, written once over vectors of any width.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use super::turn::{Turn, turn_in, turn_out};
use super::{COUPLES, Lists, OUT, PAIR, PIECE, chunk_len, pieces};
use crate::operand::Mat;
use crate::ops::gemm::micro::Lanes;
use crate::par::TileMut;

/// `y = start + x listᵀ` for the rows of some strips and the outputs of some blocks.
pub(crate) struct Strips<'a> {
    pub(super) x: Mat<'a, f32>,
    pub(super) lists: Lists<'a>,
    /// Workspace of [`super::worker_len`].
    pub(super) own: &'a mut [f32],
    /// Begins with a block of outputs.
    pub(super) y: TileMut<'a>,
}

/// All strips meet one piece before the next, so that its lists come from the second-level cache.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn strips<L: Turn>(s: Strips<'_>) {
    let Strips { x, lists, own, mut y } = s;
    let pitch = 4 * L::W;
    assert!(x.rows == y.rows && x.cols == lists.k && y.col + y.cols <= lists.n, "lists of this product");
    // Whatever 16-bit offset a list holds, four vectors behind it are inside the panel.
    let (panel, sums) = own.split_at_mut((1 << 16) / 4 + pitch);
    panel[PIECE * pitch..][..pitch].fill(0.0);
    let pieces = pieces(lists.k);
    let sums_len = super::sums_len(lists.n, lists.k) * pitch;
    for piece in 0..pieces {
        let k0 = piece * PIECE;
        let depth = (lists.k - k0).min(PIECE);
        for (first, sums) in (0..x.rows).step_by(pitch).zip(sums.chunks_exact_mut(sums_len)) {
            let rows = (x.rows - first).min(pitch);
            let x = x.block(first, rows);
            let y = y.block(first, rows);
            // SAFETY: the caller has the instructions.
            unsafe {
                match rows.div_ceil(L::W) {
                    1 => piece_of::<L, 1>(x, lists, piece, depth, panel, sums, y),
                    2 => piece_of::<L, 2>(x, lists, piece, depth, panel, sums, y),
                    3 => piece_of::<L, 3>(x, lists, piece, depth, panel, sums, y),
                    _ => piece_of::<L, 4>(x, lists, piece, depth, panel, sums, y),
                }
            }
        }
    }
}

/// One piece of one strip of `Q` vectors.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn piece_of<L: Turn, const Q: usize>(
    x: Mat<'_, f32>,
    lists: Lists<'_>,
    piece: usize,
    depth: usize,
    panel: &mut [f32],
    sums: &mut [f32],
    mut y: TileMut<'_>,
) {
    let Lists { n, k, chunks, start } = lists;
    let (blocks, len) = (n.div_ceil(OUT), chunk_len(k));
    let (first, last) = (piece == 0, piece + 1 == pieces(k));
    // The last vector takes whole blocks, too, if there are rows before it: it computes some of them again, to the same bits.
    let row = |q: usize| (q * L::W).min(x.rows.saturating_sub(L::W));
    // SAFETY: the caller has the instructions.
    unsafe { turn_in::<L, Q>(&x, row, piece * PIECE, depth, 4 * L::W, panel) }
    // Rows behind this strip, which may belong to another task.
    let next = x.data.get(4 * L::W * x.ld + piece * PIECE..).unwrap_or_default();
    let mine = y.cols.div_ceil(OUT);
    for nth in 0..mine {
        let (block, col) = (y.col / OUT + nth, nth * OUT);
        let (n0, count) = (block * OUT, (y.cols - col).min(OUT));
        // With one piece the sums of a block are turned out before the next block needs their place.
        let at = if first && last { 0 } else { col * 4 * L::W };
        let sums = &mut sums[at..][..OUT * 4 * L::W];
        let begin = first.then(|| &start[n0..][..OUT]);
        let (heads, pairs) = chunks[(piece * blocks + block) * len..][..len].split_at(COUPLES);
        // SAFETY: the caller has the instructions.
        unsafe {
            let ahead = Ahead { y: last.then_some((&y, col)), next, ld: x.ld, part: (nth, mine) };
            add_lists::<L, Q>(heads, pairs, begin, panel, sums, ahead);
            if last {
                turn_out::<L, Q>(sums, 4 * L::W, count, col, row, &mut y);
            }
        }
    }
}

/// What is needed soon: the lines of y that this block of outputs ends in, and its share of the next strip of x. Behind
/// the last strip nothing is asked for.
struct Ahead<'a> {
    /// And the first column.
    y: Option<(&'a TileMut<'a>, usize)>,
    /// The next strip of x from the piece's first column on.
    next: &'a [f32],
    ld: usize,
    /// This share, of so many.
    part: (usize, usize),
}

impl Ahead<'_> {
    /// Asks for what one couple of the block has time for.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`.
    #[inline(always)]
    unsafe fn fetch<L: Lanes>(&self, couple: usize) {
        const LINE: usize = 16;
        let pitch = 4 * L::W;
        if self.next.is_empty() {
            return;
        }
        // SAFETY: fetching touches nothing, whatever the address.
        unsafe {
            if let Some((y, n0)) = self.y {
                for row in couple * pitch / COUPLES..(couple + 1) * pitch / COUPLES {
                    let line = y.near(row, n0).cast_const();
                    L::fetch(line);
                    L::fetch(line.wrapping_add(LINE));
                }
            }
            let (block, blocks) = self.part;
            let each = (pitch * PIECE / LINE).div_ceil(blocks * COUPLES);
            let first = (block * COUPLES + couple) * each;
            for line in first..first + each {
                let (row, col) = (line / (PIECE / LINE), line % (PIECE / LINE) * LINE);
                L::fetch_far(self.next.as_ptr().wrapping_add(row * self.ld + col));
            }
        }
    }
}

/// Adds to the sums of one block of outputs what the lists of one piece hold. With `begin` the sums start there.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn add_lists<L: Lanes, const Q: usize>(
    heads: &[u32],
    mut pairs: &[u32],
    begin: Option<&[f32]>,
    panel: &[f32],
    sums: &mut [f32],
    ahead: Ahead<'_>,
) {
    let pitch = 4 * L::W;
    assert!(panel.len() >= (1 << 16) / 4 + pitch && sums.len() >= OUT * pitch, "workspace of a strip");
    let panel: *const u8 = panel.as_ptr().cast();
    for (nth, head) in heads.iter().enumerate() {
        let (count, n, m) = ((head >> 16) as usize, *head as usize % OUT, (head >> 8) as usize % OUT);
        let (list, rest) = pairs.split_at(count * PAIR);
        pairs = rest;
        // SAFETY: offsets have 16 bits, so that they and four vectors lie in the panel; n and m are below OUT; `list`
        // holds `count` pairs.
        unsafe {
            ahead.fetch::<L>(nth);
            let (to_n, to_m) = (sums.as_mut_ptr().add(n * pitch), sums.as_mut_ptr().add(m * pitch));
            let mut s = [L::splat(0.0); Q];
            let mut t = [L::splat(0.0); Q];
            match begin {
                Some(begin) => (s, t) = ([L::splat(begin[n]); Q], [L::splat(begin[m]); Q]),
                None => {
                    for q in 0..Q {
                        (s[q], t[q]) = (L::load(to_n.add(q * L::W)), L::load(to_m.add(q * L::W)));
                    }
                }
            }
            let mut pair = list.as_ptr();
            for _ in 0..count {
                let offsets = *pair as usize;
                let (a, b) = (panel.add(offsets & 0xFFFF).cast::<f32>(), panel.add(offsets >> 16).cast::<f32>());
                let (v, w) = (L::splat(f32::from_bits(*pair.add(1))), L::splat(f32::from_bits(*pair.add(2))));
                for q in 0..Q {
                    s[q] = v.mul_add(L::load(a.add(q * L::W)), s[q]);
                    t[q] = w.mul_add(L::load(b.add(q * L::W)), t[q]);
                }
                pair = pair.add(PAIR);
            }
            for q in 0..Q {
                s[q].store(to_n.add(q * L::W));
                t[q].store(to_m.add(q * L::W));
            }
        }
    }
}
