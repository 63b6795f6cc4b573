//! Damaged files: no panic, no memory beyond twice the file and 16 MiB, every truncation refused.

use std::io::Cursor;
use std::path::Path;

use dt::data::episodes::Episodes;
use tsn_dt_io::{Error, Expect, parse_spec, read_npz};

mod archive;
mod damage;

use archive::{Archive, npy, valid};
use damage::{Draw, damage, most_held};

/// Reads bytes and checks the memory it took.
fn read(bytes: &[u8]) -> Result<Episodes, Error> {
    let (result, most) = most_held(|| read_npz(Cursor::new(bytes), Path::new("x.npz"), &Expect::default()));
    assert!(most <= 2 * bytes.len() + (16 << 20), "{} bytes took {most}", bytes.len());
    result
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
        let bytes = damage(samples[round % samples.len()].clone(), &mut draw);
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
