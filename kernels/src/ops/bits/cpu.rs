//! Portable: eight flags at a time in one 64-bit word.

use crate::operand::Call;

/// Words of output of one task.
const BLOCK: usize = 4096;
const LOW_SEVEN: u64 = 0x7F7F_7F7F_7F7F_7F7F;
const LOW: u64 = 0x0101_0101_0101_0101;

/// Bytes of 1 where a byte of `x` is not zero. The sum reaches bit 7 of its own byte and no further.
fn nonzero(x: u64) -> u64 {
    ((((x & LOW_SEVEN) + LOW_SEVEN) | x) >> 7) & LOW
}

/// One bit per byte, lowest byte first: 1 where the byte is not zero.
fn gather(bytes: [u8; 8]) -> u32 {
    let x = u64::from_le_bytes(bytes);
    // The product moves flag `j` to bit 56 + j; no two partial products meet, so nothing carries.
    (nonzero(x).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// One byte per bit, lowest bit first.
fn spread(bits: u32) -> [u8; 8] {
    let copies = u64::from(bits & 0xFF).wrapping_mul(LOW);
    let own = copies & 0x8040_2010_0804_0201; // byte j keeps bit j
    nonzero(own).to_le_bytes()
}

pub(super) fn pack_bits(c: &mut Call<'_>) {
    let (flags, mask) = (c.u8(0), c.bits_mut(1));
    let block = (BLOCK / mask.ld.max(1)).max(1);
    c.pool.rows(mask.split(), block, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            let (row, words) = (flags.row(first + r), part.row(r));
            for (word, flags) in words.iter_mut().zip(row.chunks(32)) {
                *word = 0;
                for (at, eight) in flags.chunks(8).enumerate() {
                    let mut bytes = [0; 8];
                    bytes[..eight.len()].copy_from_slice(eight);
                    *word |= gather(bytes) << (8 * at);
                }
            }
        }
    });
}

pub(super) fn unpack_bits(c: &mut Call<'_>) {
    let (mask, flags) = (c.bits(0), c.u8_mut(1));
    let block = (BLOCK * 32 / flags.cols.max(1)).max(1);
    c.pool.rows(flags.split(), block, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            for (word, flags) in mask.row(first + r).iter().zip(part.row(r).chunks_mut(32)) {
                for (at, eight) in flags.chunks_mut(8).enumerate() {
                    eight.copy_from_slice(&spread(word >> (8 * at))[..eight.len()]);
                }
            }
        }
    });
}
