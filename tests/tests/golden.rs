//! Every golden case on the CPU, with each of its instruction sets.
//!
//! `GOLDEN_DIR` names the directory; without it the copies in `fixtures/golden` are used. The table goes to standard
//! error past the harness, so a passing run shows it too.

use engine::Device;
use kernels::Isa;
use std::io::Write;
use std::path::PathBuf;
use tsn_tests::golden;

fn directory() -> PathBuf {
    match std::env::var_os("GOLDEN_DIR") {
        Some(dir) => dir.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden"),
    }
}

#[test]
fn every_case_is_within_its_tolerance() {
    let own = Isa::detect();
    let sets: Vec<Isa> = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon].into_iter().filter(|s| own.has(*s)).collect();
    let dir = directory();
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
