//! Every help text fits a screen, and its example works as written.

mod common;

use common::{Folder, done, program};
use std::path::Path;

fn help(folder: &Path, command: &[&str]) -> String {
    let output = program(folder).args(command).arg("--help").output().expect("the program starts");
    assert!(output.status.success(), "{command:?} --help");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn examples_run_in_order_and_help_fits_a_screen() {
    let folder = Folder::new("help");
    // Data first, then a run, then what looks at it.
    common::golden_checkpoint("model_cartpole", &folder.path("model.safetensors"));
    let commands: [&[&str]; 19] = [
        &["data", "make"],
        &["data", "check"],
        &["data", "convert"],
        &["train"],
        &["sweep"],
        &["resume"],
        &["eval"],
        &["adapt"],
        &["explain"],
        &["inspect"],
        &["report"],
        &["import", "run"],
        &["import", "model"],
        &["import"],
        &["doctor"],
        &["profile"],
        &[],
        &["demo"],
        &["data"],
    ];
    for command in commands {
        let text = help(&folder.0, command);
        assert!(text.lines().count() <= 48, "{command:?}: {} lines", text.lines().count());
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{command:?}: {line}");
        }
        let example = text.lines().skip_while(|line| !line.starts_with("Example:")).nth(1);
        let Some(example) = example else {
            assert!([["data"], ["import"]].contains(&[command[0]]), "help without an example");
            continue;
        };
        let words = example.trim().strip_prefix("tsn-affinity ").expect("an example calls the program");
        let out = done(&folder.0, words);
        assert!(!out.is_empty(), "{example}: says nothing");
    }
    assert!(folder.path("runs/train/bank.safetensors").is_file());
    assert!(folder.path("runs/train/report.html").is_file());
    let out = done(&folder.0, "eval runs/train/bank.safetensors --episodes 1 --route oracle --classes");
    assert!(out.contains("routing by oracle, in play") && out.contains("(class)"), "{out}");
    let out = done(&folder.0, "eval runs/train/bank.safetensors --episodes 1 --route oracle --csv -");
    let mut lines = out.lines().map(|line| line.split(',').collect::<Vec<_>>());
    assert_eq!(lines.next().expect("a head")[..4], ["rule", "task", "episodes", "score"]);
    let row = lines.next().expect("a task");
    // The name of the rule has a comma.
    assert_eq!((row.len(), row[3], row[6]), (11, "1", "1.000000"), "{out}");
}

#[test]
fn json_holds_what_scripts_read() {
    let folder = Folder::new("json");
    let words = "--suite cartpole_conflict --steps 6 --batch 4 --episodes 2 --width 32 --layers 1 --context 5 --data-episodes 10 --json -";
    let out = done(&folder.0, words);
    let document: serde_json::Value = serde_json::from_str(&out).expect("stdout is JSON and nothing else");
    assert_eq!((&document["schema"], &document["suite"]), (&1.into(), &"cartpole_conflict".into()));
    assert_eq!(document["bit_identical"], true);
    assert!(document["wall_s"].as_f64().is_some_and(|s| s > 0.0));
    for name in ["tsn_affinity", "naive"] {
        let s = &document["strategies"][name];
        assert_eq!(s["task_names"], serde_json::json!(["P_default", "Q_flipped_actions"]));
        let rows = s["perf_matrix"].as_array().expect("rows");
        assert!(rows.len() == 2 && rows.iter().all(|r| r.as_array().is_some_and(|r| r.iter().all(|s| s.is_f64()))));
        for key in ["ACC", "BWT", "Forgetting", "avg_score", "memory_factor", "memory_factor_with_te"] {
            assert!(s["metrics"][key].is_f64(), "{name} {key}: {}", s["metrics"][key]);
        }
        for key in ["density", "newly_claimed", "time_per_task_s"] {
            assert_eq!(s[key].as_array().map(Vec::len), Some(2), "{name} {key}");
        }
        assert_eq!(s["copies"], 1);
        assert_eq!(s["complete"], true);
    }
    assert_eq!(document["strategies"]["tsn_affinity"]["metrics"]["BWT"], 0.0);
}

#[test]
fn thread_count_and_repetition_change_nothing() {
    let folder = Folder::new("threads");
    let base = "train --suite cartpole_conflict --steps 8 --batch 8 --episodes 2 --width 32 --layers 1 --context 5 --data-episodes 10 --no-reference -q";
    let mut banks = Vec::new();
    for (name, threads) in [("a", 1), ("b", 2), ("c", 5), ("d", 2)] {
        done(&folder.0, &format!("{base} --threads {threads} --out {name}"));
        banks.push(std::fs::read(folder.path(name).join("bank.safetensors")).expect("a bank"));
    }
    assert!(banks.iter().all(|bank| *bank == banks[0]));
    done(&folder.0, &format!("{base} --seed 1 --out e"));
    assert_ne!(std::fs::read(folder.path("e/bank.safetensors")).expect("a bank"), banks[0]);
}
