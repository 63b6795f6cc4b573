//! Minari and D4RL files: values known from their source, alignment, and what is refused.
//!
//! The files of `data` are cut from files that minari and h5py wrote, by `data/make.py`. Broken ones are made here with
//! the library's own writer.

#![expect(clippy::excessive_precision, reason = "numbers as their source prints them")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use dt::data::episodes::{Actions, Episodes, Observations};
use dt::env::{ActionSpace, ObsShape};
use hdf5_pure::FileBuilder;
use tsn_dt_io::{Expect, Format, check_any, load_any, load_npz, load_streamed, measure, read_hdf5, save_npz};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tsn-dt-io-hdf5-{name}-{}", std::process::id()))
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 1e-6, "{found:?} {expected:?}"));
}

#[test]
fn minari_episodes_follow_their_numbers() {
    // The folder, the file, and either of them by content.
    let of_folder = load_any(&data("cartpole"), &Expect::default()).expect("readable");
    let of_file = load_any(&data("cartpole/data/main_data.hdf5"), &Expect::default()).expect("readable");
    assert_eq!(of_folder, of_file);
    // rewards_sum of the episodes 0, 2, 10 and 11, which HDF5 lists as 0, 10, 11, 2.
    assert_eq!(of_folder.returns(), [12.0, 17.0, 20.0, 27.0]);
    assert_eq!(of_folder.rows(), 76);
    let Actions::Discrete { count: 2, .. } = of_folder.actions() else { panic!("the space has two actions") };
    assert_eq!(of_folder.observations().shape(), ObsShape::Vector { dim: 4 });
}

#[test]
fn minari_goals_are_flattened_and_the_last_observation_dropped() {
    let found = load_any(&data("reach"), &Expect::default()).expect("readable");
    // rewards_sum of both episodes.
    close(&found.returns(), &[-0.3303588442504406, -0.5693709943443537]);
    assert_eq!((found.rows_of(0), found.rows_of(1)), (0..4, 4..9));
    let first = [
        0.03843966871500015f32,
        -2.194472251484947e-12,
        0.19740013778209686,
        0.0,
        -0.0,
        0.0, // observation
        0.03843966871500015,
        -2.194472251484947e-12,
        0.19740013778209686, // achieved_goal
        0.1105358675122261,
        0.11612103879451752,
        0.06315185129642487, // desired_goal
    ];
    // The first row of episode 1, so nothing of episode 0 is in front of it.
    assert_eq!(found.observations().row(4), first);
    let Actions::Continuous { dim: 3, values } = found.actions() else { panic!("three dimensions") };
    assert_eq!(values[12..15], [-0.5124951601028442, 0.8929005861282349, 0.7920226454734802]);
}

#[test]
fn d4rl_episodes_end_at_their_marks() {
    let checked = check_any(&data("push.hdf5"), &Expect::default());
    assert_eq!(checked.format, Some(Format::D4rl));
    assert_eq!(checked.notes, ["the last 5 of 70 steps belong to no finished episode and are left out"]);
    let found = checked.episodes.expect("sound");
    close(&found.returns(), &[-3.4791721496731043, -3.6200977228581905, -1.878122229129076]);
    assert_eq!((found.rows_of(0), found.rows_of(1), found.rows_of(2)), (0..25, 25..49, 49..65));
    assert_eq!(found.observations().shape(), ObsShape::Vector { dim: 24 });
}

#[test]
fn npz_streams_and_footprints_agree() {
    for (name, rows, width) in [("cartpole", 76, 4), ("reach", 9, 12), ("push.hdf5", 70, 24)] {
        let memory = load_any(&data(name), &Expect::default()).expect("readable");
        let footprint = measure(&data(name)).expect("headers");
        assert_eq!((footprint.rows, footprint.observation_bytes), (rows, 4 * rows * width), "{name}");
        let cache = temporary(&format!("cache-{name}"));
        let streamed = load_streamed(&data(name), &Expect::default(), &cache).expect("readable");
        same(&memory, &streamed);
        assert!(cache.is_file());
        drop(streamed);
        assert!(!cache.exists(), "a cache goes with its last use");
        // As npz, where rows are read in place and nothing is unpacked.
        let npz = temporary(&format!("{name}.npz"));
        save_npz(&memory, &npz).expect("writable");
        assert_eq!(load_npz(&npz, &Expect { actions: space(&memory), ..Expect::default() }).expect("readable"), memory);
        same(
            &memory,
            &load_streamed(&npz, &Expect { actions: space(&memory), ..Expect::default() }, &cache).expect("readable"),
        );
        assert!(!cache.exists());
        let other = measure(&npz).expect("headers");
        assert_eq!((other.rows, other.observation_bytes), (memory.rows() as u64, memory.rows() as u64 * 4 * width));
        fs::remove_file(&npz).expect("removable");
    }
}

fn space(episodes: &Episodes) -> Option<ActionSpace> {
    Some(match episodes.actions() {
        Actions::Discrete { count, .. } => ActionSpace::Discrete(*count),
        Actions::Continuous { dim, .. } => ActionSpace::Box(*dim as u32),
    })
}

fn same(memory: &Episodes, streamed: &Episodes) {
    let Observations::Disk(_) = streamed.observations() else { panic!("observations are in memory") };
    assert_eq!(memory.moments(), streamed.moments());
    assert_eq!((memory.actions(), memory.rewards()), (streamed.actions(), streamed.rewards()));
    for row in 0..memory.rows() {
        assert_eq!(memory.observations().row(row), streamed.observations().row(row));
    }
}

#[test]
fn packed_frames_are_unpacked_into_the_cache() {
    let bytes: Vec<u8> = (0..6 * 20).map(|i| i as u8).collect();
    let observations = Observations::Frames { height: 4, width: 5, bytes };
    let actions = Actions::Discrete { count: 1, ids: vec![0; 6] };
    let memory = Episodes::new(observations, actions, vec![1.0; 6], &[2, 4], Default::default()).expect("valid");
    let (npz, cache) = (temporary("frames.npz"), temporary("frames"));
    save_npz(&memory, &npz).expect("writable");
    let streamed = load_streamed(&npz, &Expect::default(), &cache).expect("readable");
    assert!(cache.is_file());
    same(&memory, &streamed);
    fs::remove_file(&npz).expect("removable");
}

/// Arrays of a D4RL file that a test may break.
struct Flat {
    observations: Vec<f32>,
    next: Vec<f32>,
    terminals: Vec<u8>,
    timeouts: Vec<u8>,
    actions: usize,
}

impl Flat {
    fn good() -> Flat {
        let observations: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut next = observations[2..].to_vec();
        next.extend([7.0, 7.0]);
        Flat { observations, next, terminals: vec![0, 1, 0, 0, 0, 0], timeouts: vec![0, 0, 0, 0, 0, 1], actions: 6 }
    }

    fn read(&self) -> Result<Episodes, String> {
        let mut file = FileBuilder::new();
        file.create_dataset("observations").with_f32_data(&self.observations).with_shape(&[6, 2]);
        file.create_dataset("next_observations").with_f32_data(&self.next).with_shape(&[6, 2]);
        file.create_dataset("actions").with_f32_data(&vec![0.5; self.actions]);
        file.create_dataset("rewards").with_f64_data(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        file.create_dataset("terminals").with_u8_data(&self.terminals);
        file.create_dataset("timeouts").with_u8_data(&self.timeouts);
        read(file.finish().expect("a file"))
    }
}

fn read(bytes: Vec<u8>) -> Result<Episodes, String> {
    read_hdf5(Cursor::new(bytes), Path::new("x.hdf5"), &Expect::default()).map_err(|error| error.to_string())
}

#[test]
fn broken_d4rl_files_are_named() {
    assert_eq!(Flat::good().read().expect("sound").returns(), [3.0, 18.0]);
    let refused = |flat: Flat| flat.read().expect_err("refused");
    let mut next = Flat::good();
    // At the end of an episode the next observation belongs to nobody; inside one it does.
    next.next[2] = 99.0;
    assert!(next.read().is_ok());
    next.next[0] = 99.0;
    let text = refused(next);
    assert_eq!(text, "x.hdf5: next_observations: row 0 is not the observation of row 1, in the same episode");
    let none = Flat { terminals: vec![0; 6], timeouts: vec![0; 6], ..Flat::good() };
    assert!(refused(none).contains("no episode is finished"));
    let short = Flat { timeouts: vec![1; 5], ..Flat::good() };
    assert_eq!(refused(short), "x.hdf5: timeouts: expected shape 6 rows, as rewards has, found [5]");
    assert!(refused(Flat { actions: 7, ..Flat::good() }).starts_with("x.hdf5: actions: expected shape 6 rows"));
    let mut nan = Flat::good();
    nan.observations[4] = f32::NAN;
    nan.next[2] = f32::NAN;
    assert_eq!(refused(nan), "x.hdf5: observations row 2 column 0: expected a finite number, found NaN");
}

/// A Minari file of one episode, with observations of some shape.
fn minari(pixels: Option<&[u64]>, rows: u64, terminations: &[u8]) -> Result<Episodes, String> {
    let mut file = FileBuilder::new();
    let mut episode = file.create_group("episode_0");
    match pixels {
        Some(shape) => {
            let count = shape.iter().product::<u64>() as usize;
            episode.create_dataset("observations").with_u8_data(&vec![9; count]).with_shape(shape);
        }
        None => {
            let values = vec![1.0; 2 * rows as usize];
            episode.create_dataset("observations").with_f32_data(&values).with_shape(&[rows, 2]);
        }
    }
    episode.create_dataset("actions").with_i64_data(&[1, 0, 2]);
    episode.create_dataset("rewards").with_f64_data(&[1.0; 3]);
    episode.create_dataset("terminations").with_u8_data(terminations);
    episode.create_dataset("truncations").with_u8_data(&[0; 3]);
    let episode = episode.finish();
    file.add_group(episode);
    read(file.finish().expect("a file"))
}

#[test]
fn broken_minari_files_are_named() {
    assert_eq!(minari(None, 4, &[0, 0, 1]).expect("sound").rows(), 3);
    let text = minari(None, 3, &[0, 0, 1]).expect_err("refused");
    assert_eq!(
        text,
        "x.hdf5: episode_0/observations: expected shape 4 rows: 3 rewards, and one observation more, found [3, 2]"
    );
    let text = minari(None, 4, &[1, 0, 0]).expect_err("refused");
    assert_eq!(text, "x.hdf5: dones: row 0 ends an episode, but by episode_lengths episode 0 ends at row 2");
    let frames = minari(Some(&[4, 84, 84]), 4, &[0, 0, 1]).expect("grey frames");
    assert_eq!(frames.observations().shape(), ObsShape::Frame { height: 84, width: 84 });
    let text = minari(Some(&[4, 21, 16, 3]), 4, &[0, 0, 1]).expect_err("refused");
    assert!(text.contains("GrayscaleObservation") && text.ends_with("found [4, 21, 16, 3]"), "{text}");
    let mut other = FileBuilder::new();
    other.create_dataset("data").with_f32_data(&[1.0]);
    let text = read(other.finish().expect("a file")).expect_err("refused");
    assert!(text.contains("(Minari)") && text.contains("(D4RL)"), "{text}");
}

#[test]
fn metadata_that_contradict_the_file_are_refused() {
    let folder = temporary("metadata");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(data("reach/data/main_data.hdf5"), folder.join("main_data.hdf5")).expect("a copy");
    assert!(load_any(&folder, &Expect::default()).is_ok(), "metadata may be missing");
    for (text, expected) in [
        (r#"{"total_episodes": 3}"#, "metadata.json: total_episodes is 3, but the file has 2"),
        (r#"{"total_steps": 10}"#, "metadata.json: total_steps is 10, but the file has 9"),
        (r#"{"total_steps": "9"}"#, "metadata.json: total_steps: expected a number"),
        ("{", "metadata.json: no JSON"),
        (r#"{"action_space": "{\"type\": \"Discrete\", \"n\": 2}"}"#, "actions: expected dtype integers"),
        (r#"{"action_space": "{\"type\": \"Tuple\"}"}"#, "action_space: expected Discrete or Box, found Tuple"),
    ] {
        fs::write(folder.join("metadata.json"), text).expect("a file");
        let error = load_any(&folder, &Expect::default()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_dir_all(&folder).expect("removable");
}
