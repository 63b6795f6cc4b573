//! Every op, every variant, every device: values against f64, words beside outputs, NaN behind cleared bits, the same
//! bits from run to run and for any number of workers.
//!
//! Cases come from the contracts (`tests/src/cases.rs`), so a new op is covered by being in the list; an op for which no
//! valid call can be drawn fails. A device that is missing is reported as not run; `REQUIRE=cpu,cuda,wgpu,emulator` makes
//! that a failure. The emulator runs CUDA kernels on the CPU, in three orders of their threads that must give the same bits;
//! `cuda` is a GPU. `OPS=gemm,conv` runs these ops alone, `DEVICES=cpu,wgpu` on these devices alone.

mod column;
#[cfg(feature = "cuda")]
mod gpu;
mod planted;

use column::{Devices, GPUS, missing_devices};
use kernels::{Contract, Isa, OPS, Trial};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;
use tsn_tests::cases::{Case, free};

/// Empty, single, around vectors, tiles and mask words, and a prime.
const AWKWARD: [u32; 17] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 129];
/// Sizes of all other letters while one is awkward.
const USUAL: [u32; 5] = [3, 5, 2, 4, 6];
const LONG: u32 = 1031;
/// Drawn cases for each op.
const DRAWN: u32 = 48;

#[test]
fn every_op_on_every_device() {
    let required = std::env::var("REQUIRE").unwrap_or_default();
    let mut failures = missing_devices(&required);
    let devices = Devices::named();
    let mut table =
        format!("{:<18} {:>5} {:>6}  {:<8} {:<8} {:<8} cpu\n", "op", "cases", "s", "emulator", "cuda", "wgpu");
    let chosen = std::env::var("OPS").unwrap_or_default();
    let unknown = chosen.split(',').filter(|name| !name.is_empty() && OPS.iter().all(|op| op.name != *name));
    failures.extend(unknown.map(|name| format!("OPS: no op is named `{name}`")));
    failures.extend(devices.unknown.iter().map(|name| format!("DEVICES: `{name}` is neither cpu nor one of {GPUS:?}")));
    let ops: Vec<_> =
        OPS.iter().filter(|op| chosen.is_empty() || chosen.split(',').any(|name| name == op.name)).collect();
    for (op, (outcome, seconds)) in ops.iter().zip(outcomes(&ops, &devices)) {
        let (cases, verdict) = match &outcome {
            Ok(cases) => (*cases, "passed"),
            Err(_) => (0, "FAILED"),
        };
        let mut cpu = String::new();
        for variant in op.cpu {
            let verdict = if devices.cpu && Isa::detect().has(variant.needs) { verdict } else { "not run" };
            write!(cpu, "{} {verdict}; ", variant.name).expect("a string grows");
        }
        let cpu = cpu.trim_end_matches("; ");
        let mut gpus = String::new();
        for name in GPUS {
            let verdict = match devices.columns.iter().find(|column| column.name == name) {
                Some(column) if !column.covers(op) => "none",
                Some(_) => verdict,
                None => "not run",
            };
            write!(gpus, "{verdict:<8} ").expect("a string grows");
        }
        writeln!(table, "{:<18} {cases:>5} {seconds:>6.1}  {gpus}{cpu}", op.name).expect("a string grows");
        if let Err(why) = outcome {
            failures.push(format!("{}: {why}", op.name));
        }
    }
    // The harness keeps what `print!` writes; the table is for every run.
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// What came of every op, and the seconds it took. Each core takes the next op that none has taken, those with many sizes, which
/// take longest, first.
fn outcomes(ops: &[&&'static Contract], devices: &Devices) -> Vec<(Result<usize, String>, f64)> {
    let mut queue: Vec<_> = ops.iter().enumerate().collect();
    queue.sort_by_key(|(_, op)| std::cmp::Reverse(free(op).len()));
    let queue = Mutex::new(queue.into_iter());
    let next = || queue.lock().expect("nobody panics with it").next();
    let take = || {
        let mut ended = Vec::new();
        while let Some((nth, op)) = next() {
            let begin = Instant::now();
            // A reference that panics must not hide the other ops.
            let outcome = catch_unwind(AssertUnwindSafe(|| conform(op, devices)));
            let outcome = outcome.unwrap_or_else(|_| Err("panicked; the message is above".into()));
            ended.push((nth, (outcome, begin.elapsed().as_secs_f64())));
        }
        ended
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(take)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect()
    });
    all.sort_by_key(|(nth, _)| *nth);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Runs all cases of an op, on the CPU and on every other device there is, and counts those that the contract allows.
fn conform(op: &'static Contract, devices: &Devices) -> Result<usize, String> {
    let mut count = 0;
    for case in fixed(op) {
        count += usize::from(holds(op, &case, devices)?);
    }
    Ok(count + drawn(op, devices)?)
}

fn holds(op: &'static Contract, case: &Case, devices: &Devices) -> Result<bool, String> {
    let verify = |trial: Trial| {
        if devices.cpu {
            trial.verify()?;
        }
        devices.columns.iter().try_for_each(|column| column.run(&trial))
    };
    match case.trial(op) {
        Ok(None) => Ok(false),
        Ok(Some(trial)) => verify(trial).map(|()| true).map_err(|why| format!("{why} ({case:?})")),
        Err(why) => Err(format!("{why} ({case:?})")),
    }
}

/// Every awkward size at every letter; all letters of one awkward size; one letter long and the others short. The
/// choice of optional arguments goes through all combinations.
fn fixed(op: &'static Contract) -> Vec<Case> {
    let letters = free(op).len();
    let mut all = Vec::new();
    for (nth, &size) in AWKWARD.iter().enumerate() {
        for letter in 0..letters {
            let mut sizes: Vec<u32> = (0..letters).map(|at| USUAL[(at + nth) % USUAL.len()]).collect();
            sizes[letter] = size;
            all.push(sizes);
        }
        if u64::from(size).pow(letters as u32) <= 300_000 {
            all.push(vec![size; letters]);
        }
    }
    for letter in 0..letters {
        let mut sizes = vec![2; letters];
        sizes[letter] = LONG;
        all.push(sizes);
    }
    all.into_iter().zip(0u32..).map(|(sizes, n)| Case { sizes, present: n.wrapping_mul(7), seed: n.into() }).collect()
}

/// Sizes, values and optional arguments from proptest, which also finds the smallest case that fails.
fn drawn(op: &'static Contract, devices: &Devices) -> Result<usize, String> {
    let letters = free(op).len();
    // Few letters may be large together.
    let most = [1000u32, 1000, 200, 70, 24, 12].get(letters).copied().unwrap_or(8);
    let sizes = proptest::collection::vec(prop_oneof![0..9u32, 0..most], letters);
    let strategy = (sizes, any::<u32>(), any::<u64>()).prop_map(|(sizes, present, seed)| Case { sizes, present, seed });
    let config = Config { cases: DRAWN, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let count = std::cell::Cell::new(0);
    let outcome = runner.run(&strategy, |case| {
        let ran = holds(op, &case, devices).map_err(TestCaseError::fail)?;
        count.set(count.get() + usize::from(ran));
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(count.get()),
        Err(TestError::Fail(why, case)) => Err(format!("{why}; smallest: {case:?}")),
        Err(error) => Err(error.to_string()),
    }
}
