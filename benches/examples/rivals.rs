//! Ours beside other libraries, in turn in one process, as rows of the JSON format.
//!
//! `cargo run --release -p tsn-benches --features rivals --example rivals -- [--rounds N] [--large] [FILTER...]`; a case
//! runs if its id contains one of the filters. One thread. `cargo xtask peers` prints the rows as a table.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::time::Duration;
use tsn_benches::kernels::ops::{cosine::COSINE_TOPK, gemm::GEMM, masked_gemm::MASKED_GEMM};
use tsn_benches::kernels::{Array, DType, Isa, Trial};
use tsn_benches::measure::{Effort, fingerprint, interleaved};
use tsn_benches::rivals::{Rival, names};
use tsn_benches::{Work, bits, density_label, output, trial, values};

const EFFORT: Effort = Effort { sample: Duration::from_micros(500), samples: 15 };

/// Rows, outputs, inputs of dense products.
const DENSE: [(usize, usize, usize); 12] = [
    (1, 128, 128),
    (1, 1024, 1024),
    (20, 128, 128),
    (60, 128, 128),
    (60, 512, 128),
    (60, 128, 512),
    (1280, 128, 128),
    (3840, 128, 128),
    (3840, 384, 128),
    (3840, 512, 128),
    (3840, 128, 512),
    (3840, 1024, 1024),
];
const DENSE_LARGE: [(usize, usize, usize); 3] = [(1, 4096, 4096), (60, 4096, 4096), (3840, 4096, 4096)];
/// Rows, outputs, inputs and share kept of masked products.
const MASKED: [(usize, usize, usize, f64); 17] = [
    (60, 128, 128, 0.5),
    (60, 128, 128, 0.1),
    (60, 512, 128, 0.33),
    (60, 512, 128, 0.1),
    (60, 512, 128, 0.02),
    (3840, 128, 128, 0.5),
    (3840, 512, 128, 0.5),
    (3840, 128, 512, 0.5),
    (3840, 1024, 1024, 0.5),
    (3840, 128, 128, 0.33),
    (3840, 1024, 1024, 0.33),
    (3840, 128, 128, 0.1),
    (3840, 512, 128, 0.1),
    (3840, 1024, 1024, 0.1),
    (1280, 4096, 1024, 0.08),
    (3840, 128, 128, 0.02),
    (3840, 1024, 1024, 0.02),
];
const MASKED_LARGE: [(usize, usize, usize, f64); 2] = [(60, 4096, 4096, 0.5), (60, 4096, 4096, 0.1)];
/// Queries, bank and width; the best ten.
const COSINES: [(usize, usize, usize); 4] = [(1, 100, 128), (64, 100, 128), (1, 10_000, 128), (64, 10_000, 128)];
const BEST: usize = 10;

fn main() -> ExitCode {
    let (mut rounds, mut large, mut filters) = (1, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--rounds", 1..) => match args.next().and_then(|n| n.parse().ok()) {
                Some(n) => rounds = n,
                None => return usage("--rounds takes a number"),
            },
            ("--large", _) => large = true,
            (other, _) if other.starts_with("--") => return usage(&format!("unknown flag {other}")),
            _ => filters.push(arg),
        }
    }
    let cases: Vec<Case> = cases(large).into_iter().filter(|case| case.wanted(&filters)).collect();
    if cases.is_empty() {
        return usage("no case matches");
    }
    println!("{}", fingerprint());
    for round in 0..rounds {
        for case in &cases {
            if let Err(why) = case.time() {
                eprintln!("rivals: {why}");
                return ExitCode::FAILURE;
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    ExitCode::SUCCESS
}

fn usage(fault: &str) -> ExitCode {
    eprintln!("rivals: {fault}; usage: rivals [--rounds N] [--large] [FILTER...]");
    ExitCode::from(2)
}

/// A call and the end of its ids.
struct Case {
    op: &'static str,
    label: String,
    density: f64,
    make: Box<dyn Fn() -> Trial>,
}

impl Case {
    fn id(&self, how: &str) -> String {
        format!("{}/{how}/{}", self.op, self.label)
    }

    fn wanted(&self, filters: &[String]) -> bool {
        filters.is_empty() || filters.iter().any(|filter| self.id("").contains(filter))
    }

    /// Times our best variant and every rival in turn and prints their rows.
    fn time(&self) -> Result<(), String> {
        let trial = (self.make)();
        let variant = trial.op.best(Isa::detect());
        let mut work = Work::new(trial.clone(), variant);
        let (flops, bytes) = ((work.flops() as f64 * self.density) as u64, work.bytes());
        let mut rivals = Vec::new();
        for name in names(self.op) {
            rivals.push((*name, Rival::checked(name, &trial)?));
        }
        let mut ids = vec![self.id(&format!("cpu_f32_{}", variant.name))];
        ids.extend(rivals.iter().map(|(name, _)| self.id(&format!("rival_f32_{name}"))));
        let mut ours = || work.run();
        let mut theirs: Vec<_> = rivals.iter_mut().map(|(_, rival)| || rival.run()).collect();
        let mut calls: Vec<&mut dyn FnMut()> = vec![&mut ours];
        calls.extend(theirs.iter_mut().map(|call| call as &mut dyn FnMut()));
        for (id, samples) in ids.iter().zip(interleaved(&mut calls, EFFORT)) {
            println!("{}", samples.row(id, flops, bytes));
        }
        Ok(())
    }
}

fn cases(large: bool) -> Vec<Case> {
    let more = usize::from(large);
    let dense = [&DENSE[..], &DENSE_LARGE[..]].into_iter().take(1 + more).flatten().map(|&(r, o, i)| Case {
        op: "gemm",
        label: format!("r{r}_o{o}_i{i}_d100"),
        density: 1.0,
        make: Box::new(move || trial(&GEMM, vec![values(1, r, i), values(2, o, i), Array::Absent, output(r, o)], &[])),
    });
    let masked =
        [&MASKED[..], &MASKED_LARGE[..]].into_iter().take(1 + more).flatten().map(|&(r, o, i, density)| Case {
            op: "masked_gemm",
            label: format!("r{r}_o{o}_i{i}_{}", density_label(density)),
            density,
            make: Box::new(move || {
                let weight = [values(2, o, i), bits(3, o, i, density), Array::Absent, Array::Absent];
                trial(&MASKED_GEMM, [vec![values(1, r, i)], weight.to_vec(), vec![output(r, o)]].concat(), &[])
            }),
        });
    let cosines = COSINES.map(|(n, m, d)| Case {
        op: "cosine_topk",
        label: format!("n{n}_m{m}_d{d}_k{BEST}_d100"),
        density: 1.0,
        make: Box::new(move || {
            let index = Array::output(DType::U32, n, BEST);
            trial(&COSINE_TOPK, vec![values(1, n, d), values(2, m, d), output(n, BEST), index], &[])
        }),
    });
    dense.chain(masked).chain(cosines).collect()
}
