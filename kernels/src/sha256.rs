//! The compression function of SHA-256, which guards files: portable, and with the SHA instructions of x86-64.
//!
//! Source: FIPS 180-4, sections 4.1.2 and 6.2.2.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls code compiled for an instruction set"))]

/// Cube roots of the first 64 primes, first 32 fractional bits.
const ROUND: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// Takes blocks of 64 bytes into the state, in order. The same state on every CPU.
pub fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1") {
        // SAFETY: the CPU has every instruction set that the function is compiled for, by the line above.
        return unsafe { x86::compress(state, blocks) };
    }
    blocks.iter().for_each(|block| compress_block(state, block));
}

fn compress_block(state: &mut [u32; 8], block: &[u8; 64]) {
    let mut w = [0u32; 64];
    for (word, bytes) in w.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for t in 16..64 {
        let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
        let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (k, w) in ROUND.iter().zip(&w) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choose = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choose).wrapping_add(*k).wrapping_add(*w);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::ROUND;
    use std::arch::x86_64::*;

    /// Four words, the first in the lowest lane.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    #[inline]
    fn four(w: [u32; 4]) -> __m128i {
        let [w0, w1, w2, w3] = w.map(|w| w as i32);
        _mm_set_epi32(w3, w2, w1, w0)
    }

    /// Four rounds an iteration. The state lies in two registers, highest lane first: `a b e f` and `c d g h`.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
        let [a, b, c, d, e, f, g, h] = *state;
        let (mut abef, mut cdgh) = (four([f, e, b, a]), four([h, g, d, c]));
        for block in blocks {
            let before = (abef, cdgh);
            let (words, _) = block.as_chunks::<4>();
            let word = |t: usize| u32::from_be_bytes(words[t]);
            // The last 16 words of the schedule, four in a register.
            let part = |t: usize| four([word(t), word(t + 1), word(t + 2), word(t + 3)]);
            let mut w = [part(0), part(4), part(8), part(12)];
            for (t, k) in ROUND.as_chunks::<4>().0.iter().enumerate() {
                if t >= 4 {
                    let [w0, w1, w2, w3] = w;
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                    w = [w1, w2, w3, _mm_sha256msg2_epu32(sum, w3)];
                }
                let wk = _mm_add_epi32(w[t.min(3)], four(*k));
                cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
                abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0b1110>(wk));
            }
            (abef, cdgh) = (_mm_add_epi32(abef, before.0), _mm_add_epi32(cdgh, before.1));
        }
        let lane = |x: i32| x as u32;
        let [a, b, e, f] = [
            lane(_mm_extract_epi32::<3>(abef)),
            lane(_mm_extract_epi32::<2>(abef)),
            lane(_mm_extract_epi32::<1>(abef)),
            lane(_mm_extract_epi32::<0>(abef)),
        ];
        let [c, d, g, h] = [
            lane(_mm_extract_epi32::<3>(cdgh)),
            lane(_mm_extract_epi32::<2>(cdgh)),
            lane(_mm_extract_epi32::<1>(cdgh)),
            lane(_mm_extract_epi32::<0>(cdgh)),
        ];
        *state = [a, b, c, d, e, f, g, h];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::{Rng, Stream};

    /// The block of the message `abc`; FIPS 180-4 gives its digest.
    #[test]
    fn a_published_block() {
        let mut block = [0; 64];
        block[..4].copy_from_slice(b"abc\x80");
        block[63] = 24;
        let start = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
        let digest = [0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223, 0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad];
        let (mut portable, mut best) = (start, start);
        compress_block(&mut portable, &block);
        compress(&mut best, &[block]);
        assert_eq!((portable, best), (digest, digest));
    }

    #[test]
    fn every_cpu_has_one_state() {
        let mut rng = Rng::new(1, Stream::Data, [0, 0]);
        let mut state = [0; 8].map(|_: u32| rng.u32());
        let mut expected = state;
        for count in [0, 1, 2, 7] {
            let blocks: Vec<[u8; 64]> = (0..count).map(|_| [0; 64].map(|_: u8| rng.u32() as u8)).collect();
            compress(&mut state, &blocks);
            blocks.iter().for_each(|block| compress_block(&mut expected, block));
            assert_eq!(state, expected, "{count} blocks");
        }
    }
}
