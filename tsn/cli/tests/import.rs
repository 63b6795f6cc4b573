//! Records and checkpoints of the reference implementation, as the commands see them.

mod common;

use common::{Folder, done, golden_checkpoint, run, texts};
use serde_json::Value;
use std::fs;

const SMALL: &str =
    "--steps 4 --batch 4 --episodes 1 --width 16 --layers 1 --context 4 --data-episodes 8 --no-reference -q";

#[test]
fn records_stand_beside_runs_of_ours() {
    let folder = Folder::new("records");
    done(&folder.0, &format!("train --suite cartpole_conflict --strategy naive --out ours {SMALL}"));
    let record = r#"{"name": "ewc", "task_names": ["P_default", "Q_flipped_actions"], "perf_matrix": [[100, 10], [40, 90]],
        "metrics": {"ACC": 7}, "seed": 0, "d_model": 128}"#;
    fs::write(folder.path("results.json"), record).expect("a file");
    let rows = "strategy,protocol,train_seed,task_order,perf_matrix\n\
        tsn,other,1,a|b,\"[[1, 0], [1, 2]]\"\ntsn,other,2,a|b,\"[[3, 0], [3, 4]]\"\n";
    fs::write(folder.path("rows.csv"), rows).expect("a file");
    let out = done(&folder.0, "import run results.json --suite cartpole_conflict --out theirs");
    assert!(out.contains("cartpole_conflict__ewc__imported__r001__"), "{out}");
    let out = done(&folder.0, "import run rows.csv --out theirs");
    assert_eq!(out.lines().count(), 2, "{out}");
    let csv = done(&folder.0, "report ours theirs --out page --csv - --json page.json");
    let has = |start: &str| assert!(csv.lines().any(|line| line.starts_with(start)), "{start}\n{csv}");
    // The record says an ACC of 7; its matrix says 65.
    has("mean,cartpole_conflict,cartpole_conflict: ewc (imported),,raw,final,,1,2,65.000000");
    has("mean,cartpole_conflict,cartpole_conflict: ewc (imported),,raw,bwt,,1,1,-60.000000");
    has("difference,cartpole_conflict,cartpole_conflict: naive,cartpole_conflict: ewc (imported),raw,final,");
    has("mean,other,other: tsn (imported),,raw,final,,2,4,2.500000,1.414214");
    let page = fs::read_to_string(folder.path("page/report.html")).expect("a page");
    assert!(page.contains("Imported from results.json"));
    let json: Value = serde_json::from_slice(&fs::read(folder.path("page.json")).expect("JSON")).expect("JSON");
    assert_eq!(json["runs"].as_array().expect("runs").len(), 4);

    fs::write(folder.path("bad.csv"), rows.replace("[1, 2]", "[1]")).expect("a file");
    let output = run(&folder.0, "import run bad.csv --out theirs");
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("bad.csv, row 1: perf_matrix, row 1: expected 2 scores, found 1"), "{err}");
}

#[test]
fn checkpoints_become_banks() {
    let folder = Folder::new("checkpoints");
    for (model, keep, density) in [("model_cartpole", "", "dense"), ("model_cartpole_tsn", "--keep 0.25", "25.")] {
        golden_checkpoint(model, &folder.path("model.safetensors"));
        let words = format!(
            "import model model.safetensors --suite cartpole_conflict --task P_default --data-episodes 8 {keep}"
        );
        let out = done(&folder.0, &format!("{words} --context 8 --out {model}.bank"));
        assert!(out.contains("2 blocks of width 32, 4 heads"), "{out}");
        let out = done(&folder.0, &format!("inspect {model}.bank"));
        assert!(out.contains("P_default") && out.contains(density), "{out}");
        let out = done(&folder.0, &format!("eval {model}.bank --episodes 2 --csv -"));
        assert_eq!(out.lines().count(), 3, "{out}");
        let output = run(&folder.0, &format!("{words} --out {model}.bank"));
        assert_eq!(output.status.code(), Some(2), "a bank is not replaced");
    }
    let refused = |words: &str, parts: &[&str]| {
        let output = run(&folder.0, &format!("import model {words} --suite demo --data-episodes 8 --out new.bank"));
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{words}: {err}");
        assert!(!folder.path("new.bank").exists());
    };
    refused("model.safetensors --task P_default", &["--keep"]);
    refused("model.safetensors --task P_default --keep 1.5", &["--keep 1.5", "at most 1"]);
    refused("model.safetensors --task other --keep 0.5", &["--task other", "P_default"]);
    refused("model.safetensors --task P_default --keep 0.5 --heads 5", &["heads", "5"]);
    fs::write(folder.path("model.pt"), b"PK\x03\x04").expect("a file");
    refused("model.pt --task P_default", &["model.pt", "never read", "save_file"]);
    golden_checkpoint("model_panda", &folder.path("model.safetensors"));
    refused("model.safetensors --task P_default", &["Vector(25)", "Vector(4)"]);
}
