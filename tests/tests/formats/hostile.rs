//! Files that somebody made to do harm: no panic, and the same answer as the reference reader.

use crate::counting;
use crate::samples::{bank_bytes, header_length, rng, sample, sample_bank};
use kernels::philox::Rng;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use tsn::Error;
use tsn::bank::Bank;
use tsn::file::{FileError, TensorFile};

/// Damages a valid file the way a clever attacker would: tokens, numbers, structure, lengths.
fn mutate(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    const NUMBERS: [&str; 14] = [
        "0",
        "1",
        "2",
        "7",
        "8",
        "16",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "1.0",
        "1e3",
        "00",
    ];
    const TOKENS: [&str; 22] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "null",
        "true",
        " ",
        "\n",
        "\\u0041",
        "\\ud800",
        "\\ud83d\\ude00",
        "\"x\":",
        "\"dtype\":\"F32\",",
        "\"shape\":[0]",
        "\"data_offsets\":[0,0]",
        "\u{1}",
        "é",
        "[[[[[[[[[[[[[[[[",
    ];
    const TYPES: [&str; 9] = ["F32", "U8", "BOOL", "F64", "I16", "F4", "F6_E2M3", "F8_E8M0", "X9"];
    let pick = |rng: &mut Rng, n: usize| rng.below(n.max(1) as u64) as usize;
    let length = header_length(original);
    let mut header = original[8..8 + length].to_vec();
    let mut payload = original[8 + length..].to_vec();
    let mut stated = None;
    for _ in 0..1 + pick(rng, 3) {
        // A run of bytes of one class: a number, a word, or what stands between.
        let class = |b: u8| (b.is_ascii_digit(), b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        let token = |rng: &mut Rng, header: &[u8], want: fn(u8) -> bool| {
            let from = pick(rng, header.len());
            let start = (from..header.len()).find(|at| want(header[*at])).unwrap_or(0);
            let end = (start..header.len()).find(|at| class(header[*at]) != class(header[start]));
            start..end.unwrap_or(header.len())
        };
        match pick(rng, 12) {
            0..3 => {
                let at = token(rng, &header, |b| b.is_ascii_digit());
                header.splice(at, NUMBERS[pick(rng, NUMBERS.len())].bytes());
            }
            3 => {
                let at = pick(rng, header.len());
                header.splice(at..at, TOKENS[pick(rng, TOKENS.len())].bytes());
            }
            4 => {
                let (one, other) = (token(rng, &header, |b| b.is_ascii_alphabetic()), token(rng, &header, |_| true));
                let copied = header[other].to_vec();
                header.splice(one, copied);
            }
            5 => {
                let at = token(rng, &header, |b| b == b'F' || b == b'U' || b == b'I');
                header.splice(at, TYPES[pick(rng, TYPES.len())].bytes());
            }
            6 => {
                let at = pick(rng, header.len());
                let end = (at + 1 + pick(rng, 40)).min(header.len());
                let span = header[at..end].to_vec();
                let to = if pick(rng, 2) == 0 { at..at } else { at..end };
                header.splice(to, if pick(rng, 2) == 0 { span } else { Vec::new() });
            }
            7 => {
                let at = pick(rng, header.len());
                if let Some(byte) = header.get_mut(at) {
                    *byte ^= 1 << pick(rng, 8);
                }
            }
            8 => payload.truncate(pick(rng, payload.len() + 1)),
            9 => payload.resize(payload.len() + pick(rng, 70), 0xA5),
            10 => stated = Some([0, 1, header.len() as u64 + 1, 1 << 24, 1 << 63, u64::MAX][pick(rng, 6)]),
            _ => {
                let at = pick(rng, payload.len());
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= 1 << pick(rng, 8);
                }
            }
        }
    }
    let stated = stated.unwrap_or(header.len() as u64);
    [&stated.to_le_bytes()[..], &header, &payload].concat()
}

/// Hostile banks past the checksum: no panic, no allocation beyond the promise.
#[test]
fn hostile_bytes_never_panic() {
    let originals = [bank_bytes(&sample_bank()), sample().encode().expect("encodable")];
    let mut rng = rng(2);
    let (mut refused, mut containers) = (0, 0);
    for round in 0..20_000 {
        let bytes = mutate(&mut rng, &originals[usize::from(round % 4 == 0)]);
        let size = bytes.len();
        let peak = counting::peak(|| {
            let file = TensorFile::parse_foreign(bytes);
            containers += usize::from(file.is_ok());
            let bank = file.map_err(Error::from).and_then(Bank::from_file);
            refused += usize::from(bank.is_err_and(|error| !error.to_string().is_empty()));
        });
        assert!(peak + size <= 2 * size + (16 << 20), "round {round}: {peak} bytes for a file of {size}");
    }
    // Both gates are reached: many containers are fine and most banks are not.
    assert!(containers > 1_000 && refused > 15_000, "{containers} containers, {refused} refused banks");
}

/// Acceptance and content agree with the reference reader, except where this one is deliberately stricter.
#[test]
fn agrees_with_the_reference_reader() {
    let originals = [sample().encode().expect("encodable"), bank_bytes(&sample_bank())];
    let mut rng = rng(3);
    let (mut both, mut neither, mut stricter) = (0, 0, 0);
    for round in 0..10_000 {
        let bytes = match round {
            0 | 1 => originals[round].clone(),
            _ => mutate(&mut rng, &originals[round % 2]),
        };
        let ours = TensorFile::parse_foreign(bytes.clone());
        match (ours, SafeTensors::deserialize(&bytes)) {
            (Ok(ours), Ok(theirs)) => {
                both += 1;
                assert_eq!(ours.tensors().len(), theirs.len(), "round {round}");
                for tensor in ours.tensors() {
                    let view = theirs.tensor(tensor.name()).expect("the same names");
                    let shape: Vec<u64> = view.shape().iter().map(|size| *size as u64).collect();
                    assert_eq!((tensor.dtype().to_string(), tensor.shape()), (view.dtype().to_string(), &shape[..]));
                    assert_eq!(ours.bytes(tensor), view.data(), "round {round}, {}", tensor.name());
                }
                let (_, header) = SafeTensors::read_metadata(&bytes).expect("read before");
                let theirs: BTreeMap<&str, &str> = match header.metadata() {
                    Some(entries) => entries.iter().map(|(k, v)| (&**k, &**v)).collect(),
                    None => BTreeMap::new(),
                };
                assert_eq!(ours.metadata_entries().collect::<BTreeMap<_, _>>(), theirs, "round {round}");
            }
            (Err(_), Err(_)) => neither += 1,
            (Ok(_), Err(theirs)) => panic!("round {round}: accepted here, refused there: {theirs}"),
            (Err(FileError::Duplicate { .. } | FileError::UnknownField { .. } | FileError::TooMany { .. }), Ok(_)) => {
                stricter += 1;
            }
            (Err(ours), Ok(_)) => panic!("round {round}: refused here, accepted there: {ours}"),
        }
    }
    assert!(both > 500 && neither > 1_000, "{both} accepted, {neither} refused, {stricter} by us alone");
}
