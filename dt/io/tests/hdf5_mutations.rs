//! Damaged HDF5 files: no panic, no hang, no memory beyond twice the file, a few chunks and a constant.

use std::io::Cursor;
use std::path::Path;

use dt::data::episodes::Episodes;
use tsn_dt_io::{Error, Expect, read_hdf5};

mod damage;

use damage::{Draw, damage, most_held};

/// Chunks of up to 16 MiB are unpacked one at a time; the library holds one packed, one unpacked and one cached.
const CONSTANT: usize = 64 << 20;

const FILES: [&[u8]; 3] = [
    include_bytes!("data/cartpole/data/main_data.hdf5"),
    include_bytes!("data/reach/data/main_data.hdf5"),
    include_bytes!("data/push.hdf5"),
];

fn read(bytes: Vec<u8>) -> Result<Episodes, Error> {
    let length = bytes.len();
    let load = || read_hdf5(Cursor::new(bytes), Path::new("x.hdf5"), &Expect::default());
    let (result, most) = most_held(load);
    assert!(most <= 2 * length + CONSTANT, "{length} bytes took {most}");
    result
}

#[test]
fn every_truncation_is_refused() {
    for file in FILES {
        assert!(read(file.to_vec()).is_ok());
        // The superblock says how long the file is.
        for length in (0..file.len()).step_by(997).chain(file.len() - 64..file.len()) {
            assert!(read(file[..length].to_vec()).is_err(), "{length} of {} bytes were accepted", file.len());
        }
    }
}

#[test]
fn damaged_bytes_neither_panic_nor_take_memory() {
    let mut draw = Draw(5);
    let mut refused = 0;
    for round in 0..6_000 {
        let bytes = damage(FILES[round % FILES.len()].to_vec(), &mut draw);
        refused += usize::from(read(bytes).is_err());
    }
    // Attributes, free space and most values may change without harm.
    assert!(refused > 1_500, "only {refused} of 6000 damaged files were refused");
}

/// Damage where structure is: around signatures and in object headers, whose bytes are few among the values.
#[test]
fn damaged_structure() {
    let mut draw = Draw(6);
    for round in 0..12_000 {
        let mut bytes = FILES[round % FILES.len()].to_vec();
        let signatures: [&[u8]; 5] = [b"TREE", b"SNOD", b"HEAP", b"\x89HDF", b"\x01\x00\x06\x00"];
        let one = signatures[draw.below(5)];
        let places: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, w)| *w == one).map(|(at, _)| at).collect();
        for _ in 0..1 + draw.below(3) {
            let Some(&place) = places.get(draw.below(places.len().max(1))) else { continue };
            let at = (place + draw.below(160)).min(bytes.len() - 8);
            match draw.below(3) {
                0 => bytes[at] = draw.below(256) as u8,
                1 => {
                    // Addresses of something else make trees that contain themselves.
                    let other = places[draw.below(places.len())] as u64;
                    bytes[at / 8 * 8..at / 8 * 8 + 8].copy_from_slice(&other.to_le_bytes());
                }
                _ => bytes[at..at + 4].fill([0, 0xff, 0x7f][draw.below(3)]),
            }
        }
        let _ = read(bytes);
    }
}
