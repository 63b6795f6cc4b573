//! Banks that contradict themselves are refused with the words of the promise they break.

use crate::samples::{bank_bytes, header_length, sample_bank};
use kernels::BitMask;
use tsn::affinity::online::{Content, FrameContent};
use tsn::bank::{ActionKind, Bank};
use tsn::file::{TensorFile, TensorWriter};

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
