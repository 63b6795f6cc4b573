//! Tile registers: their configuration, and the two loops over k that use them.
#![expect(unsafe_code, reason = "tile instructions, which have no safe functions")]

use crate::philox::{Rng, Stream};
use std::arch::asm;
use std::marker::PhantomData;

/// Lanes of 32 bits in a tile: 16 rows of 64 bytes.
pub(super) const TILE: usize = 256;
/// Bytes from one row of a tile to the next.
const ROW: usize = 64;

/// Four tiles of sums. Tiles across cache lines take three times as long to load.
#[repr(C, align(64))]
pub(crate) struct Sums(pub(super) [f32; 4 * TILE]);

/// Tile registers of this thread, all 16 rows of 64 bytes, until this is dropped.
pub(crate) struct Tiles(PhantomData<*const ()>);

#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1; // palette
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = ROW as u8;
        bytes[48 + tile] = 16; // rows
        tile += 1;
    }
    Config(bytes)
};

impl Tiles {
    /// # Safety
    /// The CPU has the tiles, the system lets this process use them, and no other value of this type lives on this thread:
    /// the first to be dropped would take the tiles of both.
    pub(super) unsafe fn new() -> Tiles {
        // SAFETY: the caller's promise; the configuration is one of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) }
        Tiles(PhantomData)
    }

    /// Products of f32 in three parts: `left` holds a row of tiles, `right` two columns of them, each element its parts
    /// h, m, l in turn. Fills tiles of sums: h h' and the others of the first column, then of the second.
    pub(super) fn split(&self, left: &[f32], right: &[f32], sums: &mut Sums) {
        let steps = left.len() / (3 * TILE);
        assert!(steps > 0 && left.len() == 3 * TILE * steps && right.len() == 6 * TILE * steps, "parts of tiles");
        // SAFETY: every step reads three tiles on the left and six on the right, which were counted; four tiles are written.
        // Tiles exist while `self` does.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {row}]",
                "tileloadd tmm5, [{right} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm5", // h h'
                "tileloadd tmm6, [{right} + {row} + 3072]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{left} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm7, tmm5", // m h'
                "tdpbf16ps tmm3, tmm7, tmm6",
                "tileloadd tmm4, [{left} + {row} + 2048]",
                "tdpbf16ps tmm1, tmm4, tmm5", // l h'
                "tdpbf16ps tmm3, tmm4, tmm6",
                "tileloadd tmm5, [{right} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm7, tmm5", // m m'
                "tileloadd tmm6, [{right} + {row} + 4096]",
                "tdpbf16ps tmm3, tmm7, tmm6",
                "tileloadd tmm4, [{left} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm5", // h m'
                "tdpbf16ps tmm3, tmm4, tmm6",
                "tileloadd tmm5, [{right} + {row} + 2048]",
                "tdpbf16ps tmm1, tmm4, tmm5", // h l'
                "tileloadd tmm6, [{right} + {row} + 5120]",
                "tdpbf16ps tmm3, tmm4, tmm6",
                "add {left}, 3072",
                "add {right}, 6144",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 1024], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 3072], tmm3",
                left = inout(reg) left.as_ptr() => _,
                right = inout(reg) right.as_ptr() => _,
                steps = inout(reg) steps => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                row = in(reg) ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }

    /// Products of bf16: `left` holds two rows of tiles, `right` two columns of them. Fills tiles of sums: the first row
    /// with both columns, then the second.
    pub(super) fn whole(&self, left: &[f32], right: &[f32], sums: &mut Sums) {
        let steps = left.len() / (2 * TILE);
        assert!(steps > 0 && left.len() == 2 * TILE * steps && right.len() == 2 * TILE * steps, "pairs of tiles");
        // SAFETY: every step reads two tiles on either side, which were counted; four tiles are written. Tiles exist while
        // `self` does.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {row}]",
                "tileloadd tmm6, [{right} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{left} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 2048",
                "add {right}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 1024], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 3072], tmm3",
                left = inout(reg) left.as_ptr() => _,
                right = inout(reg) right.as_ptr() => _,
                steps = inout(reg) steps => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                row = in(reg) ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

/// Operations on bf16 in one round of [`busy`].
pub(crate) const FLOPS: usize = 12 * STEPS * 2 * 16 * 16 * 32;
const STEPS: usize = 4;

/// So many rounds of what [`Tiles::split`] does, on numbers in first-level cache. Random numbers: tiles of zeros, or of few
/// different values, draw less power and run faster than any product does.
///
/// # Safety
/// As [`Tiles::new`].
pub(crate) unsafe fn busy(rounds: usize) {
    #[repr(C, align(64))]
    struct Factors([f32; 9 * STEPS * TILE]);
    let mut factors = Factors([0.0; 9 * STEPS * TILE]);
    let mut rng = Rng::new(0, Stream::Init, [0; 2]);
    // Two bf16 of either sign between 0.5 and 2.
    factors.0.iter_mut().for_each(|v| *v = f32::from_bits(rng.u64() as u32 & 0x80FF_80FF | 0x3F00_3F00));
    let (left, right) = factors.0.split_at(3 * STEPS * TILE);
    let mut sums = Sums([0.0; 4 * TILE]);
    // SAFETY: the caller's promise.
    let tiles = unsafe { Tiles::new() };
    (0..rounds).for_each(|_| tiles.split(left, right, &mut sums));
    std::hint::black_box(&sums);
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a value of this type exists on threads that configured tiles.
        unsafe { asm!("tilerelease", options(nomem, nostack)) }
    }
}
