//! Bad input: each kind ends with exit code 2 and a message that names the thing, and no file is lost or left behind.

mod common;

#[path = "common/npz.rs"]
mod npz;

use common::{Folder, done, program, run, texts};
use npz::{Npz, zip};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SMALL: &str = "--steps 4 --batch 4 --episodes 1 --width 32 --layers 1 --context 5 --no-reference -q";

/// Every file under a folder with its bytes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => _ = files.insert(path.clone(), fs::read(&path).expect("a file")),
            }
        }
    }
    files
}

/// Runs a command that must be refused with these words, and checks that no file changed.
fn refused(folder: &Path, words: &str, expected: &[&str]) {
    let before = snapshot(folder);
    let output = run(folder, words);
    check(words, &output, expected);
    let after = snapshot(folder);
    let changed: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).collect();
    assert!(changed.is_empty(), "{words}: changed {:?}", changed[0].0);
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(new.is_empty(), "{words}: left {new:?}");
}

fn check(words: &str, output: &std::process::Output, expected: &[&str]) {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(2), "{words}\n{out}{err}");
    for word in expected {
        assert!(err.contains(word), "{words}: no {word:?} in\n{err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a file");
}

#[test]
fn datasets() {
    let folder = Folder::new("bad-data");
    let at = |name: &str| folder.path(name);
    let refused = |words: &str, expected: &[&str]| refused(&folder.0, words, expected);
    Npz::good().save(&at("good.npz"));
    assert!(done(&folder.0, "data check good.npz").contains("12"));

    refused("data check none.npz", &["none.npz", "No such file"]);
    fs::create_dir(at("folder")).expect("a folder");
    refused("data check folder", &["folder", "expected datasets (.npz, .hdf5), found none"]);
    write(&folder.0, "empty.npz", "");
    refused("data check empty.npz", &["empty.npz", "expected"]);
    write(&folder.0, "text.npz", "episode,reward\n1,2\n");
    refused("data check text.npz", &["text.npz", "expected"]);
    fs::write(at("bare.npz"), zip(&[])).expect("a file");
    refused("data check bare.npz", &["bare.npz", "the file has no arrays"]);
    Npz { first: "states", ..Npz::good() }.save(&at("keys.npz"));
    refused("data check keys.npz", &["keys.npz: observations: missing", "states"]);
    Npz { lengths: vec![2; 5], ..Npz::good() }.save(&at("lengths.npz"));
    refused("data check lengths.npz", &["lengths.npz", "10", "12 rows"]);
    Npz { lengths: vec![2, 2, 2, 2, 4, 0], ..Npz::good() }.save(&at("zero.npz"));
    refused("data check zero.npz", &["zero.npz", "row 5", "length of at least 1, found 0"]);
    let mut nan = Npz::good();
    nan.observations[7][2] = f32::NAN;
    nan.save(&at("nan.npz"));
    refused("data check nan.npz", &["nan.npz", "row 7", "column 2", "NaN"]);
    let mut infinite = Npz::good();
    infinite.rewards[3] = f32::INFINITY;
    infinite.save(&at("infinite.npz"));
    refused("data check infinite.npz", &["infinite.npz", "rewards", "row 3", "inf"]);
    let mut negative = Npz::good();
    negative.actions[5] = -1;
    negative.save(&at("negative.npz"));
    refused("data check negative.npz", &["negative.npz", "row 5", "-1"]);
    let good = fs::read(at("good.npz")).expect("a file");
    fs::write(at("short.npz"), &good[..good.len() / 2]).expect("a file");
    refused("data check short.npz", &["short.npz"]);
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    fs::write(at("flipped.npz"), &flipped).expect("a file");
    refused("data check flipped.npz", &["flipped.npz"]);
    // The first file is fine, the second is not.
    refused("data check good.npz none.npz", &["none.npz"]);
}

#[test]
fn specs() {
    let folder = Folder::new("bad-spec");
    let task = |name: &str, params: &str| {
        format!(r#"{{"name": "{name}", "env_id": "CartPole-v1", "seed": 0, "params": {{{params}}}}}"#)
    };
    for name in ["A", "C"] {
        fs::create_dir_all(folder.path("data").join(name)).expect("a folder");
        let mut data = Npz::good();
        if name == "C" {
            data.actions[4] = 5;
        }
        data.save(&folder.path("data").join(name).join("trajs.npz"));
    }
    let refused = |spec: &str, expected: &[&str]| {
        write(&folder.0, "tasks.json", spec);
        refused(&folder.0, &format!("train --spec tasks.json --data data --out run {SMALL}"), expected);
    };
    refused("[{", &["tasks.json", "no JSON"]);
    refused("{}", &["tasks.json", "expected a list of tasks, found an object"]);
    refused("[]", &["tasks.json", "expected at least one task"]);
    refused(r#"[{"env_id": "E", "seed": 0}]"#, &["entry 0", "field `name` is missing"]);
    refused(r#"[{"name": "A", "env_id": "E", "seed": -1}]"#, &["entry 0", "seed", "-1"]);
    refused(r#"[{"name": "A", "env_id": "E", "seed": 0, "sed": 1}]"#, &["entry 0", "unknown field `sed`"]);
    refused(r#"[{"name": "../A", "env_id": "E", "seed": 0}]"#, &["entry 0", "expected a folder name"]);
    refused(&format!("[{}, {}]", task("A", ""), task("A", "")), &["entry 1", "already that of entry 0"]);
    refused(&format!("[{}]", task("B", "")), &["no dataset", "trajs.npz"]);
    refused(&format!("[{}]", task("A", r#""tau": 7"#)), &["task `A`", "tau 7 is outside"]);
    refused(&format!("[{}]", task("A", r#""mass": 1"#)), &["unknown CartPole parameter `mass`"]);
    // CartPole has two actions, whatever the data say.
    refused(&format!("[{}]", task("C", "")), &["C", "trajs.npz", "actions", "5"]);
    let refused = |words: &str, expected: &[&str]| crate::refused(&folder.0, words, expected);
    refused("train --spec data --data data --out run", &["data", "expected a file, found a directory"]);
    refused("train --spec none.json --data data --out run", &["none.json", "No such file"]);
    refused("train --spec tasks.json --out run", &["--data"]);
    refused("train --out run", &["--spec"]);
}

#[test]
fn options() {
    let folder = Folder::new("bad-option");
    let refused = |words: &str, expected: &[&str]| {
        refused(&folder.0, &format!("train --suite demo --out run {words}"), expected);
    };
    refused("--strategy tsn_afinity", &["tsn_afinity", "expected tsn_affinity, tsn"]);
    refused("--mode nearest", &["mode nearest", "action, latent, hybrid"]);
    refused("--profile offical", &["profile offical", "corrected, official"]);
    refused("--keep 1.4", &["keep_ratio 1.4", "<= 1"]);
    refused("--keep -0.5", &["keep_ratio -0.5"]);
    refused("--keep much", &["much", "--keep"]);
    refused("--lr NaN", &["lr NaN", "finite"]);
    refused("--steps 0", &["steps 0", "at least 1"]);
    refused("--batch 0", &["batch 0"]);
    refused("--batch 4000000000", &["batch 4000000000"]);
    refused("--width 30", &["width 30"]);
    refused("--layers 0", &["layers 0"]);
    refused("--context 0", &["context 0"]);
    refused("--episodes 0", &["--episodes", "0 is not in 1.."]);
    refused("--data-episodes 0", &["--data-episodes", "expected 1 to"]);
    refused("--checkpoint-every 0", &["--checkpoint-every"]);
    refused("--max-copies 0", &["max_copies 0", "at least 1"]);
    refused("--device cuda", &["cuda is not in this build", "use cpu"]);
    refused("--device gpu", &["no device is called \"gpu\"", "cpu, cuda[:n]"]);
    refused("--threads 4096", &["--threads", "expected 0 to 1024"]);
    refused("--sead 3", &["--sead", "--seed"]);
    let refused = |words: &str, expected: &[&str]| crate::refused(&folder.0, words, expected);
    refused("trian", &["trian", "train"]);
    refused("--suite cartpole8", &["cartpole8", "cartpole7"]);
    refused("--strategies naive,naive", &["names naive twice"]);
    refused("--strategies naive,ewx", &["ewx", "expected tsn_affinity"]);
}

#[test]
fn demonstrations() {
    let folder = Folder::new("bad-adapt");
    let refused = |words: &str, expected: &[&str]| refused(&folder.0, words, expected);
    done(&folder.0, "data make --suite demo --episodes 10 --out data");
    done(&folder.0, &format!("train --suite cartpole_conflict --data-episodes 10 {SMALL} --out run"));
    done(
        &folder.0,
        &format!("train --suite cartpole_conflict --strategy naive --data-episodes 10 {SMALL} --out dense"),
    );
    let adapt = "adapt run/bank.safetensors --data data --episodes 0";
    refused(&format!("{adapt} --task none"), &["tasks.json", "no task \"none\"", "P_default"]);
    refused(&format!("{adapt} --task P_default"), &["already holds", "P_default"]);
    refused(&format!("{adapt} --task P_default --name a --demos 0"), &["demonstrations", "1 to 8", "found 0"]);
    refused(&format!("{adapt} --task P_default --name a --demos 9 --out new"), &["demonstrations", "found 9"]);
    refused(&format!("{adapt} --task P_default --name a --method tuna"), &["tuna", "tune-free"]);
    refused(&format!("{adapt} --task P_default --name a --spec none.json"), &["none.json"]);
    refused("adapt none.safetensors --data data --task P_default", &["none.safetensors"]);
    let dense = "adapt dense/bank.safetensors --data data --task P_default --name a";
    refused(dense, &["strategy of the bank", "naive"]);
    let both = format!("{adapt} --task P_default --name a --json x --out x");
    refused(&both, &["--json and --out both write x"]);
    let out = done(&folder.0, &format!("{adapt} --task P_default --name a --method compose --out b.safetensors"));
    assert!(out.contains("compose") && out.contains("0.00 % newly claimed") && out.contains("wrote"), "{out}");
    assert!(done(&folder.0, "inspect b.safetensors").contains('a'));
}

#[test]
fn banks_and_runs() {
    let folder = Folder::new("bad-bank");
    let at = |name: &str| folder.path(name);
    done(&folder.0, "data make --suite cartpole_conflict --episodes 6 --out data");
    done(&folder.0, &format!("train --spec data/tasks.json --data data --out run {SMALL}"));
    done(&folder.0, &format!("train --spec data/tasks.json --data data --out other --seed 1 {SMALL}"));
    let bank = fs::read(at("run/bank.safetensors")).expect("a bank");
    let save = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).expect("a file");
    let refused = |words: &str, expected: &[&str]| refused(&folder.0, words, expected);

    save("short.safetensors", &bank[..bank.len() - 1]);
    save("header.safetensors", &bank[..5]);
    save("text.safetensors", b"not a bank, not at all");
    let mut flipped = bank.clone();
    let last = flipped.len() - 9;
    flipped[last] ^= 16;
    save("flipped.safetensors", &flipped);
    let mut newer = tsn::Bank::default().to_writer().expect("a bank");
    newer.meta("format", "tsn-bank 999");
    newer.save(&at("newer.safetensors")).expect("a file");
    tsn::Bank::default().save(&at("empty.safetensors")).expect("a file");
    for command in ["inspect", "eval"] {
        refused(&format!("{command} short.safetensors"), &["short.safetensors"]);
        refused(&format!("{command} header.safetensors"), &["header.safetensors"]);
        refused(&format!("{command} text.safetensors"), &["text.safetensors"]);
        refused(&format!("{command} flipped.safetensors"), &["flipped.safetensors", "checksum"]);
        refused(
            &format!("{command} newer.safetensors"),
            &["newer.safetensors", "format version 999", "up to version 2"],
        );
        refused(&format!("{command} none.safetensors"), &["none.safetensors", "No such file"]);
        refused(&format!("{command} data"), &["data"]);
    }
    refused("eval empty.safetensors", &["holds no task"]);
    fs::copy(at("run/bank.safetensors"), at("lone.safetensors")).expect("a copy");
    refused("eval lone.safetensors", &["--data DIR"]);
    write(&folder.0, "one.json", r#"[{"name": "P_default", "env_id": "CartPole-v1", "seed": 0}]"#);
    refused("eval lone.safetensors --spec one.json --data data", &["Q_flipped_actions", "not among the tasks"]);

    refused(&format!("train --suite demo --out run {SMALL}"), &["already holds a run", "resume run"]);
    refused(&format!("--suite demo --out run {SMALL}"), &["already holds a run"]);
    refused(&format!("train --suite demo --out one.json {SMALL}"), &["one.json"]);
    // Not even an administrator can make a directory below a file.
    refused(&format!("train --suite demo --out one.json/run {SMALL}"), &["one.json/run"]);
    refused("data make --out data", &["tasks.json exists already"]);
    refused("data make --out one.json", &["one.json"]);
    refused("data make --suite panda4 --out new", &["suite panda4 does not exist", "panda3"]);
    let absent = ["Reach", "no-such-python", "dt/io/bridge/requirements.txt"];
    refused("data make --suite panda3 --out new --python no-such-python", &absent);
    write(&folder.0, "other.json", r#"{"tasks": [{"name": "a", "env_id": "Pusher-v5", "seed": 0}]}"#);
    refused("data make --suite other.json --out new", &["task \"a\"", "no controller for Pusher-v5"]);
    assert!(!at("new").exists());
    // A set that lies there already, though no spec names it.
    fs::create_dir_all(at("half/Q_flipped_actions")).expect("a folder");
    write(&folder.0, "half/Q_flipped_actions/trajs.npz", "mine");
    refused("data make --suite cartpole_conflict --out half", &["Q_flipped_actions/trajs.npz exists already"]);
    refused("resume none", &["none is no run directory"]);
    refused("resume data", &["data is no run directory", "config.json"]);
    refused("report none", &["none"]);
    refused("report data", &["data: neither a run"]);

    let config = fs::read_to_string(at("run/config.json")).expect("a config");
    let with = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        write(&folder.0, "run/config.json", &config.replace(from, to));
    };
    with("\"steps\": 4", "\"steps\": 5");
    refused("resume run", &["config.json", "settings changed"]);
    with("\"schema\": 1", "\"schema\": 2");
    refused("resume run", &["config.json", "schema 2", "reads 1"]);
    with("{", "[");
    refused("resume run", &["config.json", "not the JSON it should be"]);
    write(&folder.0, "run/config.json", &config);

    let data = fs::read(at("data/Q_flipped_actions/trajs.npz")).expect("data");
    fs::copy(at("data/P_default/trajs.npz"), at("data/Q_flipped_actions/trajs.npz")).expect("a copy");
    refused("resume run", &["task \"Q_flipped_actions\"", "the data changed since the run began"]);
    save("data/Q_flipped_actions/trajs.npz", &data);

    let results = fs::read(at("run/results.json")).expect("results");
    save("run/results.json", b"{}");
    refused("resume run", &["results.json", "not the JSON it should be"]);
    save("run/results.json", &results);
    save("run/bank.safetensors", &bank[..bank.len() / 2]);
    refused("resume run", &["bank.safetensors"]);
    fs::copy(at("other/bank.safetensors"), at("run/bank.safetensors")).expect("a copy");
    refused("resume run", &["bank.safetensors", "other settings"]);
    fs::remove_file(at("run/bank.safetensors")).expect("a file");
    refused("resume run", &["2 rows but the bank holds 0 tasks"]);
    save("run/bank.safetensors", &bank);
    // Everything restored, the run is whole again.
    done(&folder.0, "resume run -q");
    assert_eq!(fs::read(at("run/bank.safetensors")).expect("a bank"), bank);
}

#[test]
#[cfg(target_os = "linux")]
fn full_disks_and_closed_doors() {
    let folder = Folder::new("bad-disk");
    done(&folder.0, &format!("train --suite cartpole_conflict --data-episodes 6 --out whole {SMALL}"));
    refused(&folder.0, "inspect whole/bank.safetensors --json /dev/full", &["/dev/full", "No space left"]);
    let words = ["inspect", "whole/bank.safetensors"];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let output = program(&folder.0).args(words).stdout(full).output().expect("the program starts");
    check("inspect > /dev/full", &output, &["stdout", "No space left"]);

    // A limit on the size of files stands in for a disk that fills up while the bank is written.
    let train = format!("train --suite cartpole_conflict --data-episodes 6 --out run {SMALL}");
    let script = format!("trap '' XFSZ; ulimit -f 64; exec {} {train}", env!("CARGO_BIN_EXE_tsn-affinity"));
    let output = Command::new("sh").args(["-c", &script]).current_dir(&folder.0).output().expect("a shell");
    check("ulimit", &output, &["bank.safetensors", "File too large"]);
    assert!(!folder.path("run/bank.safetensors").exists());
    // With room again the run goes on, to the same bits.
    done(&folder.0, "resume run -q");
    let bank = |run: &str| fs::read(folder.path(run).join("bank.safetensors")).expect("a bank");
    assert!(bank("run") == bank("whole"));

    use std::os::unix::fs::PermissionsExt as _;
    let closed = folder.path("closed");
    fs::create_dir(&closed).expect("a directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("permissions");
    if fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("not run: permissions do not bind this user (root)");
        return;
    }
    let train = format!("train --suite demo --data-episodes 6 --out closed/run {SMALL}");
    refused(&folder.0, &train, &["closed/run", "Permission denied"]);
}

#[test]
fn outputs_do_not_mix() {
    let folder = Folder::new("outputs-mix");
    for command in ["demo", "train --suite demo", "resume run", "eval bank.safetensors", "profile gemm"] {
        refused(&folder.0, &format!("{command} --json - --csv -"), &["--json and --csv", "stdout"]);
        refused(&folder.0, &format!("{command} --json same --csv same"), &["both write same"]);
    }
}
