//! What tests with damaged files share: a counting allocator, draws, damage.

#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes this thread holds, and the most it held.
    static HELD: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
}

struct Counting;

fn count(bytes: isize) {
    HELD.with(|held| {
        let [now, most] = held.get();
        held.set([now + bytes, most.max(now + bytes)]);
    });
}

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`, and all blocks come from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs some work and gives the most memory it held on this thread.
pub(crate) fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let [now, _] = held.get();
        held.set([now, now]);
        now
    });
    let result = work();
    let most = HELD.with(Cell::get)[1] - before;
    (result, usize::try_from(most).unwrap_or(0))
}

/// A small linear congruential generator: the test must not depend on what it tests.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Values that break size arithmetic.
const AWKWARD: [u64; 8] = [0, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

/// One to four changes of bits, bytes, numbers, or whole pieces.
pub(crate) fn damage(mut bytes: Vec<u8>, draw: &mut Draw) -> Vec<u8> {
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(bytes.len());
        match draw.below(5) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = draw.below(256) as u8,
            2 => {
                let value = AWKWARD[draw.below(AWKWARD.len())].to_le_bytes();
                let width = [2, 4, 8][draw.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            3 => {
                let some = draw.below(16).min(bytes.len() - at - 1);
                bytes.drain(at..at + some);
            }
            _ => {
                let piece = bytes[at..(at + 1 + draw.below(32)).min(bytes.len())].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}
