//! Times of mask forming and of the optimiser step on this machine: every variant the CPU supports, one worker.
//!
//! `cargo run --release -p tsn-kernels --example topk_rate`
#![expect(clippy::print_stdout, reason = "prints a table")]

use std::time::Instant;
use tsn_kernels::contract::{Contract, DType, Dims};
use tsn_kernels::philox::{Rng, Stream};
use tsn_kernels::{Array, BitMask, BitMat, BitMatMut, Call, Isa, Mat, MatMut, Operand, Pool, Trial, Variant};

/// `[out, in]` of the maskable tensors of the image model, 1.09 M entries, and how many there are of each.
const MODEL: [(usize, usize, usize); 15] = [
    (32, 256, 1),
    (1, 32, 1),
    (64, 512, 1),
    (64, 576, 1),
    (1, 64, 2),
    (128, 3136, 1),
    (1, 128, 1),
    (128, 1, 1),
    (128, 128, 1),
    (18, 128, 2),
    (1, 18, 1),
    (384, 128, 3),
    (128, 128, 3),
    (512, 128, 3),
    (128, 512, 3),
];

fn op(name: &str) -> &'static Contract {
    tsn_kernels::ops::find(name).unwrap_or_else(|| panic!("no op {name}"))
}

fn normals(n: usize) -> Vec<f32> {
    let mut rng = Rng::new(1, Stream::Scores, [0, 0]);
    (0..n).map(|_| rng.normal() as f32).collect()
}

fn bits(o: usize, i: usize, percent: u64) -> BitMask {
    let mut rng = Rng::new(2, Stream::Scores, [0, 0]);
    BitMask::from_flags(o as u32, i as u32, (0..o * i).map(|_| rng.below(100) < percent).collect::<Vec<_>>())
}

/// A call of which only the kernel is timed.
struct Timed {
    trial: Trial,
    words: Vec<u32>,
    shared: Vec<f32>,
}

impl Timed {
    fn new(name: &str, args: Vec<Array>, scalars: &[u32]) -> Timed {
        let trial = Trial::new(op(name), args, scalars).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let words = match trial.args.last() {
            Some(Array::Bits(mask)) => mask.words().to_vec(),
            _ => Vec::new(),
        };
        Timed { trial, words, shared: Vec::new() }
    }

    /// Milliseconds of one run.
    fn run(&mut self, variant: &Variant, pool: &Pool) -> f64 {
        let dims: Dims = self.trial.dims;
        self.shared.resize((variant.scratch)(&dims).shared, 0.0);
        let mut args: [Operand<'_>; 8] = std::array::from_fn(|_| Operand::Absent);
        let mut words = Some(&mut self.words[..]);
        let written = self.trial.op.args.iter().map(|a| a.access != tsn_kernels::Access::Read);
        for ((operand, array), written) in args.iter_mut().zip(&mut self.trial.args).zip(written) {
            *operand = match array {
                Array::F32(r, c, v) => match written {
                    true => Operand::F32Mut(MatMut::dense(v, *r, *c)),
                    false => Operand::F32(Mat::dense(v, *r, *c)),
                },
                Array::U32(r, c, v) => Operand::U32(Mat::dense(v, *r, *c)),
                Array::Bits(mask) => {
                    let (rows, cols, ld) = (mask.rows() as usize, mask.cols() as usize, mask.words_per_row());
                    match written {
                        true => Operand::BitsMut(BitMatMut { words: words.take().unwrap_or_default(), rows, cols, ld }),
                        false => Operand::Bits(BitMat { words: mask.words(), rows, cols, ld }),
                    }
                }
                _ => Operand::Absent,
            };
        }
        let start = Instant::now();
        variant.stage().run(&mut Call { shared: &mut self.shared, ..Call::new(&dims, pool, args) });
        start.elapsed().as_secs_f64() * 1e3
    }
}

fn topk(o: usize, i: usize, keep: f64, candidates: Option<BitMask>, score: Vec<f32>) -> Timed {
    let count = candidates.as_ref().map_or(o * i, BitMask::count);
    let k = Array::U32(1, 1, vec![(keep * count as f64).round() as u32]);
    let candidates = candidates.map_or(Array::Absent, Array::Bits);
    let args = vec![Array::F32(o, i, score), candidates, Array::Absent, k, Array::output(DType::Bits, o, i)];
    Timed::new("topk", args, &[0])
}

fn adamw(o: usize, i: usize, trainable: Option<BitMask>) -> Timed {
    let step = Array::F32(1, 4, vec![1e-3, 0.1, 0.001, 0.0]);
    let [g, p, m] = [(); 3].map(|_| Array::F32(o, i, normals(o * i)));
    let v = Array::F32(o, i, vec![1.0; o * i]);
    let args = vec![g, trainable.map_or(Array::Absent, Array::Bits), step, Array::Absent, p, m, v];
    Timed::new("adamw", args, &[0.9f32, 0.999, 1e-8, 1e-4, 1.0].map(f32::to_bits))
}

/// One line: fastest and median milliseconds of every variant over the calls together, and nanoseconds per entry.
fn report(label: &str, mut calls: Vec<Timed>, repeat: usize) {
    let entries: usize = calls.iter().map(|c| c.trial.args[0].f32().len()).sum();
    let (isa, pool) = (Isa::detect(), Pool::serial());
    for variant in calls[0].trial.op.cpu.iter().filter(|v| isa.has(v.needs)) {
        let mut ms: Vec<f64> =
            (0..repeat).map(|_| calls.iter_mut().map(|c| c.run(variant, &pool)).sum::<f64>()).collect();
        ms.sort_by(f64::total_cmp);
        let (best, median) = (ms[0], ms[ms.len() / 2]);
        let each = best * 1e6 / entries as f64;
        println!("{label:38} {:15} best {best:9.4} ms  median {median:9.4} ms  {each:7.3} ns/entry", variant.name);
    }
}

fn main() {
    for (name, calls) in [
        (
            "topk",
            vec![
                topk(64, 577, 0.1, Some(bits(64, 577, 50)), normals(64 * 577)),
                topk(1, 9999, 0.5, None, normals(9999)),
            ],
        ),
        ("adamw", vec![adamw(64, 577, Some(bits(64, 577, 92))), adamw(1, 9999, None)]),
        (
            "sumsq",
            vec![Timed::new(
                "sumsq",
                vec![Array::F32(3, 9999, normals(29997)), Array::Absent, Array::output(DType::F32, 1, 1)],
                &[],
            )],
        ),
    ] {
        for call in calls {
            call.trial.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        println!("{name}: every variant equals the f64 reference");
    }
    for n in [100_000, 1_000_000, 10_000_000] {
        for keep in [0.5, 0.1] {
            report(&format!("topk {n} keep {keep}"), vec![topk(1, n, keep, None, normals(n))], 30_000_000 / n);
        }
    }
    let n = 1_000_000;
    report(
        "topk 1000 x 1000 half occupied keep 0.5",
        vec![topk(1000, 1000, 0.5, Some(bits(1000, 1000, 50)), normals(n))],
        30,
    );
    report("topk 1000000 keep 0.5 all equal", vec![topk(1, n, 0.5, None, vec![0.1; n])], 30);
    let warm = normals(n).iter().enumerate().map(|(at, x)| if at % 12 == 0 { 0.1 } else { x * 0.02 }).collect();
    report("topk 1000000 keep 0.08 warm start", vec![topk(1, n, 0.08, None, warm)], 30);
    let model = |make: &dyn Fn(usize, usize) -> Timed| {
        MODEL.iter().flat_map(|(o, i, times)| (0..*times).map(|_| make(*o, *i)).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    report("topk all tensors of the model keep 0.08", model(&|o, i| topk(o, i, 0.08, None, normals(o * i))), 30);
    report("topk 1 x 18", vec![topk(1, 18, 0.5, None, normals(18))], 1000);
    report("topk 18 x 128", vec![topk(18, 128, 0.08, None, normals(18 * 128))], 1000);
    report("adamw 1000 x 1000", vec![adamw(1000, 1000, None)], 30);
    report("adamw 1000 x 1024 92 % trainable", vec![adamw(1000, 1024, Some(bits(1000, 1024, 92)))], 30);
    report("adamw 64 x 512 in cache", vec![adamw(64, 512, None)], 300);
    report("adamw 64 x 512 in cache 92 % trainable", vec![adamw(64, 512, Some(bits(64, 512, 92)))], 300);
    let sumsq = |o: usize, i: usize, open: Array| {
        Timed::new("sumsq", vec![Array::F32(o, i, normals(o * i)), open, Array::output(DType::F32, 1, 1)], &[])
    };
    report("sumsq 1000 x 1000", vec![sumsq(1000, 1000, Array::Absent)], 30);
    report("sumsq 1000 x 1024 92 % trainable", vec![sumsq(1000, 1024, Array::Bits(bits(1000, 1024, 92)))], 30);
}
