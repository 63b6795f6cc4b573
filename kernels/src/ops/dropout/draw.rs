//! The random decisions of a call, shared by `dropout` and by the attention probabilities.

use crate::philox::philox;

/// Elements drawn at once by [`Draw::strip`]; a multiple of the eight of one block.
pub(crate) const STRIP: usize = 64;

/// Which elements a call keeps, and the factor they get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    key: [u32; 2],
    tail: [u32; 2],
    threshold: u32,
    scale: f32,
}

/// Refuses a rate outside `[0, 1)`.
pub(crate) fn check_drop(drop: f32) -> Result<(), String> {
    match (0.0..1.0).contains(&drop) {
        true => Ok(()),
        false => Err(format!("drop {drop} is outside [0, 1)")),
    }
}

impl Draw {
    /// `rng` is `[seed low, seed high, step, 0]`, `call` tells the calls of a step apart.
    pub(crate) fn new(rng: &[u32], drop: f32, call: u32) -> Draw {
        let threshold = (drop * 65536.0).round() as u32;
        // A rate that rounds to 1 keeps nothing; any finite factor will do.
        let scale = if threshold < 65536 { 1.0 / (1.0 - threshold as f32 / 65536.0) } else { 0.0 };
        Draw { key: [rng[0], rng[1]], tail: [call, rng[2]], threshold, scale }
    }

    /// Factor of kept elements.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// True if no element is dropped, whatever is drawn.
    pub(crate) fn keeps_all(&self) -> bool {
        self.threshold == 0
    }

    /// Half-words below this are dropped; `None` if all are.
    pub(crate) fn threshold(&self) -> Option<u16> {
        u16::try_from(self.threshold).ok()
    }

    /// Decision for one element.
    pub(crate) fn keeps(&self, element: u64) -> bool {
        let words = self.block(element / 8);
        let half = element as usize % 8;
        words[half / 2] >> (16 * (half % 2)) & 0xFFFF >= self.threshold
    }

    #[inline(always)]
    fn block(&self, block: u64) -> [u32; 4] {
        philox([block as u32, (block >> 32) as u32, self.tail[0], self.tail[1]], self.key)
    }

    /// Half-words of the elements from `8 * block`, each stored little endian.
    #[inline(always)]
    pub(crate) fn strip(&self, block: u64, words: &mut [u32; STRIP / 2]) {
        // Lanes side by side first: that loop becomes vectors, the second one shuffles.
        let mut lanes = [[0u32; STRIP / 8]; 4];
        let [a, b, c, d] = &mut lanes;
        for i in 0..STRIP / 8 {
            [a[i], b[i], c[i], d[i]] = self.block(block + i as u64);
        }
        for (i, four) in words.chunks_exact_mut(4).enumerate() {
            for (word, lane) in four.iter_mut().zip(&lanes) {
                *word = lane[i].to_le();
            }
        }
    }

    /// Half-words of `count` elements from `first`, little endian, at the returned place in `words`.
    ///
    /// `words` holds at least `(count + 7) / 2 + STRIP / 2` words.
    #[inline(always)]
    pub(crate) fn fill(&self, first: u64, count: usize, words: &mut [u32]) -> usize {
        let skip = (first % 8) as usize;
        for (at, chunk) in words.chunks_exact_mut(STRIP / 2).take((skip + count).div_ceil(STRIP)).enumerate() {
            let Ok(chunk) = chunk.try_into() else { continue };
            self.strip(first / 8 + (at * STRIP / 8) as u64, chunk);
        }
        skip
    }
}
