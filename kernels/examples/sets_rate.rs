//! Times of codebooks (`kmeans`) and of nearest prototypes (`cosine_topk`) on this machine.
//!
//! `cargo run --release -p tsn-kernels --example sets_rate -- kmeans`
//! `cargo run --release -p tsn-kernels --example sets_rate -- cosine [largest bank, 10000]`
#![expect(clippy::print_stdout, reason = "prints a table")]

use std::time::Instant;
use tsn_kernels::contract::Contract;
use tsn_kernels::philox::{Rng, Stream};
use tsn_kernels::{Array, Call, Isa, Mat, MatMut, Operand, Pool, Trial, Variant};

fn normals(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Seconds of one run of the kernel alone; outputs in `trial` change.
fn run(trial: &mut Trial, variant: &Variant, pool: &Pool, shared: &mut Vec<f32>, workers: &mut Vec<f32>) -> f64 {
    let scratch = (variant.scratch)(&trial.dims);
    shared.resize(scratch.shared, 0.0);
    workers.resize(scratch.of_workers(pool.workers()), 0.0);
    let mut args: [Operand<'_>; 8] = std::array::from_fn(|_| Operand::Absent);
    for (at, (operand, array)) in args.iter_mut().zip(&mut trial.args).enumerate() {
        let written = trial.op.args[at].access != tsn_kernels::Access::Read;
        *operand = match (array, written) {
            (Array::F32(r, c, v), true) => Operand::F32Mut(MatMut::dense(v, *r, *c)),
            (Array::F32(r, c, v), false) => Operand::F32(Mat::dense(v, *r, *c)),
            (Array::U32(r, c, v), true) => Operand::U32Mut(MatMut::dense(v, *r, *c)),
            (Array::U8(r, c, v), true) => Operand::U8Mut(MatMut::dense(v, *r, *c)),
            _ => Operand::Absent,
        };
    }
    let start = Instant::now();
    variant.stage().run(&mut Call { shared, workers, ..Call::new(&trial.dims, pool, args) });
    start.elapsed().as_secs_f64()
}

/// Seconds of the fastest and of the median run, within about a second.
fn time(trial: &mut Trial, variant: &Variant, pool: &Pool) -> (f64, f64) {
    let (mut shared, mut workers) = (Vec::new(), Vec::new());
    let first = run(trial, variant, pool, &mut shared, &mut workers);
    let repeat = ((1.0 / first) as usize).clamp(3, 1000);
    let mut all: Vec<f64> = (0..repeat).map(|_| run(trial, variant, pool, &mut shared, &mut workers)).collect();
    all.sort_by(f64::total_cmp);
    (all[0], all[repeat / 2])
}

fn variants(op: &'static Contract) -> impl Iterator<Item = &'static Variant> {
    let isa = Isa::detect();
    op.cpu.iter().filter(move |v| isa.has(v.needs))
}

fn op(name: &str) -> &'static Contract {
    tsn_kernels::ops::find(name).unwrap_or_else(|| panic!("no op {name}"))
}

/// Some values.
type Make<'a> = &'a dyn Fn(usize) -> Vec<f32>;

fn kmeans() {
    use tsn_kernels::DType;
    let uniform = |n: usize| -> Vec<f32> {
        let mut rng = Rng::new(2, Stream::Data, [0, 0]);
        (0..n).map(|_| rng.uniform(-1.0, 1.0) as f32).collect()
    };
    // Two modes and 15 or 17 centres: which mode gets the odd one is decided late.
    let modes = |n: usize| normals(n, 3).iter().enumerate().map(|(at, x)| x * 0.2 + [-1.0, 1.0][at % 2]).collect();
    // A magnitude mask's weights: nothing near zero.
    let kept = |n: usize| normals(n, 4).iter().map(|x| x + x.signum()).collect();
    let tails = |n: usize| normals(n, 5).iter().map(|x| x * x * x).collect();
    let kinds: [(&str, Make<'_>); 5] = [
        ("normal", &|n| normals(n, 1)),
        ("uniform", &uniform),
        ("two modes", &modes),
        ("kept", &kept),
        ("cubes", &tails),
    ];
    for (n, k) in [(3000, 16), (30_000, 16), (100_000, 16), (100_000, 15), (1_000_000, 16), (100_000, 4), (100_000, 64)]
    {
        for (kind, values) in &kinds {
            let args = vec![
                Array::F32(1, n, values(n)),
                Array::Absent,
                Array::Absent,
                Array::output(DType::F32, 1, k),
                Array::output(DType::U8, 1, n),
                Array::output(DType::F32, 1, 1),
                Array::output(DType::U32, 1, 1),
            ];
            let mut trial = Trial::new(op("kmeans"), args, &[]).unwrap_or_else(|e| panic!("{e:?}"));
            let mut line = format!("kmeans {n:8} k {k:3} {kind:10}");
            for variant in variants(trial.op) {
                if variant.name == "plain" && n * k > 100_000 * 16 {
                    continue;
                }
                let (best, median) = time(&mut trial, variant, &Pool::serial());
                let inertia = trial.args[5].f32()[0];
                line +=
                    &format!("  {} {:8.3} ms ({:8.3}) inertia {inertia:.6e}", variant.name, best * 1e3, median * 1e3);
            }
            println!("{line}");
        }
    }
}

fn cosine(largest: usize) {
    use tsn_kernels::DType;
    let k = 10;
    let pools = [Pool::serial(), Pool::new(2)];
    for (m, d) in [(100, 128), (10_000, 128), (1_000_000, 128), (1_000_000, 512)] {
        if m > largest {
            continue;
        }
        let bank = normals(m * d, 7);
        for n in [1, 64, 1024] {
            let args = vec![
                Array::F32(n, d, normals(n * d, 8)),
                Array::F32(m, d, bank.clone()),
                Array::output(DType::F32, n, k),
                Array::output(DType::U32, n, k),
            ];
            let mut trial = Trial::new(op("cosine_topk"), args, &[]).unwrap_or_else(|e| panic!("{e:?}"));
            let best = trial.op.best(Isa::detect());
            let [one, two] = pools.each_ref().map(|pool| time(&mut trial, best, pool));
            let flop = 2.0 * (n * m * d) as f64;
            println!(
                "cosine_topk {n:5} x {m:8} x {d:4} {:14} one {:10.1} us (median {:10.1}) {:6.1} GFLOP/s {:6.1} GB/s  two {:10.1} us ({:.2}x)",
                best.name,
                one.0 * 1e6,
                one.1 * 1e6,
                flop / one.0 / 1e9,
                (4 * m * d) as f64 / one.0 / 1e9,
                two.0 * 1e6,
                one.0 / two.0,
            );
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("kmeans") => kmeans(),
        Some("cosine") => cosine(words.get(1).and_then(|w| w.parse().ok()).unwrap_or(10_000)),
        _ => println!("usage: sets_rate kmeans | sets_rate cosine [largest bank]"),
    }
}
