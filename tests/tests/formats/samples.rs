//! A tensor file and a bank with something of everything, and where a test puts its files.

use kernels::BitMask;
use kernels::philox::{Rng, Stream};
use std::fs;
use std::path::PathBuf;
use tsn::bank::{ActionKind, Bank, Codebook, CopyRecord, Named, TaskRecord, Weight};
use tsn::file::{Dtype, TensorWriter};

/// A directory of one test, empty at its start.
pub(crate) fn directory(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("formats-{test}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a writable target directory");
    path
}

pub(crate) fn rng(place: u32) -> Rng {
    Rng::new(20_260, Stream::Data, [place, 0])
}

/// Every type, an empty tensor, a single value, names and values that need escapes.
pub(crate) fn sample() -> TensorWriter {
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

pub(crate) fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize
}

/// Two copies, three tasks, a codebook, every list filled.
pub(crate) fn sample_bank() -> Bank {
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

pub(crate) fn bank_bytes(bank: &Bank) -> Vec<u8> {
    bank.to_writer().expect("a valid bank").encode().expect("an encodable bank")
}
