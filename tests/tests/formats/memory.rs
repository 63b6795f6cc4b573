//! Reading takes no more memory than the file promises, whatever it says of itself.

use crate::counting;
use crate::samples::{directory, sample_bank};
use kernels::BitMask;
use std::fs;
use tsn::bank::{Bank, Weight};
use tsn::file::TensorFile;

/// Files made to need much memory: many small tensors, many entries, one long string, lies about sizes.
#[test]
fn allocation_is_bounded() {
    let file = |header: String| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let tensors = |n: usize| {
        let entry = |i| format!("\"{i:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
        format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","))
    };
    let weights = |n: usize| {
        let entry = |i| format!("\"copy.0.weight.{i:x}\":{{\"dtype\":\"F32\",\"shape\":[0,0],\"data_offsets\":[0,0]}}");
        let meta = "\"__metadata__\":{\"format\":\"tsn-bank 1\",\"copies\":\"1\",\"tasks\":\"0\"}";
        format!("{{{meta},{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","))
    };
    let metadata = |n: usize| {
        let entries = (0..n).map(|i| format!("\"{i:x}\":\"\"")).collect::<Vec<_>>().join(",");
        format!("{{\"__metadata__\":{{{entries}}}}}")
    };
    let long = format!("{{\"__metadata__\":{{\"x\":\"{}\\n\"}}}}", "a".repeat((16 << 20) - 100));
    let cases = [
        ("tensors at the limit", file(tensors(1 << 16)), true),
        ("tensors over the limit", file(tensors(200_000)), false),
        ("weights at the limit", file(weights(1 << 16)), true),
        ("metadata at the limit", file(metadata(1 << 16)), true),
        ("metadata over the limit", file(metadata(1_000_000)), false),
        ("a long string", file(long), true),
        ("deep nesting", file("[".repeat(1 << 20)), false),
        ("a header of 2^63 bytes", (1u64 << 63).to_le_bytes().to_vec(), false),
        ("a header of 16 MiB that is not there", (16u64 << 20).to_le_bytes().to_vec(), false),
    ];
    let path = directory("allocation").join("file");
    for (name, bytes, is_valid) in cases {
        fs::write(&path, &bytes).expect("writable");
        let peak = counting::peak(|| {
            let opened = TensorFile::open_foreign(&path);
            assert_eq!(opened.is_ok(), is_valid, "{name}: {:?}", opened.err());
            // No bank either way, and finding that out stays within the same bounds.
            assert!(opened.and_then(Bank::from_file).is_err(), "{name}");
        });
        assert!(peak <= 2 * bytes.len() + (16 << 20), "{name}: {peak} bytes for a file of {}", bytes.len());
    }
}

/// A bank with the most expensive shape there is: one column, so that a bit costs a word.
#[test]
fn allocation_of_a_large_bank_is_bounded() {
    let path = directory("large").join("bank.tsn");
    let rows = 1 << 21;
    let mut bank = sample_bank();
    bank.tasks.truncate(1);
    bank.copies.truncate(1);
    let mask = BitMask::from_flags(rows, 1, (0..rows).map(|i| i % 3 == 0));
    let (name, occupied) = ("tall".to_owned(), Some(mask.clone()));
    bank.copies[0].weights = vec![Weight { name, rows, cols: 1, values: vec![0.5; rows as usize], occupied }];
    bank.tasks[0].claimed = mask.count() as u64;
    bank.tasks[0].masks = vec![mask];
    bank.save(&path).expect("saved");
    let size = fs::metadata(&path).expect("there").len() as usize;
    let peak = counting::peak(|| assert!(Bank::open(&path).is_ok()));
    assert!(peak <= 2 * size + (16 << 20), "{peak} bytes for a file of {size}");
}
