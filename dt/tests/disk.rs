//! Rows on disk give the batches that rows in memory give, bit for bit, and say so when they cannot.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tsn_dt::Error;
use tsn_dt::data::batch::{Choice, Layout, Padding, Sampler, Sampling};
use tsn_dt::data::disk::{DiskRows, Keep};
use tsn_dt::data::episodes::{Actions, Episodes, Moments, Observations, Piece, Rewards};
use tsn_dt::env::ObsShape;

const LENGTHS: [u32; 5] = [3, 70, 1, 12, 4];
const ROWS: usize = 90;
/// Bytes before the first value.
const START: usize = 13;

fn file(name: &str, bytes: impl Iterator<Item = u8>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tsn-dt-disk-{name}-{}", std::process::id()));
    let all: Vec<u8> = [0xff; START].into_iter().chain(bytes).collect();
    fs::write(&path, all).expect("a file");
    path
}

fn episodes(observations: Observations) -> Episodes {
    let actions = Actions::Discrete { count: 2, ids: vec![1; ROWS] };
    Episodes::new(observations, actions, vec![1.0; ROWS], &LENGTHS, Rewards::AsStored).expect("valid")
}

fn on_disk(path: &std::path::Path, shape: ObsShape, keep: Keep) -> Result<Observations, Error> {
    Ok(Observations::Disk(Arc::new(DiskRows::open(path, START as u64, ROWS, shape, keep)?)))
}

fn compare(memory: &Episodes, disk: &Episodes, how: &Sampling) {
    let chosen = [0, 1, 2, 3, 4];
    let samplers = [memory, disk].map(|data| Sampler::new(data, &chosen, how.clone()).expect("valid"));
    let [mut a, mut b] = [samplers[0].batch(), samplers[1].batch()];
    for step in 0..20 {
        samplers[0].fill(&mut a, step);
        samplers[1].fill(&mut b, step);
        assert_eq!(a, b, "step {step}");
    }
    for index in 0..samplers[0].tile_batches() {
        samplers[0].fill_tile(&mut a, index);
        samplers[1].fill_tile(&mut b, index);
        assert_eq!(a, b, "tile {index}");
    }
    samplers[1].intact().expect("all reads worked");
}

#[test]
fn vectors_are_the_same_bits() {
    // Wide enough that a window is read in several pieces, and a piece ends inside a row.
    let dim = 107;
    let values: Vec<f32> = (0..ROWS * dim).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let path = file("vectors", values.iter().flat_map(|v| v.to_le_bytes()));
    let shape = ObsShape::Vector { dim };
    let disk = episodes(on_disk(&path, shape, Keep::WhileUsed).expect("rows"));
    let memory = episodes(Observations::Vectors { dim, values: values.clone() });
    assert_eq!(memory.moments(), disk.moments());
    assert_eq!(memory.observations().row(7), disk.observations().row(7));
    let mut seen = Vec::new();
    let keep = |piece: Piece<'_>| match piece {
        Piece::Values(some) => seen.extend_from_slice(some),
        Piece::Pixels(_) => panic!("vectors"),
    };
    disk.observations().visit(keep).expect("readable");
    assert_eq!(seen, values);
    let layout = Layout { width: dim + 3, places: (0..dim).map(|j| dim + 2 - j).collect() };
    for (moments, layout) in [(None, None), (memory.moments(), None), (memory.moments(), Some(layout))] {
        for (padding, choice) in [(Padding::Left, Choice::Windows), (Padding::Right, Choice::Episodes)] {
            let how =
                Sampling { moments: moments.clone(), layout: layout.clone(), padding, choice, ..Sampling::new(6, 20) };
            compare(&memory, &disk, &how);
        }
    }
    drop(disk);
    assert!(!path.exists(), "a copy goes with its last use");
}

#[test]
fn frames_are_the_same_stacks() {
    let (height, width) = (3, 5);
    let bytes: Vec<u8> = (0..ROWS * 15).map(|i| (i * 7 % 251) as u8).collect();
    let path = file("frames", bytes.iter().copied());
    let disk = episodes(on_disk(&path, ObsShape::Frame { height, width }, Keep::Always).expect("rows"));
    let memory = episodes(Observations::Frames { height, width, bytes });
    assert_eq!((memory.moments(), disk.moments()), (None::<Moments>, None));
    assert_eq!(memory.observations().row(89), disk.observations().row(89));
    for stack in [1, 2, 4] {
        for padding in [Padding::Left, Padding::Right] {
            compare(&memory, &disk, &Sampling { stack, padding, ..Sampling::new(6, 20) });
        }
    }
    drop(disk);
    assert!(path.exists(), "a user's file stays");
    fs::remove_file(path).expect("removable");
}

#[test]
fn bad_files_are_named_before_and_during_use() {
    let dim = 2;
    let values: Vec<f32> = (0..ROWS * dim).map(|i| if i == 41 { f32::NAN } else { 1.0 }).collect();
    let shape = ObsShape::Vector { dim };
    let path = file("bad", values.iter().flat_map(|v| v.to_le_bytes()));
    let text = |result: Result<Observations, Error>| result.expect_err("refused").to_string();
    let nan = text(on_disk(&path, shape, Keep::Always));
    assert_eq!(nan, "observations row 20 column 1: expected a finite number, found NaN");
    assert!(text(on_disk(&path.with_extension("none"), shape, Keep::Always)).contains("observations on disk"));
    for dim in [3, usize::MAX] {
        let short = text(on_disk(&path, ObsShape::Vector { dim }, Keep::Always));
        assert!(short.contains("do not lie in its 733 bytes"), "{short}");
    }
    fs::write(&path, vec![0; START + 4 * ROWS * dim]).expect("a file");
    let data = episodes(on_disk(&path, shape, Keep::Always).expect("rows"));
    let sampler = Sampler::new(&data, &[1], Sampling::new(4, 5)).expect("valid");
    let mut batch = sampler.batch();
    sampler.fill(&mut batch, 0);
    assert_eq!(data.intact(), Ok(()));
    fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(20)).expect("truncated");
    sampler.fill(&mut batch, 1);
    let error = sampler.intact().expect_err("a failed read").to_string();
    assert!(error.contains("tsn-dt-disk-bad"), "{error}");
    assert!(data.observations().visit(|_| ()).is_err());
    fs::remove_file(path).expect("removable");
}
