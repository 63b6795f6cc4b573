//! Outputs cut into blocks of rows that go to different workers.
#![expect(unsafe_code, reason = "lends disjoint parts of an output to other threads")]

use crate::operand::{BitMatMut, MatMut};
use std::marker::PhantomData;

/// Outputs that can be cut into blocks of rows.
pub trait Split: Sync {
    /// A block.
    type Part;

    /// Rows in all.
    fn rows(&self) -> usize;

    /// Rows `first .. first + rows`.
    ///
    /// # Safety
    /// Live parts must not overlap.
    unsafe fn part(&self, first: usize, rows: usize) -> Self::Part;
}

/// Rows of `row` units that start `ld` apart do not meet and end within `len`; the fields of a view are public, and
/// parts are handed to threads on the strength of them.
fn prove_apart(rows: usize, row: usize, ld: usize, len: usize) {
    let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(ld)?.checked_add(row));
    assert!(rows <= 1 || ld >= row, "rows of {row} units overlap at a distance of {ld}");
    assert!(end.is_some_and(|end| end <= len), "{rows} rows of {row} units, {ld} apart, leave {len}");
}

/// A matrix prepared for [`Pool::rows`](super::Pool::rows).
pub struct SplitMat<'a, T> {
    parts: Parts<'a, T>,
    rows: usize,
    cols: usize,
    ld: usize,
    group: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// Prepares the matrix for [`Pool::rows`](super::Pool::rows).
    pub fn split(self) -> SplitMat<'a, T> {
        self.split_groups(1)
    }

    /// The same, but one "row" of a block is a group of `group` rows (tokens of a step, rows of a sequence).
    ///
    /// # Panics
    /// If rows overlap or leave the data: a broken view, not bad input.
    pub fn split_groups(self, group: usize) -> SplitMat<'a, T> {
        debug_assert_eq!(self.rows % group.max(1), 0, "groups are whole");
        self.split_blocks(group)
    }

    /// The same, but the last group may have fewer rows.
    ///
    /// # Panics
    /// As [`MatMut::split_groups`].
    pub fn split_blocks(self, group: usize) -> SplitMat<'a, T> {
        let MatMut { data, rows, cols, ld } = self;
        prove_apart(rows, cols, ld, data.len());
        SplitMat { parts: Parts::new(data), rows, cols, ld, group: group.max(1) }
    }
}

impl<'a, T: Send> Split for SplitMat<'a, T> {
    type Part = MatMut<'a, T>;

    fn rows(&self) -> usize {
        self.rows.div_ceil(self.group)
    }

    unsafe fn part(&self, first: usize, rows: usize) -> MatMut<'a, T> {
        let first = first * self.group;
        let rows = (rows * self.group).min(self.rows - first);
        let len = if rows == 0 { 0 } else { (rows - 1) * self.ld + self.cols };
        // SAFETY: row ranges are disjoint by the caller's promise; by `prove_apart` so are these ranges.
        let data = unsafe { self.parts.range(first * self.ld, len) };
        MatMut { data, rows, cols: self.cols, ld: self.ld }
    }
}

/// A bit matrix prepared for [`Pool::rows`](super::Pool::rows).
pub struct SplitBits<'a> {
    parts: Parts<'a, u32>,
    rows: usize,
    cols: usize,
    ld: usize,
}

impl<'a> BitMatMut<'a> {
    /// Prepares the matrix for [`Pool::rows`](super::Pool::rows).
    ///
    /// # Panics
    /// If rows overlap or leave the data: a broken view, not bad input.
    pub fn split(self) -> SplitBits<'a> {
        let BitMatMut { words, rows, cols, ld } = self;
        prove_apart(rows, cols.div_ceil(32), ld, words.len());
        SplitBits { parts: Parts::new(words), rows, cols, ld }
    }
}

impl<'a> Split for SplitBits<'a> {
    type Part = BitMatMut<'a>;

    fn rows(&self) -> usize {
        self.rows
    }

    unsafe fn part(&self, first: usize, rows: usize) -> BitMatMut<'a> {
        let len = if rows == 0 { 0 } else { (rows - 1) * self.ld + self.cols.div_ceil(32) };
        // SAFETY: row ranges are disjoint by the caller's promise; by `prove_apart` so are these ranges.
        let words = unsafe { self.parts.range(first * self.ld, len) };
        BitMatMut { words, rows, cols: self.cols, ld: self.ld }
    }
}

/// A matrix cut into tiles of `height` x `width`, those of a row side by side, prepared for
/// [`Pool::rows`](super::Pool::rows) with one "row" per tile.
pub(crate) struct SplitTiles<'a> {
    parts: Parts<'a, f32>,
    rows: usize,
    cols: usize,
    ld: usize,
    height: usize,
    width: usize,
}

/// Some columns of some rows.
pub(crate) struct TileMut<'a> {
    data: *mut f32,
    /// Place in the whole matrix.
    pub(crate) row: usize,
    pub(crate) col: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    ld: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl<'a> SplitTiles<'a> {
    /// # Panics
    /// If rows overlap or leave the data: a broken view, not bad input.
    pub(crate) fn new(mat: MatMut<'a, f32>, height: usize, width: usize) -> SplitTiles<'a> {
        let MatMut { data, rows, cols, ld } = mat;
        prove_apart(rows, cols, ld, data.len());
        SplitTiles { parts: Parts::new(data), rows, cols, ld, height, width }
    }
}

impl<'a> Split for SplitTiles<'a> {
    type Part = TileMut<'a>;

    fn rows(&self) -> usize {
        self.rows.div_ceil(self.height) * self.cols.div_ceil(self.width)
    }

    unsafe fn part(&self, first: usize, rows: usize) -> TileMut<'a> {
        assert!(rows == 1 && first < self.rows(), "tiles go one by one");
        let across = self.cols.div_ceil(self.width);
        let (row, col) = (first / across * self.height, first % across * self.width);
        TileMut {
            // In bounds: the tile exists and rows end within the data (`prove_apart`).
            data: self.parts.data.wrapping_add(row * self.ld + col),
            row,
            col,
            rows: self.height.min(self.rows - row),
            cols: self.width.min(self.cols - col),
            ld: self.ld,
            owner: PhantomData,
        }
    }
}

impl<'a> From<MatMut<'a, f32>> for TileMut<'a> {
    /// # Panics
    /// If rows overlap or leave the data: a broken view, not bad input.
    fn from(mat: MatMut<'a, f32>) -> TileMut<'a> {
        let MatMut { data, rows, cols, ld } = mat;
        prove_apart(rows, cols, ld, data.len());
        TileMut { data: data.as_mut_ptr(), row: 0, col: 0, rows, cols, ld, owner: PhantomData }
    }
}

impl TileMut<'_> {
    /// Rows `first .. first + rows`.
    #[inline(always)]
    pub(crate) fn block(&mut self, first: usize, rows: usize) -> TileMut<'_> {
        assert!(first + rows <= self.rows, "rows exist");
        TileMut { data: self.near(first, 0), row: self.row + first, rows, owner: PhantomData, ..*self }
    }

    /// Where `rows` x `cols` elements begin, with the distance between their rows: writes to them are sound until the tile
    /// is used again.
    #[inline(always)]
    pub(crate) fn at(&mut self, (row, rows): (usize, usize), (col, cols): (usize, usize)) -> (*mut f32, usize) {
        assert!(row + rows <= self.rows && col + cols <= self.cols, "inside the tile");
        (self.near(row, col), self.ld)
    }

    /// Where an element is or would be.
    #[inline(always)]
    pub(crate) fn near(&self, row: usize, col: usize) -> *mut f32 {
        self.data.wrapping_add(row * self.ld + col)
    }
}

/// A matrix whose rows are tokens and whose columns are `parts` times `heads` times `width`, prepared for
/// [`Pool::rows`](super::Pool::rows) with one "row" per sequence and head, heads of a sequence side by side.
pub(crate) struct SplitHeads<'a> {
    all: Parts<'a, f32>,
    sequences: usize,
    tokens: usize,
    ld: usize,
    heads: usize,
    width: usize,
    parts: usize,
}

/// The columns of one head in the rows of one sequence.
pub(crate) struct HeadMut<'a> {
    all: Parts<'a, f32>,
    /// First element of the head in row 0.
    first: usize,
    tokens: usize,
    ld: usize,
    /// Distance between parts.
    part: usize,
    width: usize,
    parts: usize,
}

impl<'a> SplitHeads<'a> {
    /// Sequences of `tokens` rows; `parts` blocks of columns, each with `heads` heads.
    ///
    /// # Panics
    /// If rows overlap or leave the data, or columns are no multiple: a broken view, not bad input.
    pub(crate) fn new(mat: MatMut<'a, f32>, tokens: usize, heads: usize, parts: usize) -> SplitHeads<'a> {
        let MatMut { data, rows, cols, ld } = mat;
        let width = cols / (heads * parts);
        assert_eq!(width * heads * parts, cols, "columns are whole heads");
        let sequences = rows.checked_div(tokens).unwrap_or(0);
        prove_apart(rows, cols, ld, data.len());
        SplitHeads { all: Parts::new(data), sequences, tokens, ld, heads, width, parts }
    }
}

impl<'a> Split for SplitHeads<'a> {
    type Part = HeadMut<'a>;

    fn rows(&self) -> usize {
        self.sequences * self.heads
    }

    unsafe fn part(&self, first: usize, rows: usize) -> HeadMut<'a> {
        assert!(rows == 1 && first < self.rows(), "heads go one by one");
        let (sequence, head) = (first / self.heads, first % self.heads);
        let at = sequence * self.tokens * self.ld + head * self.width;
        HeadMut {
            all: Parts { data: self.all.data, len: self.all.len, owner: PhantomData },
            first: at,
            tokens: self.tokens,
            ld: self.ld,
            part: self.heads * self.width,
            width: self.width,
            parts: self.parts,
        }
    }
}

impl HeadMut<'_> {
    /// The head's elements in one part of the row of a token.
    #[inline(always)]
    pub(crate) fn row(&mut self, token: usize, part: usize) -> &mut [f32] {
        assert!(token < self.tokens && part < self.parts, "token and part exist");
        // SAFETY: heads have different columns and sequences different rows (`prove_apart`), and each pair is handed out
        // once by the promise `Split::part` asks for, so nothing else refers to these while `self` is borrowed.
        unsafe { self.all.range(self.first + token * self.ld + part * self.part, self.width) }
    }
}

impl<S: Split> Split for Option<S> {
    type Part = Option<S::Part>;

    fn rows(&self) -> usize {
        self.as_ref().map_or(0, S::rows)
    }

    unsafe fn part(&self, first: usize, rows: usize) -> Self::Part {
        // SAFETY: the caller's promise is passed on.
        self.as_ref().map(|s| unsafe { s.part(first, rows) })
    }
}

macro_rules! split_tuples {
    ($($S:ident $at:tt),*) => {
        /// The first output sets the number of rows; all others must have as many.
        impl<$($S: Split),*> Split for ($($S,)*) {
            type Part = ($($S::Part,)*);

            fn rows(&self) -> usize {
                self.0.rows()
            }

            unsafe fn part(&self, first: usize, rows: usize) -> Self::Part {
                // SAFETY: the caller's promise is passed on.
                ($(unsafe { self.$at.part(first, rows) },)*)
            }
        }
    };
}

split_tuples!(A 0, B 1);
split_tuples!(A 0, B 1, C 2);
split_tuples!(A 0, B 1, C 2, D 3);

/// A mutable slice whose disjoint ranges go to different workers.
pub(super) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: ranges are handed out disjointly (see the callers of `range`), which is what `&mut [T]` allows for T: Send.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Parts<'a, T> {
        Parts { data: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// # Safety
    /// No two live ranges may overlap.
    pub(super) unsafe fn range(&self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at + len <= self.len, "part {at}..{} of {}", at + len, self.len);
        // SAFETY: in bounds by the assertion above, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), len) }
    }
}
