//! Datasets of every format through the program: checked, converted, trained from memory and from disk.

mod common;

#[path = "common/npz.rs"]
mod npz;

use common::{Folder, done, program, run, texts};
use npz::{Npz, npy, zip};
use std::fs;
use std::path::{Path, PathBuf};

// No simulator is asked for, whatever this machine has.
const SMALL: &str =
    "--python no-such-python --batch 4 --episodes 1 --width 32 --layers 1 --context 5 --no-reference -q";

/// Cut from files of minari and h5py.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dt/io/tests/data").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::copy(from, to).expect("a copy");
}

#[test]
fn every_format_is_checked_and_converted() {
    let folder = Folder::new("formats");
    for (name, format, mean) in [("cartpole", "Minari", 19.0), ("reach", "Minari", -0.45), ("push.hdf5", "D4RL", -2.99)]
    {
        let path = fixture(name);
        let json = |path: &Path| {
            let out = program(&folder.0).args(["data", "check", "--json", "-"]).arg(path).output().expect("starts");
            assert!(out.status.success(), "{}", texts(&out).1);
            serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")["files"][0].clone()
        };
        let first = json(&path);
        assert_eq!(first["format"], format);
        assert!((first["return"]["mean"].as_f64().expect("a mean") - mean).abs() < 0.01, "{first}");
        let out = folder.path(&format!("{name}.npz"));
        let made = program(&folder.0).args(["data", "convert"]).args([&path, &out]).output().expect("starts");
        assert!(made.status.success(), "{}", texts(&made).1);
        let second = json(&out);
        assert_eq!(second["format"], "npz");
        for key in ["episodes", "rows", "return", "observations", "observation_range", "action_range", "longest"] {
            assert_eq!(first[key], second[key], "{name} {key}");
        }
        let again = program(&folder.0).args(["data", "convert"]).args([&path, &out]).output().expect("starts");
        assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
    }
    done(&folder.0, "data convert push.hdf5.npz clipped.npz --clip");
    let shown = done(&folder.0, "data check clipped.npz");
    assert!(shown.contains("-16.00"), "the longest good episode has 16 steps of reward -1: {shown}");
}

#[test]
fn all_problems_of_all_files_are_told() {
    let folder = Folder::new("problems");
    let mut bad = Npz::good();
    bad.rewards[3] = f32::NAN;
    bad.rewards[5] = f32::INFINITY;
    bad.observations[2][1] = f32::NAN;
    bad.lengths = vec![2; 5];
    bad.save(&folder.path("bad.npz"));
    Npz::good().save(&folder.path("good.npz"));
    fs::write(folder.path("cut.hdf5"), &fs::read(fixture("push.hdf5")).expect("bytes")[..9000]).expect("a file");
    let output = run(&folder.0, "data check bad.npz good.npz cut.hdf5");
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(out.contains("good.npz"), "a sound file is shown: {out}");
    for expected in [
        "bad.npz: episode_lengths: episode lengths sum to 10 but there are 12 rows",
        "bad.npz: observations: 1 of 48 values are not finite, first NaN at row 2 column 1",
        "bad.npz: rewards: 2 of 12 values are not finite, first NaN at row 3 column 0",
        "cut.hdf5: ",
    ] {
        assert!(err.contains(expected), "no {expected:?} in\n{err}");
    }
}

#[test]
fn a_folder_of_mixed_formats_trains_the_same_from_disk() {
    let folder = Folder::new("mixed");
    copy(&fixture("reach/data/main_data.hdf5"), &folder.path("data/reach/data/main_data.hdf5"));
    copy(&fixture("reach/data/metadata.json"), &folder.path("data/reach/data/metadata.json"));
    copy(&fixture("push.hdf5"), &folder.path("data/flat/push.hdf5"));
    copy(&fixture("push.hdf5"), &folder.path("data/other.hdf5"));
    fs::write(
        folder.path("tasks.json"),
        r#"[{"name": "reach", "env_id": "PandaReachDense-v3", "seed": 0},
            {"name": "push", "env_id": "PandaPushDense-v3", "seed": 0, "params": {"dataset": "flat/push.hdf5"}}]"#,
    )
    .expect("a spec");
    let train = format!("train --spec tasks.json --data data --steps 12 {SMALL}");
    done(&folder.0, &format!("{train} --out memory"));
    let bank = |run: &str| fs::read(folder.path(run).join("bank.safetensors")).expect("a bank");
    // 65 + 9 rows take 1480 bytes besides observations; those of reach fit beside them, those of push do not.
    for (name, mem, told) in
        [("one", "3000", "on disk: push"), ("both", "1700", "on disk: reach, push"), ("none", "1G", "all fit")]
    {
        let output = run(&folder.0, &format!("{train} --out {name} --mem {mem}"));
        let (_, err) = texts(&output);
        assert!(output.status.success() && err.contains(told), "{name}: {err}");
        assert_eq!(bank("memory"), bank(name), "{name}");
    }
    done(&folder.0, "eval both/bank.safetensors --mem 1700 --episodes 1");
    let left: Vec<_> = fs::read_dir(&folder.0).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("observations")), "{left:?}");
    let output = run(&folder.0, &format!("{train} --out no --mem 100"));
    assert!(texts(&output).1.contains("actions and rewards alone take"), "{}", texts(&output).1);
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.path("no").exists());
    copy(&fixture("push.hdf5"), &folder.path("data/reach/more.hdf5"));
    let output = run(&folder.0, &format!("{train} --out no"));
    let (_, err) = texts(&output);
    assert!(err.contains("2 datasets") && err.contains("more.hdf5") && err.contains("main_data.hdf5"), "{err}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_benchmark_of_ones_own_is_made_with_its_meta_data() {
    let folder = Folder::new("make");
    let tasks = r#"{"tasks": [{"name": "short", "env_id": "CartPole-v1", "seed": 4, "params": {"length": 0.3}}]}"#;
    fs::write(folder.path("own.json"), tasks).expect("a suite");
    for out in ["one", "two"] {
        let told = done(&folder.0, &format!("data make --suite own.json --episodes 10 --seed 3 --out {out}"));
        assert!(told.contains("trajs.npz: 10 episodes"), "{told}");
    }
    let bytes = |path: &str| fs::read(folder.path(path)).expect("a file");
    assert_eq!(bytes("one/short/trajs.npz"), bytes("two/short/trajs.npz"));
    let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&bytes(path)).expect("JSON");
    assert_eq!(json("one/tasks.json")[0], serde_json::from_str::<serde_json::Value>(tasks).expect("JSON")["tasks"][0]);
    let meta = json("one/short/meta.json");
    assert_eq!((&meta["task"], &meta["seed"], &meta["episodes"]), (&"short".into(), &3000.into(), &10.into()));
    assert_eq!(meta["controller_probability_per_episode"].as_array().map(Vec::len), Some(10));
    done(&folder.0, "data check one/short/trajs.npz");
    // What it wrote names the tasks as well; an episode that is cut has the steps it had before.
    done(&folder.0, "data make --suite one/tasks.json --episodes 10 --seed 3 --frames 12 --out cut");
    let cut = json("cut/short/meta.json");
    let lengths = |meta: &serde_json::Value| -> Vec<u64> {
        meta["lengths"].as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number")).collect()
    };
    let shorter: Vec<u64> = lengths(&meta).into_iter().map(|n| n.min(12)).collect();
    assert!(lengths(&meta).iter().any(|n| *n > 12) && lengths(&cut) == shorter, "{cut}");
    done(&folder.0, "data check cut/short/trajs.npz");
}

/// Most resident memory of a process while it trains, in kB; the data are held until its end.
#[cfg(target_os = "linux")]
fn peak_kb(folder: &Path, words: &str) -> u64 {
    let mut child = program(folder).args(words.split_whitespace()).spawn().expect("the program starts");
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
        most = now.unwrap_or(0).max(most);
        std::thread::yield_now();
    };
    assert!(status.success(), "{words}");
    most
}

#[test]
#[cfg(target_os = "linux")]
fn data_beyond_the_cap_do_not_come_into_memory() {
    const ROWS: usize = 24_000;
    const WIDTH: usize = 256;
    let folder = Folder::new("peak");
    let values: Vec<u8> = (0..ROWS * WIDTH).flat_map(|i| ((i % 1009) as f32 * 0.01).to_le_bytes()).collect();
    let each = |bytes: &[u8]| bytes.repeat(ROWS);
    let lengths = vec![20i64; ROWS / 20];
    let mut dones = vec![0u8; ROWS];
    dones.iter_mut().skip(19).step_by(20).for_each(|done| *done = 1);
    let files = [
        ("observations", npy("<f4", &format!("({ROWS}, {WIDTH})"), &values)),
        ("actions", npy("<i8", &format!("({ROWS},)"), &each(&1i64.to_le_bytes()))),
        ("rewards", npy("<f4", &format!("({ROWS},)"), &each(&1f32.to_le_bytes()))),
        ("dones", npy("|b1", &format!("({ROWS},)"), &dones)),
        (
            "episode_lengths",
            npy(
                "<i8",
                &format!("({},)", lengths.len()),
                &lengths.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>(),
            ),
        ),
    ];
    fs::create_dir_all(folder.path("data/wide")).expect("a folder");
    fs::write(folder.path("data/wide/trajs.npz"), zip(&files)).expect("a dataset");
    fs::write(folder.path("tasks.json"), r#"[{"name": "wide", "env_id": "Other-v0", "seed": 0}]"#).expect("a spec");
    let train = "train --spec tasks.json --data data --steps 6 --batch 64 --width 32 --layers 1 --context 20 --no-reference -q --python no-such-python";
    let memory = peak_kb(&folder.0, &format!("{train} --out memory"));
    let disk = peak_kb(&folder.0, &format!("{train} --out disk --mem 2M"));
    // 24 MB of observations, of which a batch and a few pieces are in memory.
    assert!(disk + 18_000 < memory, "{disk} kB from disk, {memory} kB from memory");
    let bank = |run: &str| fs::read(folder.path(run).join("bank.safetensors")).expect("a bank");
    assert_eq!(bank("memory"), bank("disk"));
}
