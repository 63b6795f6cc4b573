//! Damaged files: no panic, no memory beyond twice the file and 16 MiB, every truncation refused.

#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Cursor;
use std::path::Path;

use dt::data::episodes::Episodes;
use tsn_dt_io::{Error, Expect, parse_spec, read_npz};

mod archive;

use archive::{Archive, npy, valid};

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

/// Reads bytes and checks the memory it took.
fn read(bytes: &[u8]) -> Result<Episodes, Error> {
    let before = HELD.with(|held| {
        let [now, _] = held.get();
        held.set([now, now]);
        now
    });
    let result = read_npz(Cursor::new(bytes), Path::new("x.npz"), &Expect::default());
    let most = HELD.with(Cell::get)[1] - before;
    assert!(most <= 2 * bytes.len() as isize + (16 << 20), "{} bytes took {most}", bytes.len());
    result
}

/// A small linear congruential generator: the test must not depend on what it tests.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut packed = valid();
    packed.deflate = true;
    let mut frames = packed.clone();
    frames.set("observations", npy("|u1", "(5, 8, 8)", &(0..=255).cycle().take(320).collect::<Vec<u8>>()));
    let mut wide = valid();
    wide.wide = true;
    [valid(), packed, frames, wide].iter().map(Archive::bytes).collect()
}

/// Values that break size arithmetic.
const AWKWARD: [u64; 8] = [0, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

#[test]
fn every_truncation_is_refused() {
    for bytes in samples() {
        assert!(read(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes were accepted", bytes.len());
        }
    }
}

#[test]
fn damaged_bytes_neither_panic_nor_take_memory() {
    let samples = samples();
    let mut draw = Draw(1);
    let mut refused = 0;
    for round in 0..24_000 {
        let mut bytes = samples[round % samples.len()].clone();
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
        refused += usize::from(read(&bytes).is_err());
    }
    // Times, attributes and version numbers may change without harm; most of the file may not.
    assert!(refused > 18_000, "only {refused} of 24000 damaged files were refused");
}

/// With the checksum made right again, damage in headers and values reaches the code behind it.
#[test]
fn damaged_arrays_with_valid_checksums() {
    let mut draw = Draw(2);
    for round in 0..12_000 {
        let mut archive = valid();
        archive.deflate = round % 2 == 0;
        for _ in 0..1 + draw.below(3) {
            let members = archive.members.len();
            let array = &mut archive.members[draw.below(members)].1;
            let at = draw.below(array.len());
            match draw.below(3) {
                0 => array[at] = draw.below(256) as u8,
                1 => array[at] = b"0123456789<>|fiub(),'{}:L "[draw.below(26)],
                _ => array.truncate(at.max(1)),
            }
        }
        if let Ok(data) = read(&archive.bytes()) {
            assert_eq!(data.rows(), 5);
        }
    }
}

#[test]
fn payload_damage_is_always_noticed() {
    let bytes = valid().bytes();
    let start = bytes.windows(6).position(|window| window == b"\x93NUMPY").expect("an array");
    // The first array ends where the second local header begins.
    let end = start + bytes[start..].windows(4).position(|window| window == b"PK\x03\x04").expect("a second entry");
    for at in start..end {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// 64 MB of zeros in 64 kB, honestly declared but contradicting the other arrays: refused before it is unpacked.
#[test]
fn a_bomb_is_refused_unopened() {
    let mut archive = valid();
    archive.deflate = true;
    archive.set("observations", npy("<f4", "(8000000, 2)", &vec![0; 64_000_000]));
    assert!(read(&archive.bytes()).is_err());
    // And one that lies: it unpacks to more than it declares.
    let mut archive = valid();
    archive.deflate = true;
    let mut array = npy("<f4", "(5, 2)", &[0; 40]);
    let honest = array.len() as u32;
    array.resize(64_000_000, 0);
    archive.members[0].1 = array;
    archive.claim = Some(honest);
    assert!(read(&archive.bytes()).expect_err("refused").to_string().contains("goes on after its last value"));
}

/// A directory that claims 65535 entries, or one of many empty entries, costs what its bytes cost.
#[test]
fn directories_are_bounded() {
    let mut bytes = valid().bytes();
    let end = bytes.len() - 22;
    bytes[end + 8..end + 12].fill(0xff);
    assert!(read(&bytes).is_err());
    let members = (0..20_000).map(|i| (format!("k{i}"), Vec::new())).collect();
    let many = Archive { members, ..valid() };
    let error = read(&many.bytes()).expect_err("refused").to_string();
    assert!(error.contains("bytes of the zip directory"), "{error}");
}

#[test]
fn damaged_specs_do_not_panic() {
    let good =
        br#"[{"name": "A", "env_id": "CartPole-v1", "seed": 3, "params": {"gravity": 9.8, "x": [1, null, true]}}]"#;
    assert!(parse_spec(good).is_ok());
    let mut draw = Draw(3);
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..1 + draw.below(4) {
            let at = draw.below(bytes.len());
            bytes[at] = b"[]{}\",:0919eE-+.\\u tfn\xff\x00"[draw.below(24)];
        }
        let _ = parse_spec(&bytes);
    }
    assert!(parse_spec(&vec![b'['; 1 << 20]).is_err(), "deep nesting");
    for length in 0..good.len() {
        assert!(parse_spec(&good[..length]).is_err());
    }
}
