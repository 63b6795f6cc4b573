//! Files that were cut, flipped or badly made are refused, each with the rule it breaks.

use crate::samples::{bank_bytes, header_length, rng, sample, sample_bank};
use safetensors::SafeTensors;
use tsn::file::{FileError, TensorFile};

#[test]
fn every_truncation_is_refused() {
    for bytes in [sample().encode().expect("encodable"), bank_bytes(&sample_bank())] {
        assert!(TensorFile::parse(bytes.clone()).is_ok());
        for length in 0..bytes.len() {
            assert!(TensorFile::parse_foreign(bytes[..length].to_vec()).is_err(), "{length} of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        let (expected, found) = (bytes.len() as u64, longer.len() as u64);
        let error = TensorFile::parse_foreign(longer).expect_err("a trailing byte");
        assert_eq!(error, FileError::WrongLength { expected, found });
    }
}

#[test]
fn every_flipped_bit_is_caught() {
    let mut writer = sample();
    let mut rng = rng(1);
    let noise: Vec<u32> = (0..2048).map(|_| rng.u32()).collect();
    writer.add("noise", &[2048], &noise);
    let bytes = writer.encode().expect("encodable");
    assert!(TensorFile::parse(bytes.clone()).is_ok());
    let payload = 8 + header_length(&bytes);
    let random = (0..10_000).map(|_| payload * 8 + rng.below(((bytes.len() - payload) * 8) as u64) as usize);
    let mut damaged = bytes.clone();
    for bit in (0..payload * 8).chain(random) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(TensorFile::parse(damaged.clone()).is_err(), "bit {bit} of {}", bytes.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// One malformed header per rule, with the rule it breaks; the reference reader refuses all but the last four too.
#[test]
fn each_rule_of_the_header_has_its_error() {
    let name = || "x".to_owned();
    let syntax = |at, expected, found| FileError::Syntax { at, expected, found };
    let number = "a whole number below 2^64 without leading zero";
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{offsets}]}}}}")
    };
    let second = |offsets: &str| {
        let first = tensor("U8", "4", "0,4");
        format!("{},\"y\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[{offsets}]}}}}", &first[..first.len() - 1])
    };
    let y = "y".to_owned();
    let cases = [
        (second("5,9"), FileError::WrongStart { tensor: y.clone(), expected: 4, found: 5 }),
        (second("2,6"), FileError::WrongStart { tensor: y.clone(), expected: 4, found: 2 }),
        (second("0,4"), FileError::WrongStart { tensor: y.clone(), expected: 4, found: 0 }),
        (tensor("U8", "8", "1,9"), FileError::WrongStart { tensor: name(), expected: 0, found: 1 }),
        (second("4,3"), FileError::Backwards { tensor: y.clone(), start: 4, end: 3 }),
        (tensor("F32", "8", "0,8"), FileError::WrongSize { tensor: name(), expected: 32, found: 8 }),
        (tensor("F4", "15", "0,8"), FileError::WrongSize { tensor: name(), expected: 8, found: 8 }),
        (tensor("U8", "4294967296,4294967296", "0,8"), FileError::Overflow { tensor: name() }),
        (tensor("U8", "2305843009213693953", "0,1"), FileError::Overflow { tensor: name() }),
        (tensor("U8", "7", "0,7"), FileError::WrongLength { expected: 0, found: 0 }),
        (tensor("U9", "8", "0,8"), FileError::UnknownDtype { tensor: name(), found: "U9".into() }),
        (tensor("U8", "8", "00,8"), syntax(47, number, Some('0'))),
        (tensor("U8", "08", "0,8"), syntax(28, number, Some('0'))),
        (tensor("U8", "-8", "0,8"), syntax(28, number, Some('-'))),
        (tensor("U8", "8.0", "0,8"), syntax(29, "`,` or `]`", Some('.'))),
        (tensor("U8", "8", "0,18446744073709551616"), syntax(49, number, Some('1'))),
        (tensor("U8", "8", "0"), syntax(49, "two data_offsets", Some('}'))),
        ("{\"x\":{\"dtype\":\"U8\"}}".into(), FileError::MissingField { tensor: name(), field: "shape" }),
        ("{} x".into(), syntax(3, "only spaces after the header", Some('x'))),
        ("{\"x".into(), syntax(3, "a closing quote", None)),
        ("{\"\n\":1}".into(), syntax(2, "a closing quote", Some('\n'))),
        ("{\"\\x\":1}".into(), syntax(2, "a JSON escape", Some('\\'))),
        ("{\"\\ud800x\":1}".into(), syntax(8, "the second half of a surrogate pair", Some('x'))),
        ("{\"\\udc00\":1}".into(), syntax(8, "a surrogate pair in order", Some('"'))),
        ("{\"\\u+0ab\":1}".into(), syntax(2, "a JSON escape", Some('\\'))),
        ("[]".into(), syntax(0, "`{` of the header", Some('['))),
        ("".into(), syntax(0, "`{` of the header", None)),
        ("{\"__metadata__\":{\"a\":1}}".into(), syntax(21, "a metadata string", Some('1'))),
        ("{\"__metadata__\":{},\"__metadata__\":{}}".into(), FileError::Duplicate { key: "__metadata__".into() }),
        // From here on stricter than the reference.
        ("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}".into(), FileError::Duplicate { key: "a".into() }),
        (
            tensor("U8", "8", "0,8").replace("{\"dtype", "{\"z\":1,\"dtype"),
            FileError::UnknownField { tensor: name(), found: "z".into() },
        ),
        (tensor("U8", "8,1,1,1,1,1,1,1,1", "0,8"), FileError::TooMany { what: "numbers in a list", limit: 8 }),
        (second("4,8").replace("\"y\"", "\"x\""), FileError::Duplicate { key: name() }),
    ];
    let strict = cases.len() - 4;
    for (at, (header, expected)) in cases.into_iter().enumerate() {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let found = TensorFile::parse_foreign(bytes.clone()).expect_err(&header);
        let expected = match expected {
            FileError::WrongLength { .. } => {
                FileError::WrongLength { expected: bytes.len() as u64 - 1, found: bytes.len() as u64 }
            }
            other => other,
        };
        assert_eq!(found, expected, "{header}");
        assert!(at >= strict || SafeTensors::deserialize(&bytes).is_err(), "accepted by the reference: {header}");
    }
}

#[test]
fn foreign_files_need_no_checksum_and_ours_do() {
    let bytes = [1u8, 2, 3, 4];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![4], &bytes).expect("a view");
    let theirs = safetensors::serialize([("x", view)], None).expect("serialised");
    let file = TensorFile::parse_foreign(theirs.clone()).expect("readable");
    assert_eq!(file.values::<u8>(file.tensor("x").expect("present")).expect("u8"), bytes);
    assert_eq!(TensorFile::parse(theirs).expect_err("no checksum"), FileError::NoChecksum);
}
