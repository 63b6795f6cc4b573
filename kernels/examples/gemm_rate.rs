//! Rates of the matrix products: GFLOP/s of every op, shape and variant, and their share of the multiply-add peak.
//!
//! `cargo run --release -p tsn-kernels --example gemm_rate -- [workers] [op] [variant] [keep]`; op and variant select by
//! the end of their name. Every op and shape is first held against f64 with few rows.
#![expect(unsafe_code, reason = "calls a function compiled for an instruction set")]
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::time::Instant;
use tsn_kernels::contract::{Contract, Stage, Variant};
use tsn_kernels::operand::{Call, Mat, MatMut, Operand};
use tsn_kernels::{Access, Array, BitMask, DType, Isa, Pool, Trial, ops};

/// Rows.
const ROWS: &[usize] = &[1, 3, 20, 60, 1280, 3840];
/// Output and input features.
const WEIGHTS: &[(usize, usize)] = &[(128, 128), (384, 128), (512, 128), (128, 512), (128, 3136), (1024, 1024)];
/// Thin ones of embeddings and heads.
const THIN: &[(usize, usize)] = &[(128, 1), (128, 4), (128, 26), (2, 128), (18, 128)];
const OPS: &[&str] = &["gemm", "masked_gemm", "gemm_dx", "masked_gemm_dx", "gemm_dw", "masked_gemm_dw"];

fn main() {
    let mut words = std::env::args().skip(1);
    let workers = words.next().and_then(|w| w.parse().ok()).unwrap_or(1);
    let (op, variant) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let keep = words.next().and_then(|w| w.parse().ok()).unwrap_or(0.5);
    let pool = Pool::new(workers);
    let peak = peak();
    println!("one core: {peak:.0} GFLOP/s of multiply-adds; {} workers", pool.workers());
    let shapes = ROWS.iter().copied().flat_map(|r| WEIGHTS.iter().map(move |&(o, i)| (r, o, i)));
    let thin = [1280, 3840].into_iter().flat_map(|r| THIN.iter().map(move |&(o, i)| (r, o, i)));
    for (r, o, i) in shapes.chain(thin) {
        for name in OPS.iter().filter(|n| op.is_empty() || n.trim_start_matches("masked_") == op || **n == op) {
            let contract = ops::find(name).expect("in the list");
            trial(contract, r.min(61), o, i, keep).verify().expect("agrees with f64");
            rate(trial(contract, r, o, i, keep), &pool, peak, &variant);
            if contract.args[0].dtypes.contains(&DType::Bf16) {
                rounded(trial(contract, r.min(61), o, i, keep)).verify().expect("agrees with f64");
                rate(rounded(trial(contract, r, o, i, keep)), &pool, peak, &variant);
            }
        }
    }
    for (r, e) in [(3840, 128), (3840, 512)].into_iter().filter(|_| op.is_empty() || op == "bias_dw") {
        let args = vec![values(0, r, e), Array::output(DType::F32, 1, e)];
        let t = Trial::new(ops::find("bias_dw").expect("in the list"), args, &[1]).expect("shapes agree");
        t.verify().expect("agrees with f64");
        rate(t, &pool, peak, &variant);
    }
    for (r, keep) in [(1, 0.5), (1, 0.1), (60, 0.5), (60, 0.1)].into_iter().filter(|_| op.is_empty() || op == "packed")
    {
        let t = packed(r, 512, 128, keep);
        t.verify().expect("agrees with f64");
        rate(t, &pool, peak, &variant);
    }
}

/// The same call on bf16.
fn rounded(t: Trial) -> Trial {
    let args = t.args.into_iter().zip(t.op.args);
    let args = args.map(|(a, arg)| if arg.dtypes.contains(&DType::Bf16) { a.rounded() } else { a }).collect();
    Trial::new(t.op, args, &[]).expect("shapes agree")
}

/// Times all variants of a call.
fn rate(mut t: Trial, pool: &Pool, peak: f64, wanted: &str) {
    let flops = (t.op.flops)(&t.dims) as f64;
    for variant in t.variants().filter(|v| v.name.ends_with(wanted)) {
        if wanted.is_empty() && variant.name.starts_with("plain") {
            continue;
        }
        let seconds = time(&mut t, variant, pool);
        let size = |c| t.dims.get(c).unwrap_or(0);
        println!(
            "{:16} {:13} r {:5} o {:4} i {:4}  {:9.2} us {:7.1} GFLOP/s {:5.1} %",
            t.op.name,
            variant.name,
            size('r'),
            size('o'),
            size('i'),
            seconds * 1e6,
            flops / seconds / 1e9,
            flops / seconds / 1e7 / peak / pool.workers() as f64,
        );
    }
}

/// Least seconds of one call over many short batches; panels are packed before.
fn time(t: &mut Trial, variant: &Variant, pool: &Pool) -> f64 {
    let need = (variant.scratch)(&t.dims);
    let (mut shared, mut own) = (vec![0.0; need.shared], vec![0.0; need.of_workers(pool.workers())]);
    let mut prepared = vec![0.0; variant.prepared_len(&t.dims)];
    let mut stage = |stage: Stage| {
        let mut args = std::array::from_fn(|_| Operand::Absent);
        for ((operand, array), arg) in args.iter_mut().zip(&mut t.args).zip(t.op.args) {
            *operand = match array {
                Array::F32(r, c, v) => match arg.access {
                    Access::Read => Operand::F32(Mat::dense(v, *r, *c)),
                    _ => Operand::F32Mut(MatMut::dense(v, *r, *c)),
                },
                Array::F16(r, c, v) => Operand::F16(Mat::dense(v, *r, *c)),
                Array::Bf16(r, c, v) => Operand::Bf16(Mat::dense(v, *r, *c)),
                Array::U16(r, c, v) => Operand::U16(Mat::dense(v, *r, *c)),
                Array::U32(r, c, v) => Operand::U32(Mat::dense(v, *r, *c)),
                Array::Bits(m) => Operand::Bits(tsn_kernels::BitMat {
                    words: m.words(),
                    rows: m.rows() as usize,
                    cols: m.cols() as usize,
                    ld: m.words_per_row(),
                }),
                _ => Operand::Absent,
            };
        }
        let (shared, workers, prepared) = (&mut shared[..], &mut own[..], &mut prepared[..]);
        stage.run(&mut Call { shared, prepared, workers, ..Call::new(&t.dims, pool, args) });
    };
    if let Some(first) = variant.first_stage() {
        stage(first);
    }
    let start = Instant::now();
    stage(variant.stage());
    // Short batches: on a shared machine the least of many is the one nobody disturbed.
    let runs = (0.000_3 / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut batches = 0;
    while batches < 5 || (begin.elapsed().as_secs_f64() < 0.2 && batches < 200) {
        let start = Instant::now();
        (0..runs).for_each(|_| stage(variant.stage()));
        best = best.min(start.elapsed().as_secs_f64() / runs as f64);
        batches += 1;
    }
    best
}

/// A call of one of [`OPS`].
fn trial(op: &'static Contract, r: usize, o: usize, i: usize, keep: f64) -> Trial {
    let size = |letter: char| match letter {
        'r' => r,
        'o' => o,
        _ => i,
    };
    let args = op.args.iter().enumerate().map(|(at, arg)| {
        let (rows, cols) = match *arg.dims {
            [n] => (1, size(n)),
            [m, n] => (size(m), size(n)),
            _ => unreachable!("one or two letters"),
        };
        match (arg.access, arg.dtypes[0]) {
            (Access::Write, dtype) => Array::output(dtype, rows, cols),
            (_, DType::Bits) => Array::Bits(bits(rows, cols, keep)),
            _ => values(at as u64, rows, cols),
        }
    });
    Trial::new(op, args.collect(), &[]).expect("shapes agree")
}

fn packed(r: usize, o: usize, i: usize, keep: f64) -> Trial {
    let mask = bits(o, i, keep);
    let (mut start, mut col) = (vec![0u32], Vec::new());
    for row in 0..o {
        col.extend((0..i).filter(|j| mask.get(row, *j)).map(|j| j as u16));
        start.push(col.len() as u32);
    }
    let value = values(1, 1, col.len()).f32().iter().map(|v| half::f16::from_f32(*v)).collect();
    let args = vec![
        values(0, r, i),
        Array::U32(1, o + 1, start),
        Array::U16(1, col.len(), col.clone()),
        Array::F16(1, col.len(), value),
        Array::Absent,
        Array::output(DType::F32, r, o),
    ];
    Trial::new(ops::find("packed_gemm").expect("in the list"), args, &[]).expect("shapes agree")
}

/// Values in 0..1 by a multiplicative hash of the index.
fn unit(seed: u64, n: usize) -> f64 {
    let word = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ seed;
    (word.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as f64 / 2f64.powi(32)
}

fn values(seed: u64, rows: usize, cols: usize) -> Array {
    Array::F32(rows, cols, (0..rows * cols).map(|n| unit(seed, n) as f32 - 0.5).collect())
}

fn bits(rows: usize, cols: usize, keep: f64) -> BitMask {
    BitMask::from_flags(rows as u32, cols as u32, (0..rows * cols).map(|n| unit(99, n) < keep))
}

/// GFLOP/s of independent multiply-adds in registers.
fn peak() -> f64 {
    const RUNS: usize = 200_000;
    let isa = Isa::detect();
    let width = if isa.has(Isa::Avx512) { 16 } else { 8 };
    let best = (0..500).map(|_| {
        let start = Instant::now();
        #[cfg(target_arch = "x86_64")]
        match isa {
            // SAFETY: the instruction set was detected.
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => unsafe { chains_avx512(RUNS) },
            // SAFETY: the instruction set was detected.
            Isa::Avx2 => unsafe { chains_avx2(RUNS) },
            _ => chains::<8>(RUNS),
        }
        #[cfg(not(target_arch = "x86_64"))]
        chains::<8>(RUNS);
        start.elapsed().as_secs_f64()
    });
    let seconds = best.fold(f64::INFINITY, f64::min);
    (RUNS * 10 * width * 2) as f64 / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn chains_avx512(runs: usize) {
    chains::<16>(runs);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2(runs: usize) {
    chains::<8>(runs);
}

/// Ten chains: more than latency times ports of any core this runs on.
#[inline(always)]
fn chains<const W: usize>(runs: usize) {
    let mut acc: [[f32; W]; 10] = std::hint::black_box([[1.0; W]; 10]);
    let (a, b) = std::hint::black_box(([0.5f32; W], [0.5f32; W]));
    for _ in 0..runs {
        for acc in &mut acc {
            for j in 0..W {
                acc[j] = acc[j].mul_add(a[j], b[j]);
            }
        }
    }
    std::hint::black_box(acc);
}
