//! Bit masks on the host: the layout of every backend and of the bank.

/// One bit per element of a `rows x cols` matrix; rows padded to whole 32-bit words, pad bits zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitMask {
    rows: u32,
    cols: u32,
    words: Vec<u32>,
}

impl BitMask {
    /// All bits clear.
    pub fn zeros(rows: u32, cols: u32) -> BitMask {
        BitMask { rows, cols, words: vec![0; rows as usize * cols.div_ceil(32) as usize] }
    }

    /// All bits set.
    pub fn ones(rows: u32, cols: u32) -> BitMask {
        let mut mask = BitMask::zeros(rows, cols);
        let per_row = mask.words_per_row();
        for (at, word) in mask.words.iter_mut().enumerate() {
            *word = row_word(cols, at % per_row);
        }
        mask
    }

    /// From one flag per element, row major.
    pub fn from_flags(rows: u32, cols: u32, flags: impl IntoIterator<Item = bool>) -> BitMask {
        let mut mask = BitMask::zeros(rows, cols);
        for (at, flag) in flags.into_iter().enumerate() {
            if flag {
                mask.set(at / cols as usize, at % cols as usize);
            }
        }
        mask
    }

    /// From words in this layout, or `None` if the length is wrong or a pad bit is set.
    pub fn from_words(rows: u32, cols: u32, words: Vec<u32>) -> Option<BitMask> {
        let per_row = cols.div_ceil(32) as usize;
        let fits = words.len() == rows as usize * per_row
            && words.iter().enumerate().all(|(at, word)| word & !row_word(cols, at % per_row) == 0);
        fits.then_some(BitMask { rows, cols, words })
    }

    /// Rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> u32 {
        self.cols
    }

    /// The words, rows back to back.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Words of one row.
    pub fn words_per_row(&self) -> usize {
        self.cols.div_ceil(32) as usize
    }

    /// Bit at a position.
    pub fn get(&self, row: usize, col: usize) -> bool {
        self.words[row * self.words_per_row() + col / 32] >> (col % 32) & 1 == 1
    }

    /// Sets a bit.
    pub fn set(&mut self, row: usize, col: usize) {
        debug_assert!(row < self.rows as usize && col < self.cols as usize, "bit outside the mask");
        let at = row * self.words_per_row() + col / 32;
        self.words[at] |= 1 << (col % 32);
    }

    /// Number of set bits.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows as usize * self.cols as usize
    }

    /// True for a mask of no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One flag per element, row major.
    pub fn flags(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.rows as usize).flat_map(move |r| (0..self.cols as usize).map(move |c| self.get(r, c)))
    }

    /// `self & other`.
    pub fn and(&self, other: &BitMask) -> BitMask {
        self.zip(other, |a, b| a & b)
    }

    /// `self | other`.
    pub fn or(&self, other: &BitMask) -> BitMask {
        self.zip(other, |a, b| a | b)
    }

    /// `self & !other`.
    pub fn and_not(&self, other: &BitMask) -> BitMask {
        self.zip(other, |a, b| a & !b)
    }

    /// The complement; pad bits stay zero.
    pub fn not(&self) -> BitMask {
        BitMask::ones(self.rows, self.cols).and_not(self)
    }

    fn zip(&self, other: &BitMask, f: impl Fn(u32, u32) -> u32) -> BitMask {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "masks of one tensor have one shape");
        let words = self.words.iter().zip(&other.words).map(|(a, b)| f(*a, *b)).collect();
        BitMask { rows: self.rows, cols: self.cols, words }
    }
}

/// Valid bits of word `at` of a row of `cols` columns.
pub fn row_word(cols: u32, at: usize) -> u32 {
    let left = cols as usize - at * 32;
    if left >= 32 { u32::MAX } else { (1 << left) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn laws(rows in 0u32..5, cols in 1u32..70, seed: u64) {
            let flags: Vec<bool> = (0..rows as usize * cols as usize).map(|i| seed.rotate_left(i as u32) & 1 == 1).collect();
            let mask = BitMask::from_flags(rows, cols, flags.iter().copied());
            prop_assert_eq!(mask.flags().collect::<Vec<_>>(), flags.clone());
            prop_assert_eq!(mask.count(), flags.iter().filter(|f| **f).count());
            prop_assert_eq!(mask.not().count(), flags.len() - mask.count());
            prop_assert_eq!(mask.or(&mask.not()), BitMask::ones(rows, cols));
            prop_assert_eq!(BitMask::from_words(rows, cols, mask.words().to_vec()), Some(mask));
        }
    }

    #[test]
    fn pad_bits_are_refused() {
        assert_eq!(BitMask::from_words(1, 3, vec![8]), None);
        assert_eq!(BitMask::from_words(1, 3, vec![7, 0]), None);
    }
}
