//! Every golden case on the CPU, with each of its instruction sets.
//!
//! `GOLDEN_DIR` names the directory; without it the copies in `fixtures/golden` are used. The table goes to standard
//! error past the harness, so a passing run shows it too.

use engine::Device;
use kernels::Isa;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use tsn_tests::golden;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden")
}

#[test]
fn every_case_is_within_its_tolerance() {
    let own = Isa::detect();
    let sets: Vec<Isa> = Isa::ALL.into_iter().filter(|s| own.has(*s)).collect();
    let dir = std::env::var_os("GOLDEN_DIR").map_or_else(fixtures, PathBuf::from);
    let runs: Vec<Vec<golden::Outcome>> = sets
        .iter()
        .map(|set| {
            // The best set runs as users run it, on every core.
            let device = if *set == own { Device::cpu(0) } else { Device::cpu_with(1, *set) };
            golden::run(&dir, &device).unwrap_or_else(|failure| panic!("{failure}"))
        })
        .collect();

    let mut table = format!("\n{} cases of {}: worst error / atol\n{:32}", runs[0].len(), dir.display(), "case");
    sets.iter().for_each(|set| table += &format!("{:>10}", set.name()));
    let mut failures = Vec::new();
    for (at, first) in runs[0].iter().enumerate() {
        table += &format!("\n{:32}", first.case);
        for (run, set) in runs.iter().zip(&sets) {
            let outcome = &run[at];
            let failed = if outcome.failures.is_empty() { ' ' } else { '!' };
            table += &format!("{:>9.3}{failed}", outcome.worst);
            failures.extend(outcome.failures.iter().map(|what| format!("{} ({}): {what}", outcome.case, set.name())));
        }
        let worst = runs.iter().map(|run| &run[at]).max_by(|a, b| a.worst.total_cmp(&b.worst));
        table += &format!("  {}", worst.map_or("", |outcome| &outcome.tensor));
    }
    writeln!(std::io::stderr(), "{table}").expect("standard error is open");
    assert!(!runs[0].is_empty(), "{} has no cases", dir.display());
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// Spoils one value of every output of the fixtures: each must be noticed.
#[test]
fn no_output_may_be_wrong() {
    let from = fixtures();
    let to = std::env::temp_dir().join(format!("golden-spoiled-{}", std::process::id()));
    std::fs::create_dir_all(&to).expect("a directory for temporary files");
    let index = std::fs::read(from.join("index.json")).expect("the fixtures have an index");
    std::fs::write(to.join("index.json"), &index).expect("the directory is ours");
    let index: Value = serde_json::from_slice(&index).expect("the index is JSON");
    let mut spoiled = Vec::new();
    for entry in std::fs::read_dir(&from).expect("the fixtures are a directory") {
        let path = entry.expect("the fixtures are readable").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            spoiled.extend(spoil(&path, &to, &index));
        }
    }
    let outcomes = golden::run(&to, &Device::cpu(0));
    std::fs::remove_dir_all(&to).expect("the directory is ours");
    let outcomes = outcomes.expect("the copies are readable");
    for (case, tensor) in &spoiled {
        let outcome = outcomes.iter().find(|o| o.case == *case).expect("every file is a case");
        let named = outcome.failures.iter().any(|what| what.contains(&format!("`{tensor}`")));
        assert!(named, "{case}: `{tensor}` was spoiled unnoticed; {}", outcome.failures.join("\n"));
    }
    assert!(spoiled.len() > 800, "only {} outputs", spoiled.len());
}

/// Copies a file with every output wrong at its largest value, and tells which outputs it has.
fn spoil(path: &Path, to: &Path, index: &Value) -> Vec<(String, String)> {
    let case = path.file_stem().and_then(|s| s.to_str()).expect("names of fixtures are text");
    let mut bytes = std::fs::read(path).expect("the fixtures are readable");
    let file = SafeTensors::deserialize(&bytes).expect("the fixtures are valid");
    let mut changes = Vec::new();
    let mut spoiled = Vec::new();
    for (name, view) in file.tensors() {
        let spec = &index[case]["tensors"][&name];
        let output = match index.get(case) {
            Some(_) => spec["role"] == "out",
            None => [".state", ".terminated", "seed100_119", "by_seed"].iter().any(|end| name.ends_with(end)),
        };
        if !output {
            continue;
        }
        let at = view.data().as_ptr().addr() - bytes.as_ptr().addr();
        let f32s: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let atol = spec["atol"].as_f64().unwrap_or(0.0);
        match view.dtype() {
            Dtype::F32 => {
                let largest = (0..f32s.len()).max_by(|a, b| f32s[*a].abs().total_cmp(&f32s[*b].abs()));
                let largest = largest.expect("outputs have values");
                let value = f64::from(f32s[largest]);
                // This one is an upper limit.
                let wrong = if name == "sklearn_inertia" { value / 2.0 } else { value + 2.5 * atol };
                changes.push((at + 4 * largest, (wrong as f32).to_le_bytes().to_vec()));
            }
            // The lowest byte of an integer, and one of a double's that is worth 1e-9 or more.
            Dtype::F64 => changes.push((at + 3, vec![view.data()[3] ^ 255])),
            _ => changes.push((at, vec![view.data()[0] ^ 1])),
        }
        spoiled.push((case.to_owned(), name));
    }
    for (at, change) in changes {
        bytes[at..at + change.len()].copy_from_slice(&change);
    }
    std::fs::write(to.join(path.file_name().expect("a file")), bytes).expect("the directory is ours");
    spoiled
}
