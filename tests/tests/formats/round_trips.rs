//! What is written comes back, and what could not be read is not written.

use crate::samples::{bank_bytes, directory, header_length, sample, sample_bank};
use std::fs;
use tsn::bank::{Bank, FORMAT_VERSION};
use tsn::file::{Dtype, FileError, TensorFile, TensorWriter};
use tsn::{Error, sha256};

#[test]
fn tensors_come_back() {
    let path = directory("tensors").join("sample.safetensors");
    let sum = sample().save(&path).expect("saved");
    let file = TensorFile::open(&path).expect("readable");
    assert_eq!(file.checksum(), Some(&*sum));
    assert_eq!(file.metadata("quo\"te \\ \n\u{1}"), Some("Grüße \u{1F600} \t"));
    assert_eq!(file.metadata("absent"), None);
    let tensor = |name: &str| file.tensor(name).expect("present");
    let floats: Vec<u32> = file.values::<f32>(tensor("f32")).expect("f32").iter().map(|v| v.to_bits()).collect();
    let written = [1.0f32, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 3.5].map(f32::to_bits);
    assert_eq!(floats, written);
    assert_eq!(tensor("f32").shape(), [2, 3]);
    assert_eq!(file.values::<u64>(tensor("u64")).expect("u64"), [u64::MAX]);
    assert_eq!(file.values::<i64>(tensor("i64")).expect("i64"), [i64::MIN, 5]);
    assert_eq!(file.floats(tensor("f64")).expect("floats"), [f32::INFINITY, -2.5]);
    assert_eq!(file.floats(tensor("half \"quoted\"")).expect("floats"), [1.0, 2f32.powi(-24)]);
    assert_eq!(file.floats(tensor("brain")).expect("floats"), [1.0]);
    assert!(matches!(file.floats(tensor("u8")), Err(FileError::WrongDtype { .. })));
    assert!(matches!(file.tensor("absent"), Err(FileError::Missing { .. })));
    // Each tensor begins at a multiple of its element size.
    let bytes = fs::read(&path).expect("readable");
    let mut at = 8 + header_length(&bytes);
    for tensor in file.tensors() {
        assert_eq!(at as u64 * 8 % tensor.dtype().bits(), 0, "{}", tensor.name());
        at += file.bytes(tensor).len();
    }
}

#[test]
fn all_halves_decode() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut writer = TensorWriter::new();
    writer.add_bytes("x", Dtype::F16, &[65_536], bytes);
    let file = TensorFile::parse(writer.encode().expect("encodable")).expect("readable");
    let values = file.floats(&file.tensors()[0]).expect("floats");
    for (bits, value) in values.iter().enumerate() {
        let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, (bits & 1023) as f64);
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1.0 + fraction / 1024.0) * 2f64.powi(e as i32 - 15),
        };
        let exact = if sign == 1 { -size } else { size };
        assert!(f64::from(*value) == exact || value.is_nan() && exact.is_nan(), "{bits:#06x}: {value}");
        assert!(value.is_nan() || value.is_sign_negative() == (sign == 1), "{bits:#06x}");
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut twice = TensorWriter::new();
    twice.add("x", &[1], &[1u8]);
    twice.add("x", &[1], &[1u8]);
    assert_eq!(twice.encode(), Err(FileError::Duplicate { key: "x".into() }));
    let mut shape = TensorWriter::new();
    shape.add("x", &[2, 2], &[1.0f32; 3]);
    assert_eq!(shape.encode(), Err(FileError::WrongSize { tensor: "x".into(), expected: 16, found: 12 }));
    let mut huge = TensorWriter::new();
    huge.add("x", &[u64::MAX, 2], &[0u8; 0]);
    assert_eq!(huge.encode(), Err(FileError::Overflow { tensor: "x".into() }));
    let mut dims = TensorWriter::new();
    dims.add("x", &[1; 9], &[1u8]);
    assert!(matches!(dims.encode(), Err(FileError::TooMany { .. })));
}

#[test]
fn banks_come_back() {
    let path = directory("banks").join("bank.tsn");
    let bank = sample_bank();
    let sum = bank.save(&path).expect("saved");
    let opened = Bank::open(&path).expect("readable");
    assert_eq!(opened.parent.as_deref(), Some(&*sum));
    assert_eq!(Bank { parent: None, ..opened.clone() }, bank);
    // Parent checksums form a chain, and the same bank gives the same bytes.
    opened.save(&path).expect("saved");
    assert_eq!(TensorFile::open(&path).expect("readable").metadata("parent"), Some(&*sum));
    assert_eq!(bank_bytes(&bank), bank_bytes(&sample_bank()));
    let empty = Bank::default();
    let again = TensorFile::parse(bank_bytes(&empty)).expect("readable");
    assert_eq!(Bank { parent: None, ..Bank::from_file(again).expect("valid") }, empty);
}

#[test]
fn newer_and_foreign_banks_are_named() {
    let mut writer = sample_bank().to_writer().expect("valid");
    writer.meta("format", format!("tsn-bank {}", FORMAT_VERSION + 8));
    let error = Bank::from_file(TensorFile::parse(writer.encode().expect("encodable")).expect("readable"));
    let text = error.expect_err("newer").to_string();
    assert!(text.contains("version 10") && text.contains("version 2"), "{text}");
    for format in ["pt", "tsn-bank", "tsn-bank 0", "tsn-bank x", "tsn-bank 99999999999"] {
        writer.meta("format", format);
        let file = TensorFile::parse(writer.encode().expect("encodable")).expect("readable");
        assert!(matches!(Bank::from_file(file), Err(Error::Bank { .. })), "{format}");
    }
    let file = TensorFile::parse(sample().encode().expect("encodable")).expect("readable");
    assert!(Bank::from_file(file).expect_err("no bank").to_string().contains("tsn-bank"));
}

/// The checksum is what it says: anyone can recompute it with any SHA-256.
#[test]
fn the_checksum_is_documented() {
    let bytes = sample().encode().expect("encodable");
    let file = TensorFile::parse(bytes.clone()).expect("readable");
    let sum = file.checksum().expect("present");
    let at = bytes.windows(64).position(|window| window == sum.as_bytes()).expect("in the header");
    let zeroed = [&bytes[..at], &[b'0'; 64], &bytes[at + 64..]].concat();
    assert_eq!(sha256::hex(&zeroed), sum);
}
