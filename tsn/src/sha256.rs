//! SHA-256: the checksum inside a bank and the hash of its configuration.
//!
//! Source: FIPS 180-4, sections 5.1.1, 5.3.3 and 6.2. Not a secret-keeping implementation; nothing here is secret.

use dt::autograd::engine::kernels::sha256::compress;

/// Square roots of the first 8 primes, first 32 fractional bits.
const START: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// A running SHA-256.
#[derive(Clone)]
pub struct Sha256 {
    state: [u32; 8],
    block: [u8; 64],
    filled: usize,
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256 { state: START, block: [0; 64], filled: 0, length: 0 }
    }
}

impl Sha256 {
    /// The hash of no bytes yet.
    pub fn new() -> Sha256 {
        Sha256::default()
    }

    /// Appends bytes. At most 2^61 in total.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if self.filled > 0 {
            let take = bytes.len().min(64 - self.filled);
            self.block[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled < 64 {
                return;
            }
            compress(&mut self.state, &[self.block]);
        }
        let (blocks, rest) = bytes.as_chunks::<64>();
        compress(&mut self.state, blocks);
        self.block[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    /// The digest of everything appended.
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.length.wrapping_mul(8);
        let mut pad = [0u8; 72];
        pad[0] = 0x80;
        // One bit, zeros up to 56 modulo 64, then the length.
        let zeros_end = if self.filled < 56 { 56 - self.filled } else { 120 - self.filled };
        pad[zeros_end..zeros_end + 8].copy_from_slice(&bits.to_be_bytes());
        self.update(&pad[..zeros_end + 8]);
        let mut digest = [0; 32];
        for (at, word) in self.state.iter().enumerate() {
            digest[at * 4..at * 4 + 4].copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// The digest as 64 lower-case hexadecimal digits.
    pub fn finish_hex(self) -> String {
        self.finish().iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect()
    }
}

/// SHA-256 of one slice, as 64 lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish_hex()
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble & 15)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example messages NIST publishes with FIPS 180-4.
    #[test]
    fn published_vectors() {
        assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            hex(
                b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"
            ),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
        );
        assert_eq!(hex(&vec![b'a'; 1_000_000]), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }

    /// Every length around the block and padding boundaries, in every split.
    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        for length in [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 200] {
            let whole = hex(&bytes[..length]);
            for cut in 0..=length {
                let mut hash = Sha256::new();
                hash.update(&bytes[..cut]);
                hash.update(&bytes[cut..length]);
                assert_eq!(hash.finish_hex(), whole, "length {length}, cut {cut}");
            }
        }
    }
}
