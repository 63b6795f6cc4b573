//! The generator behind gymnasium's seeds: numpy's `SeedSequence` and PCG64, so that a seed means the same start state.
//!
//! Everything else in the project draws from Philox; this one exists for parity only.
//!
//! Source: O'Neill, "PCG: a family of simple fast space-efficient statistically good algorithms for random number
//! generation" (2014), variant XSL-RR 128/64; the seed hash is numpy's `SeedSequence` (numpy/random/bit_generator.pyx).

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// PCG64 (XSL-RR 128/64) seeded as `numpy.random.default_rng(seed)`.
#[derive(Clone, Debug)]
pub struct Pcg64 {
    state: u128,
    increment: u128,
}

impl Pcg64 {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Pcg64 {
        let words = seed_words(seed);
        let wide = |at: usize| {
            // numpy hands over two 64-bit words, the upper one first.
            let half = |i: usize| u128::from(words[i]) | u128::from(words[i + 1]) << 32;
            half(at) << 64 | half(at + 2)
        };
        let mut rng = Pcg64 { state: 0, increment: wide(4) << 1 | 1 };
        rng.advance();
        rng.state = rng.state.wrapping_add(wide(0));
        rng.advance();
        rng
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// Next 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Uniform in `[low, high)`, as numpy's `Generator.uniform`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        low + (high - low) * unit
    }
}

/// Eight 32-bit words hashed from a seed: `SeedSequence(seed).generate_state(8)`.
fn seed_words(seed: u64) -> [u32; 8] {
    let mut factor = 0x43b0_d7e5_u32;
    let mut hash = |value: u32| {
        let value = value ^ factor;
        factor = factor.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(factor);
        value ^ value >> 16
    };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hash);
    for from in 0..4 {
        for to in (0..4).filter(|&to| to != from) {
            let other = hash(pool[from]);
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(other.wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut factor = 0x8b51_f9dd_u32;
    std::array::from_fn(|i| {
        let value = pool[i % 4] ^ factor;
        factor = factor.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(factor);
        value ^ value >> 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.default_rng(seed).bit_generator.random_raw(2)`, numpy 2.4.6.
    #[test]
    fn known_answers() {
        for (seed, want) in KNOWN {
            let mut rng = Pcg64::new(seed);
            assert_eq!([rng.u64(), rng.u64()], want, "seed {seed}");
        }
    }

    const KNOWN: [(u64, [u64; 2]); 4] = [
        (0, [0xa30f_ebcf_d9c2_825f, 0x4510_bdf8_82d9_d721]),
        (1, [0x8306_bdf3_7922_e4ff, 0xf351_96bb_c152_a866]),
        (1 << 32, [0xe3c5_ebe2_85ac_1625, 0x8ea0_9968_fe31_dbcc]),
        (12_345_678_901_234_567_890, [0x0114_e1b8_8d30_6508, 0xa700_0427_81d3_a29c]),
    ];
}
