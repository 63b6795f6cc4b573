//! The program on a GPU through wgpu: what a sequence has learned it keeps, and `doctor` lists the adapters.
//!
//! Where programs find no adapter these report themselves as not run; `REQUIRE=wgpu` makes that a failure.
#![cfg(feature = "wgpu")]

mod common;

use common::{Folder, done, run, texts};
use serde_json::Value;
use std::fs;

/// False if there is no adapter.
fn has_adapter(folder: &Folder) -> bool {
    let output = run(&folder.0, "profile gelu --r 4 --c 4 --device wgpu --once");
    let (_, err) = texts(&output);
    if err.contains("no adapter") {
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "wgpu"), "REQUIRE names wgpu: {err}");
        eprintln!("not run: {err}");
        return false;
    }
    assert_eq!(output.status.code(), Some(0), "{err}");
    true
}

/// The main job, shortened: masks forget nothing, to the bit; training without them does.
#[test]
fn a_sequence_on_a_gpu_forgets_nothing() {
    let folder = Folder::new("wgpu-sequence");
    if !has_adapter(&folder) {
        return;
    }
    let sizes = "--steps 6 --batch 4 --episodes 1 --width 16 --layers 1 --context 5";
    done(&folder.0, &format!("demo --suite cartpole_conflict --device wgpu {sizes} --no-reference --json out.json"));
    let text = fs::read_to_string(folder.path("out.json")).expect("a file");
    let results: Value = serde_json::from_str(&text).expect("JSON");
    let [ours, naive] = ["tsn_affinity", "naive"].map(|name| &results["strategies"][name]);
    assert_eq!((&results["bit_identical"], &ours["bit_identical"]), (&true.into(), &true.into()));
    for measure in ["BWT", "Forgetting"] {
        assert_eq!(ours["metrics"][measure].as_f64(), Some(0.0), "{measure}: {}", ours["metrics"]);
    }
    let losses = |strategy: &Value| ["own_loss", "final_loss"].map(|name| strategy[name][0].as_f64().expect("a loss"));
    let [[own, kept], [before, after]] = [ours, naive].map(losses);
    assert_eq!(own.to_bits(), kept.to_bits());
    assert!(before.is_finite() && before != after, "naive training left the first task at {after}");
}

#[test]
fn doctor_lists_gpus_with_limits() {
    let folder = Folder::new("wgpu-doctor");
    if !has_adapter(&folder) {
        return;
    }
    let report: Value = serde_json::from_str(&done(&folder.0, "doctor --json -")).expect("JSON");
    let adapters = report["devices"]["adapters"].as_array().expect("a list");
    assert!(!adapters.is_empty());
    for adapter in adapters.iter().map(|adapter| adapter.as_str().expect("a sentence")) {
        for limit in ["buffers to", "bindings to", "invocations", "subgroups", "16-bit floats"] {
            assert!(adapter.contains(limit), "{adapter}");
        }
    }
}
