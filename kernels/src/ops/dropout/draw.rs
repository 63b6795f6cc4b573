//! The random decisions of a call, shared by `dropout` and by the attention probabilities.

use crate::ops::vmath::{Random, Simd};
use crate::philox::philox;

/// Bytes that [`Draw::strip`] fills: a bit for each element of a vector of blocks, and room to read words anywhere.
pub(crate) const STRIP: usize = 16 + 4;

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

    /// What [`Simd::reached`] needs to draw; `None` if all elements are dropped.
    pub(crate) fn random(&self) -> Option<Random> {
        Some(Random { key: self.key, tail: self.tail, threshold: u16::try_from(self.threshold).ok()? })
    }

    /// Decision for one element.
    pub(crate) fn keeps(&self, element: u64) -> bool {
        let block = element / 8;
        let words = philox([block as u32, (block >> 32) as u32, self.tail[0], self.tail[1]], self.key);
        let half = element as usize % 8;
        words[half / 2] >> (16 * (half % 2)) & 0xFFFF >= self.threshold
    }

    /// Kept bits of the `8 * S::WIDTH` elements from `8 * block`, a byte per block; other bytes keep their values.
    #[inline(always)]
    pub(crate) fn strip<S: Simd>(&self, s: S, block: u64, bytes: &mut [u8; STRIP]) {
        let Some(random) = self.random() else { return bytes.fill(0) };
        let (mut low, mut high, mut words) = ([0; 16], [0; 16], [0; 16]);
        for i in 0..S::WIDTH {
            let number = block + i as u64;
            (low[i], high[i]) = (number as u32, (number >> 32) as u32);
        }
        s.reached(&low, &high, random, &mut words);
        for i in 0..S::WIDTH {
            bytes[i] = words[i] as u8;
        }
    }
}

/// The bits of 25 elements and more, element `at` first.
#[inline(always)]
pub(crate) fn bits_at(bytes: &[u8; STRIP], at: usize) -> u32 {
    let four = &bytes[at / 8..][..4];
    u32::from_le_bytes([four[0], four[1], four[2], four[3]]) >> (at % 8)
}
