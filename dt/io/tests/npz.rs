//! What is read, what is refused, and with which words. Archives are made here, byte by byte.

use std::io::Cursor;
use std::path::Path;

use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::{ActionSpace, ObsShape};
use tsn_dt_io::{Error, Expect, load_npz, load_spec, load_tasks, read_npz, save_npz};

mod archive;

use archive::{Archive, f32s, i32s, i64s, npy, valid};

fn read(archive: &Archive, expect: &Expect) -> Result<Episodes, Error> {
    read_npz(Cursor::new(archive.bytes()), Path::new("x.npz"), expect)
}

fn refusal(archive: &Archive) -> String {
    refusal_of(archive, &Expect::default())
}

fn refusal_of(archive: &Archive, expect: &Expect) -> String {
    read(archive, expect).expect_err("refused").to_string()
}

#[test]
fn stored_and_deflated_are_read_and_unknown_keys_ignored() {
    for (deflate, wide) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut archive = valid();
        archive.deflate = deflate;
        archive.wide = wide;
        archive.set("success", npy("|O", "(2,)", b"\x80\x04."));
        let data = read(&archive, &Expect::default()).expect("valid");
        assert_eq!((data.rows(), data.count(), data.longest()), (5, 2, 3));
        let Observations::Vectors { dim: 2, values } = data.observations() else { panic!("vectors") };
        assert_eq!(values, &(0..10).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(data.actions(), &Actions::Discrete { count: 2, ids: vec![0, 1, 0, 1, 1] });
        assert_eq!(data.returns_to_go(), [6.0, 5.0, 3.0, 9.0, 5.0]);
    }
}

#[test]
fn element_types_of_observations() {
    let halves: Vec<u8> = (0..10).flat_map(|i| half::f16::from_f32(i as f32).to_le_bytes()).collect();
    let doubles: Vec<u8> = (0..10).flat_map(|i| f64::from(i).to_le_bytes()).collect();
    let bytes: Vec<u8> = (0..10).collect();
    let want = read(&valid(), &Expect::default()).expect("valid");
    for (descr, body) in [("<f2", halves), ("<f8", doubles), ("|u1", bytes)] {
        let mut archive = valid();
        archive.set("observations", npy(descr, "(5, 2)", &body));
        assert_eq!(read(&archive, &Expect::default()).expect("valid"), want, "{descr}");
    }
}

#[test]
fn frames_and_continuous_actions() {
    let mut archive = valid();
    archive.deflate = true;
    archive.set("observations", npy("|u1", "(5, 84, 84)", &vec![9; 5 * 84 * 84]));
    archive.set("actions", npy("<f4", "(5, 2)", &f32s(&[0.5; 10])));
    let frame = ObsShape::Frame { height: 84, width: 84 };
    let expect = Expect {
        observations: Some(frame),
        actions: Some(ActionSpace::Box(2)),
        rewards: Rewards::Sign,
        ..Expect::default()
    };
    let data = read(&archive, &expect).expect("valid");
    assert_eq!((data.observations().shape(), data.returns()), (frame, vec![3.0, 2.0]));

    archive.set("observations", npy("|u1", "(5, 4, 2, 2)", &[0; 80]));
    let text = refusal(&archive);
    assert!(text.contains("[n, height, width] of single frames") && text.contains("[5, 4, 2, 2]"), "{text}");
    archive.set("observations", npy("<f4", "(5, 2, 2)", &[0; 80]));
    assert!(refusal(&archive).contains("u8 (0 to 255) for images, found '<f4'"));
}

#[test]
fn what_is_no_npz_says_what_it_is() {
    let text = |bytes: &[u8]| {
        read_npz(Cursor::new(bytes), Path::new("x.npz"), &Expect::default()).expect_err("refused").to_string()
    };
    assert_eq!(text(b""), "x.npz: expected an npz (zip) archive, found an empty file");
    assert!(text(b"\x93NUMPY\x01\x00").contains("a single npy array"));
    assert!(text(b"\x80\x04\x95").contains("a pickle, which is never read"));
    assert!(text(b"\x89HDF\r\n\x1a\n").contains("an HDF5 file"));
    assert!(text(b"hello, this is a text").contains("something else"));
    let bytes = valid().bytes();
    assert!(text(&bytes[..bytes.len() - 1]).contains("the file is truncated"));

    let folder = std::env::temp_dir();
    let text = |path: &Path| load_npz(path, &Expect::default()).expect_err("refused").to_string();
    assert!(text(&folder).contains("expected a file, found a directory"));
    assert!(text(&folder.join("no such file.npz")).contains("no such file.npz: "));
}

#[test]
fn missing_and_doubled_keys() {
    for key in ["observations", "actions", "rewards", "dones", "episode_lengths"] {
        let mut archive = valid();
        archive.members.retain(|(name, _)| name != key);
        let found: Vec<&str> = archive.members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refusal(&archive), format!("x.npz: {key}: missing; the file has {}", found.join(", ")));
    }
    let mut archive = valid();
    archive.members.push(archive.members[0].clone());
    assert!(refusal(&archive).contains("observations: the archive has this key twice"));
    archive.members.clear();
    assert_eq!(refusal(&archive), "x.npz: observations: missing; the file has no arrays");
}

#[test]
fn wrong_types_and_shapes_name_key_expected_and_found() {
    let with = |key: &str, array: Vec<u8>| {
        let mut archive = valid();
        archive.set(key, array);
        refusal(&archive)
    };
    for (key, array, want) in [
        ("observations", npy("|O", "(5, 2)", b""), "expected numbers, found Python objects: pickle is never read"),
        ("observations", npy(">f4", "(5, 2)", &[0; 40]), "found '>f4'"),
        ("observations", npy("<i4", "(5, 2)", &[0; 40]), "expected dtype f16, f32, f64, or u8 for frames, found '<i4'"),
        ("observations", npy("<f4", "(4, 2)", &[0; 32]), "expected shape 5 rows, as rewards has, found [4, 2]"),
        ("observations", npy("<f4", "(10,)", &[0; 40]), "expected shape [n, d] or [n, height, width], found [10]"),
        ("observations", npy("<f4", "(5, 0)", b""), "no observation values"),
        ("actions", npy("|b1", "(5,)", &[0; 5]), "expected dtype integers or floats, found '|b1'"),
        ("actions", npy("<i8", "(5, 1)", &[0; 40]), "expected shape [5] for integer actions, found [5, 1]"),
        ("actions", npy("<f4", "(4, 1)", &[0; 16]), "expected shape [5] or [5, a]"),
        ("rewards", npy("<f4", "(5, 1)", &[0; 20]), "expected shape [n], found [5, 1]"),
        ("rewards", npy("<U1", "(5,)", &[0; 20]), "found '<U1'"),
        ("dones", npy("<f4", "(5,)", &[0; 20]), "expected dtype bool or u8, found '<f4'"),
        ("dones", npy("|b1", "(4,)", &[0; 4]), "expected shape [5], found [4]"),
        ("episode_lengths", npy("<f4", "(2,)", &[0; 8]), "expected dtype integers, found '<f4'"),
        ("episode_lengths", npy("<i4", "()", &[0; 4]), "expected shape [0], found []"),
        ("episode_lengths", npy("<i4", "(1, 2)", &[0; 8]), "expected shape [1], found [1, 2]"),
    ] {
        let text = with(key, array);
        assert!(text.contains(want), "{text}\nshould say {want}");
        // The one fault found after reading is about the data as a whole.
        assert!(text.starts_with(&format!("x.npz: {key}: ")) || want.starts_with("no "), "{text}");
    }
    let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (5, 2), }";
    assert!(with("observations", archive::npy_with(fortran, &[0; 40])).contains("expected C order, found Fortran"));
}

#[test]
fn wrong_values_name_the_row() {
    let with = |key: &str, array: Vec<u8>| {
        let mut archive = valid();
        archive.set(key, array);
        refusal(&archive)
    };
    let mut values: Vec<f32> = (0..10).map(|i| i as f32).collect();
    values[7] = f32::NAN;
    assert_eq!(
        with("observations", npy("<f4", "(5, 2)", &f32s(&values))),
        "x.npz: observations row 3 column 1: expected a finite number, found NaN"
    );
    let too_big = npy("<f8", "(5,)", &[1e300f64.to_le_bytes(); 5].concat());
    assert!(with("rewards", too_big).contains("rewards row 0 column 0: expected a finite number, found inf"));
    assert_eq!(
        with("actions", npy("<i8", "(5,)", &i64s(&[0, 1, -1, 0, 0]))),
        "x.npz: actions: actions row 2: expected 0..65536, found -1"
    );
    let two = Expect { actions: Some(ActionSpace::Discrete(2)), ..Expect::default() };
    let mut archive = valid();
    archive.set("actions", npy("<i8", "(5,)", &i64s(&[0, 1, 0, 2, 0])));
    assert!(refusal_of(&archive, &two).ends_with("actions row 3: expected 0..2, found 2"));
    assert_eq!(
        with("episode_lengths", npy("<i4", "(2,)", &i32s(&[3, 3]))),
        "x.npz: episode_lengths: episode lengths sum to 6 but there are 5 rows"
    );
    assert!(with("episode_lengths", npy("<i4", "(3,)", &i32s(&[3, 0, 2]))).contains("row 1: expected a length of"));
    assert!(with("episode_lengths", npy("<i4", "(2,)", &i32s(&[-1, 6]))).contains("row 0: expected a length of"));
    assert_eq!(
        with("episode_lengths", npy("<i4", "(2,)", &i32s(&[4, 1]))),
        "x.npz: dones: row 2 ends an episode, but by episode_lengths episode 0 ends at row 3"
    );
    let none = read(
        &{
            let mut archive = valid();
            archive.set("dones", npy("|b1", "(5,)", &[0; 5]));
            archive
        },
        &Expect::default(),
    );
    assert!(none.is_ok(), "a time limit marks nothing");
}

#[test]
fn nothing_there_is_refused() {
    let mut archive = valid();
    for (key, descr, shape) in [
        ("observations", "<f4", "(0, 2)"),
        ("actions", "<i8", "(0,)"),
        ("rewards", "<f4", "(0,)"),
        ("dones", "|b1", "(0,)"),
        ("episode_lengths", "<i4", "(0,)"),
    ] {
        archive.set(key, npy(descr, shape, b""));
    }
    assert_eq!(refusal(&archive), "x.npz: no episodes: at least one is needed");
}

#[test]
fn expectations_are_checked() {
    let archive = valid();
    let obs = |shape| refusal_of(&archive, &Expect { observations: Some(shape), ..Expect::default() });
    assert!(obs(ObsShape::Vector { dim: 3 }).contains("observations: expected shape [5, 3], found [5, 2]"));
    assert!(obs(ObsShape::Frame { height: 84, width: 84 }).contains("expected shape [5, 84, 84], found [5, 2]"));
    let continuous = Expect { actions: Some(ActionSpace::Box(2)), ..Expect::default() };
    assert!(refusal_of(&archive, &continuous).contains("expected dtype floats (continuous actions), found '<i8'"));
    let small = Expect { max_bytes: 99, ..Expect::default() };
    assert!(refusal_of(&archive, &small).contains("bytes of values in memory: claims 108, the limit is 99"));
}

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    let mut archive = valid();
    archive.set("observations", npy("<f4", "(5, 1000000000000)", &[0; 40]));
    assert!(refusal(&archive).contains("claims 20000000000000, the limit is 40"));
    archive.set("observations", npy("<f4", "(4294967296, 4294967296, 4294967296)", &[0; 40]));
    assert!(refusal(&archive).contains("the limit is 40"), "the product overflows");
    archive.set("observations", archive::npy_header_of(u32::MAX));
    assert!(refusal(&archive).contains("bytes of the npy header: claims 4294967295"));

    // A directory that claims 1 GB from 100 packed bytes.
    let mut archive = valid();
    archive.deflate = true;
    archive.claim = Some(1_000_000_000);
    assert!(refusal(&archive).contains("unpacked bytes of a zip entry: claims 1000000000"));
}

#[test]
fn what_is_saved_is_loaded_and_readable_by_another_reader() {
    let folder = std::env::temp_dir().join(format!("tsn-dt-io-save-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("B")).expect("a folder");
    let vectors = Episodes::new(
        Observations::Vectors { dim: 2, values: (0..10).map(|i| i as f32 / 3.0).collect() },
        Actions::Continuous { dim: 1, values: vec![0.5, -0.5, 0.0, 1.0, -1.0] },
        vec![1.0, 2.0, 3.0, 4.0, 5.0],
        &[3, 2],
        Rewards::AsStored,
    )
    .expect("valid");
    let frames = Episodes::new(
        Observations::Frames { height: 3, width: 4, bytes: (0..60).collect() },
        Actions::Discrete { count: 4, ids: vec![3, 0, 1, 2, 0] },
        vec![1.0, 0.0, -1.0, 1.0, 0.0],
        &[1, 4],
        Rewards::AsStored,
    )
    .expect("valid");
    let places = [folder.join("A.npz"), folder.join("B").join("trajs.npz")];
    for (data, place) in [&vectors, &frames].into_iter().zip(&places) {
        save_npz(data, place).expect("written");
        save_npz(data, place).expect("written over");
        assert_eq!(&load_npz(place, &Expect::default()).expect("valid"), data);
    }
    let left = std::fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(left, 2, "no temporary file is left");

    // The stored arrays of the first file, as npyz reads them.
    let bytes = std::fs::read(&places[0]).expect("a file");
    let at = bytes.windows(6).position(|window| window == b"\x93NUMPY").expect("the first array");
    let array = npyz::NpyFile::new(&bytes[at..]).expect("npy");
    assert_eq!(array.shape(), [5, 2]);
    let values: Vec<f32> = array.into_vec().expect("f32");
    assert_eq!(values, (0..10).map(|i| i as f32 / 3.0).collect::<Vec<_>>());

    let spec = folder.join("tasks.json");
    std::fs::write(&spec, r#"[{"name":"A","env_id":"X","seed":0},{"name":"B","env_id":"Y","seed":1,"params":{}}]"#)
        .expect("written");
    let tasks = load_tasks(load_spec(&spec).expect("valid"), &folder, &Expect::default()).expect("valid");
    assert_eq!((&tasks[0].episodes, &tasks[1].episodes), (&vectors, &frames));
    std::fs::remove_dir_all(&folder).expect("removed");
}
