//! Sweeps: every combination once, references shared, and what is refused starts nothing.

mod common;

use common::{Folder, done, run, texts};
use serde_json::Value;
use std::fs;

const TRAIN: &str = "-- --suite cartpole_conflict --batch 4 --episodes 1 --width 16 --layers 1 --context 4 \
    --data-episodes 8 --fix-mask-after 0.5 --steps 4";

#[test]
fn a_sweep_trains_what_is_missing_and_nothing_twice() {
    let folder = Folder::new("sweep");
    let words = format!("sweep --out all --strategies tsn_affinity,single --seeds 0..2 --vary keep=0.1,0.2 {TRAIN}");
    let out = done(&folder.0, &words);
    assert!(out.starts_with("8 of 8 runs finished"), "{out}");
    let results = |name: &str| -> Value {
        let path = folder.path("all").join(name).join("results.json");
        serde_json::from_slice(&fs::read(path).expect("results")).expect("JSON")
    };
    let (single, masked) = (results("single__keep-0.1__s1"), results("tsn_affinity__keep-0.1__s1"));
    for task in 0..2 {
        assert_eq!(masked["references"]["single"][task], single["perf_matrix"][task][task]);
    }
    assert_eq!(masked["settings"]["keep_ratio"], 0.1);
    assert_eq!(results("tsn_affinity__keep-0.2__s0")["settings"]["seed"], 0);

    // One run is lost, another was killed before its first task.
    fs::remove_dir_all(folder.path("all/tsn_affinity__keep-0.1__s0")).expect("removed");
    let cut = folder.path("all/tsn_affinity__keep-0.1__s1");
    let config = fs::read(cut.join("config.json")).expect("a configuration");
    fs::remove_dir_all(&cut).expect("removed");
    fs::create_dir(&cut).expect("made");
    fs::write(cut.join("config.json"), config).expect("written");
    let old = fs::metadata(folder.path("all/tsn_affinity__keep-0.2__s1/results.json")).and_then(|m| m.modified());
    let output = run(&folder.0, &words);
    let (out, err) = texts(&output);
    assert!(out.starts_with("8 of 8 runs finished"), "{out}{err}");
    assert!(err.contains("6 of 8 runs are complete already"), "{err}");
    let new = fs::metadata(folder.path("all/tsn_affinity__keep-0.2__s1/results.json")).and_then(|m| m.modified());
    assert_eq!(old.expect("a time"), new.expect("a time"), "a finished run is left alone");
    assert!(fs::read_to_string(folder.path("all/report.html")).expect("a page").contains("tsn_affinity"));
}

#[test]
fn a_sweep_that_cannot_work_starts_nothing() {
    let folder = Folder::new("sweep-bad");
    for (words, expected) in [
        (format!("sweep --out all --strategies single,single {TRAIN}"), "names single twice"),
        (format!("sweep --out all --seeds 0,0..2 {TRAIN}"), "names 0 twice"),
        (format!("sweep --out all --seeds 2..1 {TRAIN}"), "range as 0..3"),
        (format!("sweep --out all --vary keep {TRAIN}"), "OPTION=VALUE"),
        (format!("sweep --out all --vary kep=1 {TRAIN}"), "--kep"),
        (format!("sweep --out all --vary keep=0.1,0.1 {TRAIN}"), "twice"),
        (format!("sweep --out all --vary threads=1,2 {TRAIN}"), "the sweep sets this itself"),
        (format!("sweep --out all {TRAIN} --seed 4"), "--seed is set by the sweep"),
        (format!("sweep --out all {TRAIN} -q"), "'--quiet' cannot be used multiple times"),
        (
            format!("sweep --out all --strategies single,naive {TRAIN} --no-reference"),
            "naive__base__s0: error: the argument",
        ),
        ("sweep --out all".to_owned(), "TRAIN"),
    ] {
        let output = run(&folder.0, &words);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(err.contains(expected), "{words}: {err}");
        assert!(!folder.path("all").exists(), "{words}: left something behind");
    }
    // Refused by every run: the sweep says which and why, and that nothing was learned.
    let output = run(&folder.0, &format!("sweep --out none --strategies naive --seeds 0 {TRAIN} --keep 0"));
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("keep_ratio") && err.contains("naive__base__s0"), "{err}");
}

#[test]
fn a_reference_of_another_setting_is_refused() {
    let folder = Folder::new("sweep-reference");
    done(&folder.0, &format!("sweep --out all --strategies single --seeds 0 {TRAIN}"));
    let train = TRAIN.trim_start_matches("-- ");
    let shorter = train.trim_end_matches(" --steps 4");
    let words = format!("train {train} --reference all/single__base__s0 --out one");
    done(&folder.0, &words);
    for (change, expected) in
        [("--steps 4 --lr 0.5", "lr is 0.002 there and 0.5 here"), ("--steps 5", "steps is 4 there and 5 here")]
    {
        let output = run(&folder.0, &format!("train {shorter} {change} --reference all/single__base__s0 --out two"));
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(expected), "{err}");
    }
    let output = run(&folder.0, &format!("train {train} --reference one --out three"));
    assert!(texts(&output).1.contains("expected a finished run of strategy single, found strategy tsn_affinity"));
}
