//! Philox 4x32-10: counter based random numbers, the same on every backend and for any number of threads.
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the test vectors are those of the
//! Random123 library.

pub(crate) const M0: u32 = 0xD251_1F53;
pub(crate) const M1: u32 = 0xCD9E_8D57;
pub(crate) const W0: u32 = 0x9E37_79B9;
pub(crate) const W1: u32 = 0xBB67_AE85;

/// Four random words for a counter and a key.
#[inline]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(M0) * u64::from(c0);
        let p1 = u64::from(M1) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [c0, c1, c2, c3]
}

/// Named streams, so that adding a consumer never shifts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Weight initialisation.
    Init = 1,
    /// Window sampling.
    Batch = 2,
    /// Dropout, in kernels.
    Dropout = 3,
    /// Mask scores.
    Scores = 4,
    /// Routing memories and batches.
    Routing = 5,
    /// Evaluation episodes.
    Evaluation = 6,
    /// Generated datasets.
    Data = 7,
    /// Trajectories that a replay buffer keeps.
    Replay = 8,
}

/// A sequential reader of one stream: key `(seed, stream)`, counter `(position, a, b)`.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    place: [u32; 2],
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream of a seed at a place, for example `(task, tensor)` or `(step, 0)`.
    pub fn new(seed: u64, stream: Stream, place: [u32; 2]) -> Rng {
        // The upper half of the seed is mixed in by one block, so that all 64 bits count.
        let mixed = philox([seed as u32, (seed >> 32) as u32, stream as u32, 0], [0x7473_6E31, stream as u32]);
        Rng { key: [mixed[0], mixed[1]], place, block: 0, words: [0; 4], used: 4 }
    }

    /// Next 32 random bits.
    pub fn u32(&mut self) -> u32 {
        if self.used == 4 {
            let [a, b] = self.place;
            self.words = philox([self.block as u32, (self.block >> 32) as u32, a, b], self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Next 64 random bits.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n` without bias. `n` must be positive.
    pub fn below(&mut self, n: u64) -> u64 {
        debug_assert!(n > 0, "an empty range has no element");
        // Multiply-shift with rejection (Lemire 2019).
        loop {
            let wide = u128::from(self.u64()) * u128::from(n);
            if (wide as u64) >= n.wrapping_neg() % n {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Standard normal (Box and Muller, cosine half only: one value per two uniforms, no hidden state).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_are_unrelated_and_repeatable() {
        let mut a = Rng::new(7, Stream::Init, [0, 0]);
        let mut b = Rng::new(7, Stream::Batch, [0, 0]);
        let first: Vec<u32> = (0..8).map(|_| a.u32()).collect();
        assert_ne!(first, (0..8).map(|_| b.u32()).collect::<Vec<_>>());
        let mut again = Rng::new(7, Stream::Init, [0, 0]);
        assert_eq!(first, (0..8).map(|_| again.u32()).collect::<Vec<_>>());
    }

    #[test]
    fn moments() {
        let mut rng = Rng::new(1, Stream::Data, [0, 0]);
        let n = 100_000;
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            square += x * x;
        }
        assert!((sum / n as f64).abs() < 0.02 && (square / n as f64 - 1.0).abs() < 0.02);
        let mut counts = [0u32; 3];
        (0..30_000).for_each(|_| counts[rng.below(3) as usize] += 1);
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
    }
}
