//! Files of the learner: round trips, damage, hostile bytes, faults while writing, agreement with the reference reader.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use kernels::BitMask;
use kernels::philox::{Rng, Stream};
use safetensors::SafeTensors;
use tsn::affinity::online::{Content, FrameContent};
use tsn::bank::{ActionKind, Bank, Codebook, CopyRecord, FORMAT_VERSION, Named, TaskRecord, Weight};
use tsn::file::{Dtype, FileError, Step, TensorFile, TensorWriter, replace_file, replace_file_with};
use tsn::{Error, sha256};

/// A directory of one test, empty at its start.
fn directory(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("formats-{test}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a writable target directory");
    path
}

fn rng(place: u32) -> Rng {
    Rng::new(20_260, Stream::Data, [place, 0])
}

/// Every type, an empty tensor, a single value, names and values that need escapes.
fn sample() -> TensorWriter {
    let mut file = TensorWriter::new();
    file.meta("plain", "text");
    file.meta("quo\"te \\ \n\u{1}", "Grüße \u{1F600} \t");
    file.add("u8", &[3], &[1u8, 2, 255]);
    file.add("f32", &[2, 3], &[1.0f32, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 3.5]);
    file.add("f64", &[1, 2], &[1e300, -2.5f64]);
    file.add("u16", &[2], &[7u16, 65_535]);
    file.add("u32", &[1], &[u32::MAX]);
    file.add("i64", &[2], &[i64::MIN, 5]);
    file.add("u64", &[], &[u64::MAX]);
    file.add("empty", &[4, 0], &[0.0f32; 0]);
    file.add_bytes("half \"quoted\"", Dtype::F16, &[2], vec![0x00, 0x3C, 0x01, 0x00]);
    file.add_bytes("brain", Dtype::BF16, &[1], vec![0x80, 0x3F]);
    file.add_bytes("flags", Dtype::BOOL, &[3], vec![1, 0, 1]);
    file
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize
}

/// Two copies, three tasks, a codebook, every list filled.
fn sample_bank() -> Bank {
    let values = |n: u32, offset: f32| (0..n).map(|i| i as f32 * 0.25 + offset).collect::<Vec<f32>>();
    let weight = |name: &str, rows, cols| Weight {
        name: name.into(),
        rows,
        cols,
        values: values(rows * cols, 1.0),
        occupied: Some(BitMask::zeros(rows, cols)),
    };
    let te = Weight { name: "te".into(), rows: 4, cols: 3, values: values(12, 0.0), occupied: None };
    // Not in alphabetical order: the order of the model must survive.
    let copy = CopyRecord { weights: vec![weight("z.fc", 3, 37), te, weight("a.bias", 1, 5)] };
    let mut bank = Bank { copies: vec![copy.clone(), copy], ..Bank::default() };
    bank.config = [("profile", "corrected"), ("width", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    for (t, copy) in [0, 0, 1].into_iter().enumerate() {
        let bits = |rows, cols, step: usize| {
            BitMask::from_flags(rows, cols, (0..rows as usize * cols as usize).map(|i| (i + t) % step == 0))
        };
        bank.tasks.push(TaskRecord {
            name: format!("task {t}"),
            copy,
            source: (t == 1).then_some(0),
            masks: vec![bits(3, 37, 3), bits(1, 5, 2)],
            norms: vec![Named::vector("ln_f.weight", values(6, 1.0)), Named::vector("enc.bias", values(2, 0.0))],
            obs_mean: values(4, 0.0),
            obs_std: values(4, 1.0),
            rtg_scale: 1556.0,
            target_return: -0.000_32,
            action: match t {
                0 => ActionKind::Continuous { d: 4, active: vec![0, 3] },
                _ => ActionKind::Discrete { n: 18, valid: vec![0, 1, 17] },
            },
            keep_ratio: 1.0 / 3.0,
            latent_mean: values(3, 0.5),
            latent_var: values(3, 2.0),
            extra: vec![Named { name: "prototypes".into(), shape: vec![2, 3], values: values(6, 0.0) }],
            own_loss: 0.1 + 0.2,
            claimed: 0,
            codebooks: Vec::new(),
            online: tsn_tests::online::online(t),
            notes: [("seed".to_owned(), "7".to_owned())].into(),
        });
        let masks = bank.tasks[t].masks.clone();
        let occupied = bank.copies[copy].weights.iter_mut().filter_map(|w| w.occupied.as_mut());
        bank.tasks[t].claimed = occupied
            .zip(&masks)
            .map(|(occupied, mask)| {
                let new = mask.and_not(occupied).count() as u64;
                *occupied = occupied.or(mask);
                new
            })
            .sum();
    }
    // Quantise what the second task claimed of the large tensor: an odd number of codes.
    let new = bank.newly_claimed(1).expect("a valid bank")[0].clone();
    let centres = vec![0.5, -2.0, 8.0];
    let codes: Vec<u8> = (0..new.count()).map(|i| (i % 3) as u8).collect();
    let weight = &mut bank.copies[0].weights[0];
    let claimed = weight.values.iter_mut().zip(new.flags()).filter(|(_, flag)| *flag);
    claimed.zip(&codes).for_each(|((value, _), code)| *value = centres[usize::from(*code)]);
    assert_eq!(codes.len() % 2, 1);
    bank.tasks[1].codebooks.push(Codebook { tensor: "z.fc".into(), centres, codes });
    bank
}

fn bank_bytes(bank: &Bank) -> Vec<u8> {
    bank.to_writer().expect("a valid bank").encode().expect("an encodable bank")
}

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

/// Every promise a bank makes, broken one at a time, is refused with the words of that promise.
#[test]
fn contradictions_are_refused() {
    type Break = fn(&mut Bank);
    let breaks: [(&str, Break); 30] = [
        ("copy 0", |b| b.copies[0].weights.clear()),
        ("unique", |b| b.copies[0].weights[1].name = "z.fc".into()),
        ("values", |b| b.copies[0].weights[0].values.push(0.0)),
        ("the shape of the weight", |b| b.copies[0].weights[0].occupied = Some(BitMask::zeros(3, 36))),
        ("union", |b| b.copies[0].weights[0].occupied = Some(BitMask::ones(3, 37))),
        ("unique", |b| b.tasks[1].name = "task 0".into()),
        ("copy", |b| b.tasks[2].copy = 2),
        ("from the masks", |b| b.tasks[2].copy = 0),
        ("earlier", |b| b.tasks[1].source = Some(1)),
        ("one per masked tensor", |b| b.tasks[0].masks.truncate(1)),
        ("the shape of the weight", |b| b.tasks[0].masks.swap(0, 1)),
        ("from the masks", |b| b.tasks[0].claimed += 1),
        ("unique", |b| b.tasks[0].norms[1].name = "ln_f.weight".into()),
        ("shape", |b| b.tasks[0].norms[0].shape = vec![5]),
        ("shape", |b| b.tasks[0].extra[0].shape = vec![u64::MAX, 6]),
        ("obs_std", |b| b.tasks[0].obs_std.truncate(1)),
        ("latent_var", |b| b.tasks[0].latent_mean.clear()),
        ("rtg_scale", |b| b.tasks[0].rtg_scale = 0.0),
        ("target_return", |b| b.tasks[0].target_return = f64::NAN),
        ("keep_ratio", |b| b.tasks[0].keep_ratio = 1.4),
        ("actions", |b| b.tasks[0].action = ActionKind::Discrete { n: 4, valid: vec![4] }),
        ("actions", |b| b.tasks[0].action = ActionKind::Continuous { d: 4, active: vec![1, 1] }),
        ("centres", |b| b.tasks[1].codebooks[0].centres = vec![0.0; 17]),
        ("codes", |b| b.tasks[1].codebooks[0].codes.truncate(1)),
        ("codes below 3", |b| b.tasks[1].codebooks[0].codes[0] = 3),
        ("centre 0", |b| b.tasks[1].codebooks[0].centres[0] = 0.25),
        ("places", |b| b.tasks[0].online.as_mut().expect("described").places.push(1)),
        ("places", |b| b.tasks[0].online.as_mut().expect("described").places = vec![3, 3]),
        ("fits its signature", |b| {
            b.tasks[0].online.as_mut().expect("described").descriptor.content = frames(f32::NAN)
        }),
        ("fits its signature", |b| {
            b.tasks[1].online.as_mut().expect("described").descriptor.content = frames(f32::NAN)
        }),
    ];
    for (at, (word, break_it)) in breaks.into_iter().enumerate() {
        let mut bank = sample_bank();
        break_it(&mut bank);
        let text = bank.check().expect_err(word).to_string();
        assert!(text.contains(word), "{at}: {text}");
        assert!(bank.to_writer().is_err(), "{at}: written all the same");
    }
}

fn frames(mean: f32) -> Content {
    Content::Frame(FrameContent { prototypes: vec![0.5; 12], mean, sd: 0.0625 })
}

/// The same for what only a file can get wrong.
#[test]
fn contradictory_files_are_refused() {
    type Break = fn(&mut TensorWriter);
    let breaks: [(&str, Break); 21] = [
        ("config_hash", |w| w.meta("config.profile", "official")),
        ("copies", |w| w.meta("copies", "1000000000000")),
        ("a copy below", |w| w.meta("copies", "1")),
        ("at least one weight", |w| w.meta("copies", "3")),
        ("task.3", |w| w.meta("tasks", "18446744073709551615")),
        ("a task below", |w| w.meta("tasks", "2")),
        ("a number", |w| w.meta("tasks", "-1")),
        ("below", |w| w.meta("task.0.copy", "7")),
        ("discrete", |w| w.meta("task.0.action", "both")),
        ("commas", |w| w.meta("task.0.actions", "")),
        ("codes", |w| w.meta("task.1.codes.z.fc", "1")),
        ("signature", |w| w.meta("task.0.route", "1 vector 2")),
        ("1 and a signature", |w| w.meta("task.0.route", "one")),
        ("newer build", |w| w.meta("task.0.route", "2 vector 2 discrete 1")),
        ("0 or 1", |w| w.meta("task.0.route.clip_rewards", "yes")),
        ("fits its signature", |w| w.meta("task.0.route", "1 vector 4294967295 discrete 4294967295")),
        ("only copy.", |w| w.add("task.2.route.mean", &[1], &[0f32])),
        ("only copy.", |w| w.add("stray", &[1], &[0u8])),
        ("only copy.", |w| w.add("task.00.norm.x", &[1], &[0f32])),
        ("only copy.", |w| w.add("task.0.mask.te", &[4, 1], &[0u32; 4])),
        ("only copy.", |w| w.add("copy.0.occupied.none", &[4, 1], &[0u32; 4])),
    ];
    for (at, (word, break_it)) in breaks.into_iter().enumerate() {
        let mut writer = sample_bank().to_writer().expect("valid");
        break_it(&mut writer);
        let file = TensorFile::parse(writer.encode().expect("encodable")).expect("readable");
        let text = Bank::from_file(file).expect_err(word).to_string();
        assert!(text.contains(word), "{at}: {text}");
    }
}

#[test]
fn pad_bits_are_refused() {
    let bytes = bank_bytes(&sample_bank());
    let file = TensorFile::parse(bytes.clone()).expect("readable");
    let mask = file.bytes(file.tensor("task.0.mask.a.bias").expect("present")).to_vec();
    assert_eq!(mask, [0b10101, 0, 0, 0]);
    // The last mask byte of a five-bit row is padding; the position of the tensor follows from those before it.
    let before: usize =
        file.tensors().iter().take_while(|t| t.name() != "task.0.mask.a.bias").map(|t| file.bytes(t).len()).sum();
    let mut damaged = bytes;
    let at = 8 + header_length(&damaged) + before;
    damaged[at] |= 1 << 5;
    let file = TensorFile::parse_foreign(damaged).expect("a valid container");
    let text = Bank::from_file(file).expect_err("a pad bit").to_string();
    assert!(text.contains("pad bits"), "{text}");
}

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

/// The k-th operation fails, for every k: the old file stays whole, the error has a path and the cause, nothing is left
/// behind.
#[test]
fn faults_while_writing_keep_the_old_file() {
    let folder = directory("faults");
    let path = folder.join("bank.tsn");
    let (old, new) = (vec![1u8; 10], vec![2u8; (2 << 20) + 5]);
    for has_old in [true, false] {
        let mut steps = Vec::new();
        for k in 0.. {
            let _ = fs::remove_file(&path);
            if has_old {
                fs::write(&path, &old).expect("writable");
            }
            steps.clear();
            let saved = replace_file_with(&path, &new, &mut |step| {
                steps.push(step);
                if steps.len() > k { Err(io::Error::other("injected: disk full")) } else { Ok(()) }
            });
            let names: Vec<_> =
                fs::read_dir(&folder).expect("readable").map(|e| e.expect("entry").file_name()).collect();
            let found = fs::read(&path).ok();
            let Err(error) = saved else {
                assert_eq!(found.as_ref(), Some(&new));
                break;
            };
            let text = error.to_string();
            assert!(text.contains("injected: disk full") && text.contains("formats-faults"), "{text}");
            if steps.last() == Some(&Step::SyncDirectory) {
                assert_eq!(found.as_ref(), Some(&new), "whole once renamed");
            } else {
                assert_eq!(found.as_ref(), has_old.then_some(&old), "after {steps:?}");
            }
            assert_eq!(names.len(), usize::from(found.is_some()), "left behind after {steps:?}: {names:?}");
        }
        use Step::{Create, Permissions, Rename, Sync, SyncDirectory, Write};
        let all = [Create, Permissions, Write, Write, Write, Sync, Rename, SyncDirectory];
        let expected: Vec<Step> = all.into_iter().filter(|step| has_old || *step != Permissions).collect();
        assert_eq!(steps, expected);
    }
}

#[test]
fn errors_of_the_system_name_the_path() {
    let folder = directory("system");
    let missing = folder.join("none").join("bank.tsn");
    let text = replace_file(&missing, b"x").expect_err("no such directory").to_string();
    assert!(text.contains("none") && text.contains("create"), "{text}");
    let text = replace_file(&folder, b"x").expect_err("a directory").to_string();
    assert!(text.contains("formats-system"), "{text}");
    assert_eq!(fs::read_dir(&folder).expect("still there").count(), 0);
    let text = Bank::open(&missing).expect_err("no such file").to_string();
    assert!(text.contains("none") && text.contains("cannot read"), "{text}");
    let text = Bank::open(&folder).expect_err("a directory").to_string();
    assert!(text.contains("not a regular file"), "{text}");
    assert!(replace_file(std::path::Path::new("/"), b"x").is_err());
}

#[cfg(unix)]
#[test]
fn permissions_and_links_are_kept() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = directory("permissions");
    let (path, link) = (folder.join("bank.tsn"), folder.join("link.tsn"));
    fs::write(&path, b"old").expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    symlink(&path, &link).expect("linked");
    replace_file(&link, b"new").expect("replaced");
    assert_eq!(fs::read(&path).expect("readable"), b"new");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
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

/// An allocator that knows, per thread, the bytes held and their peak.
mod counting {
    #![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    thread_local! {
        static HELD: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    fn count(change: isize) {
        // Gone while a thread ends; nothing is measured then.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + change);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
    }

    // SAFETY: every call is passed on to the system allocator unchanged; counting touches no memory it hands out.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as isize);
            // SAFETY: the caller's promise about `layout` is the one needed here.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(-(layout.size() as isize));
            // SAFETY: `pointer` came from `alloc` above with this layout, as the caller promises.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    /// Most bytes this thread held at once during `work`, above what it held before.
    pub(super) fn peak(work: impl FnOnce()) -> usize {
        let before = HELD.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        work();
        (PEAK.with(Cell::get) - before).max(0) as usize
    }
}
