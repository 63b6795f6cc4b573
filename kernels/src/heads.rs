//! Outputs cut by heads: for workers that share the rows of a sequence but not its columns.
#![expect(unsafe_code, reason = "lends disjoint columns of an output to other threads")]

use crate::operand::MatMut;
use crate::par::Split;
use std::marker::PhantomData;

/// A matrix whose rows are tokens and whose columns are `parts` times `heads` times `width`, prepared for
/// [`Pool::rows`](crate::par::Pool::rows) with one "row" per sequence and head, heads of a sequence side by side.
pub(crate) struct SplitHeads<'a> {
    data: *mut f32,
    sequences: usize,
    tokens: usize,
    ld: usize,
    heads: usize,
    width: usize,
    parts: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer stands for a `&mut [f32]`; `part` hands out disjoint elements of it (see there).
unsafe impl Sync for SplitHeads<'_> {}

/// The columns of one head in the rows of one sequence.
pub(crate) struct HeadMut<'a> {
    /// First element of the head in row 0.
    first: *mut f32,
    tokens: usize,
    ld: usize,
    /// Distance between parts.
    part: usize,
    width: usize,
    parts: usize,
    owner: PhantomData<&'a mut [f32]>,
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
        assert!(rows <= 1 || ld >= cols, "rows of {cols} overlap at a distance of {ld}");
        assert!(rows == 0 || (rows - 1) * ld + cols <= data.len(), "{rows} rows of {cols}, {ld} apart, leave the data");
        SplitHeads { data: data.as_mut_ptr(), sequences, tokens, ld, heads, width, parts, owner: PhantomData }
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
            // SAFETY: `sequence` and `head` exist by the assertion above, so by those of `new` the element does, too.
            first: unsafe { self.data.add(at) },
            tokens: self.tokens,
            ld: self.ld,
            part: self.heads * self.width,
            width: self.width,
            parts: self.parts,
            owner: PhantomData,
        }
    }
}

impl HeadMut<'_> {
    /// The head's elements in one part of the row of a token.
    #[inline(always)]
    pub(crate) fn row(&mut self, token: usize, part: usize) -> &mut [f32] {
        assert!(token < self.tokens && part < self.parts, "token and part exist");
        // SAFETY: inside the matrix by the line above and the assertions of `SplitHeads::new`. Heads have different
        // columns and sequences different rows, and each pair is handed out once by the promise `Split::part` asks
        // for, so nothing else refers to these elements while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(token * self.ld + part * self.part), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::par::Pool;

    #[test]
    fn every_element_is_in_one_head() {
        let (sequences, tokens, heads, parts, width, ld) = (3, 4, 2, 3, 5, 33);
        let cols = heads * parts * width;
        for pool in [Pool::serial(), Pool::new(3)] {
            let mut all = vec![0.0; (sequences * tokens - 1) * ld + cols];
            let mat = MatMut { data: &mut all, rows: sequences * tokens, cols, ld };
            pool.rows(SplitHeads::new(mat, tokens, heads, parts), 1, &mut [], |at, mut head, _| {
                for (token, part) in (0..tokens).flat_map(|token| (0..parts).map(move |part| (token, part))) {
                    head.row(token, part).iter_mut().for_each(|x| *x += 1.0 + at as f32);
                }
            });
            for (at, x) in all.iter().enumerate() {
                let (row, col) = (at / ld, at % ld);
                let head = row / tokens * heads + col / width % heads;
                assert_eq!(*x, if col < cols { 1.0 + head as f32 } else { 0.0 }, "row {row}, column {col}");
            }
        }
    }
}
