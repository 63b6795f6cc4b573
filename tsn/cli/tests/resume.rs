//! Killed at random moments and resumed, a run ends with the bits of one that was left alone.
#![cfg(unix)]

mod common;

use common::{Folder, done, program, run, texts};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const TRAIN: &str = "train --spec data/tasks.json --data data --strategy tsn_affinity --steps 40 --batch 8 --episodes 2 \
    --width 32 --layers 1 --context 5 --checkpoint-every 7 -q";
const KILLS: u32 = 20;

fn results(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("results.json")).expect("results")).expect("JSON")
}

/// What must not depend on interruptions: everything but times.
fn timeless(run: &Path) -> Value {
    let mut results = results(run);
    let fields = results.as_object_mut().expect("an object");
    fields.remove("wall_s");
    fields.remove("time_per_task_s");
    results
}

fn spawn(folder: &Path, words: &str) -> Child {
    let mut command = program(folder);
    let err = fs::File::create(folder.join("stderr.txt")).expect("a file");
    command.args(words.split_whitespace()).stdout(Stdio::null()).stderr(err);
    command.spawn().expect("the program starts")
}

/// Kills a child after a while; true if it was still running.
fn kill_after(folder: &Path, mut child: Child, time: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if let Some(status) = child.try_wait().expect("a child") {
            let err = fs::read_to_string(folder.join("stderr.txt")).unwrap_or_default();
            assert!(status.success(), "{status:?}: {err}");
            return false;
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().expect("a child");
    true
}

#[test]
fn kills_at_random_moments_change_no_bit() {
    let folder = Folder::new("kill");
    done(&folder.0, "data make --suite demo --episodes 10 --out data");
    let begin = Instant::now();
    done(&folder.0, &format!("{TRAIN} --out whole"));
    let whole_time = begin.elapsed();
    let (bank, whole) =
        (fs::read(folder.path("whole/bank.safetensors")).expect("a bank"), timeless(&folder.path("whole")));
    assert_eq!(whole["complete"], true);

    // A fixed seed: the moments differ by machine and load anyway.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (mut kills, mut runs) = (0, 0);
    while kills < KILLS {
        let name = format!("killed{runs}");
        let dir = folder.path(&name);
        runs += 1;
        assert!(runs < 200, "runs end before they can be killed");
        loop {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let time = whole_time.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64 * 0.8);
            // Killed before its configuration was written, a run has not begun.
            let words = match dir.join("config.json").exists() {
                true => format!("resume {name} -q"),
                false => format!("{TRAIN} --out {name}"),
            };
            if !kill_after(&folder.0, spawn(&folder.0, &words), time) {
                break;
            }
            kills += 1;
        }
        assert!(bank == fs::read(dir.join("bank.safetensors")).expect("a bank"), "{name}: the bank differs");
        assert_eq!(timeless(&dir), whole, "{name}");
        for part in ["", "gen", "checkpoints"] {
            for entry in fs::read_dir(dir.join(part)).expect("a directory") {
                let file = entry.expect("an entry").file_name();
                assert!(!file.to_string_lossy().ends_with(".tmp"), "{name}: {file:?} was left behind");
            }
        }
    }
}

#[test]
fn a_signal_stops_with_a_checkpoint_and_says_how_to_go_on() {
    let folder = Folder::new("signal");
    let words = "train --suite demo --steps 100000 --batch 4 --episodes 1 --width 32 --layers 1 --context 5 --data-episodes 10 --out run";
    for (signal, words) in [("INT", words), ("TERM", "resume run")] {
        let mut command = program(&folder.0);
        command.args(words.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("the program starts");
        let step = folder.path("run/checkpoints/step.safetensors");
        let old = fs::read(&step).ok();
        // A new checkpoint shows that training goes on.
        let begin = Instant::now();
        while fs::read(&step).ok() == old {
            assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
            std::thread::yield_now();
        }
        let kill = std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let output = child.wait_with_output().expect("an end");
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("stopped in task \"P_default\" after step") && err.contains("resume run"), "{err}");
        assert!(step.is_file());
    }
}

#[test]
fn a_damaged_checkpoint_costs_time_but_no_bit() {
    let folder = Folder::new("damaged");
    done(&folder.0, "data make --suite cartpole_conflict --episodes 10 --out data");
    let train = TRAIN.replace("--steps 40", "--steps 60");
    done(&folder.0, &format!("{train} --no-reference --out whole"));
    let bank = fs::read(folder.path("whole/bank.safetensors")).expect("a bank");
    let step = folder.path("run/checkpoints/step.safetensors");
    let child = spawn(&folder.0, &format!("{train} --no-reference --out run"));
    let begin = Instant::now();
    while !step.exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::yield_now();
    }
    let _ = kill_after(&folder.0, child, Duration::ZERO);
    let mut bytes = fs::read(&step).unwrap_or_else(|_| b"gone".to_vec());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&step, &bytes).expect("damage");
    let output = run(&folder.0, "resume run -q");
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("starts over: no checkpoint of it"), "{err}");
    assert!(bank == fs::read(folder.path("run/bank.safetensors")).expect("a bank"));
}

#[test]
fn a_run_goes_on_with_its_device_and_its_simulators() {
    let folder = Folder::new("place");
    done(&folder.0, "data make --suite demo --episodes 4 --out data");
    let tasks = fs::read_to_string(folder.path("data/tasks.json")).expect("a list").replace("CartPole-v1", "Other-v0");
    fs::write(folder.path("tasks.json"), tasks).expect("a list");
    let train =
        "train --spec tasks.json --data data --steps 2 --batch 4 --width 16 --layers 1 --context 4 --no-reference -q";
    done(&folder.0, &format!("{train} --python no-such-python --threads 1 --out run"));
    let refused = |expected: [&str; 2]| {
        let output = run(&folder.0, "resume run -q");
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(expected.iter().all(|part| err.contains(part)), "{err}");
    };
    let edit = |file: &str, change: fn(&mut Value)| {
        let path = folder.path("run").join(file);
        let mut document = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        change(&mut document);
        fs::write(path, document.to_string()).expect("a file");
    };
    edit("config.json", |config| {
        assert_eq!((&config["python"], &config["threads"]), (&"no-such-python".into(), &1.into()))
    });
    // As if its simulator had been there.
    edit("config.json", |config| config["played"] = ["P_default"].into());
    refused(["\"P_default\" is played in this run", "--python"]);
    edit("config.json", |config| config["device"] = "cuda:1000".into());
    refused(["tsn-affinity: cuda", "use cpu"]);
}
