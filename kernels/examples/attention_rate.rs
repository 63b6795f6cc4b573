//! Times of the attention block's ops other than products, one thread, each variant verified first.
//!
//! `cargo run --release -p tsn-kernels --example attention_rate [-- part of an op's name] [part of a variant's name]`
#![expect(clippy::print_stdout, reason = "a measuring program")]

use std::time::Instant;
use tsn_kernels::contract::{ArgShape, Mismatch};
use tsn_kernels::philox::{Rng, Stream};
use tsn_kernels::{Array, Call, Contract, DType, Isa, Mat, MatMut, Operand, Pool, Trial, Variant, ops};

fn floats(rows: usize, cols: usize, place: u32) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect())
}

fn out(rows: usize, cols: usize) -> Array {
    Array::output(DType::F32, rows, cols)
}

/// Operands over the arrays themselves; outputs are what the contract writes.
fn operand(array: &mut Array, written: bool) -> Operand<'_> {
    match array {
        Array::F32(r, c, v) => match written {
            true => Operand::F32Mut(MatMut::dense(v, *r, *c)),
            false => Operand::F32(Mat::dense(v, *r, *c)),
        },
        Array::U32(r, c, v) => Operand::U32(Mat::dense(v, *r, *c)),
        Array::U8(r, c, v) => Operand::U8(Mat::dense(v, *r, *c)),
        _ => Operand::Absent,
    }
}

/// Least time of a call in milliseconds.
fn time(trial: &mut Trial, variant: &Variant, pool: &Pool) -> f64 {
    let scratch = (variant.scratch)(&trial.dims);
    let (mut shared, mut workers) = (vec![0.0; scratch.shared], vec![0.0; scratch.of_workers(pool.workers())]);
    let mut times: Vec<f64> = (0..25)
        .map(|_| {
            let mut args = std::array::from_fn(|_| Operand::Absent);
            for ((to, array), arg) in args.iter_mut().zip(&mut trial.args).zip(trial.op.args) {
                *to = operand(array, arg.access != tsn_kernels::Access::Read);
            }
            let mut call = Call { shared: &mut shared, workers: &mut workers, ..Call::new(&trial.dims, pool, args) };
            let start = Instant::now();
            variant.stage().run(&mut call);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[0]
}

fn report(what: &str, op: &'static str, args: Vec<Array>, scalars: &[u32], verify: bool) -> Result<(), Mismatch> {
    let op: &'static Contract = ops::find(op).expect("the op is in the list");
    let shapes: Vec<Option<ArgShape>> = args.iter().map(Array::shape).collect();
    let mut trial = Trial::new(op, args, scalars)?;
    if verify && let Err(wrong) = trial.verify() {
        println!("{wrong}");
        std::process::exit(1);
    }
    let wanted = |at: usize, name: &str| std::env::args().nth(at).is_none_or(|part| name.contains(&part));
    if !wanted(1, op.name) {
        return Ok(());
    }
    let (flops, bytes) = ((op.flops)(&trial.dims) as f64, op.bytes(&shapes) as f64);
    for variant in op.cpu.iter().filter(|v| Isa::detect().has(v.needs) && wanted(2, v.name)) {
        let ms = time(&mut trial, variant, &Pool::serial());
        let (name, rate) = (format!("{} {}", op.name, variant.name), flops / ms / 1e6);
        println!("{name:27} {what:24} {ms:9.3} ms {rate:8.2} GFLOP/s {:8.2} GB/s", bytes / ms / 1e6);
    }
    Ok(())
}

fn main() -> Result<(), Mismatch> {
    let rng = || Array::U32(1, 4, vec![7, 11, 3, 0]);
    for (b, h, t, d) in [(64, 4, 60, 32), (64, 1, 60, 128), (1, 4, 60, 32), (1, 4, 1024, 64)] {
        for drop in [0.0f32, 0.1] {
            let (r, c, what) = (b * t, h * d, format!("{b},{h},{t},{d} drop {drop}"));
            let scalars = [h as u32, drop.to_bits(), 5];
            let (qkv, valid) = (floats(r, 3 * c, 1), Array::U8(b, t, vec![1; r]));
            let args = vec![qkv.clone(), valid.clone(), rng(), out(r, c), out(r, h)];
            let mut forward = Trial::new(&ops::attention::ATTENTION, args.clone(), &scalars)?;
            // The reference is slow: long sequences are left to the tests.
            report(&what, "attention", args, &scalars, t < 100)?;
            let best = forward.op.best(Isa::detect());
            time(&mut forward, best, &Pool::serial());
            let (stats, y) = (forward.args.pop(), forward.args.pop());
            let (Some(y), Some(stats)) = (y, stats) else { continue };
            let args = vec![qkv, valid, rng(), y, stats, floats(r, c, 2), out(r, 3 * c)];
            report(&what, "attention_dx", args, &scalars, t < 100)?;
        }
    }
    let (r, c) = (3840, 128);
    let what = format!("{r},{c}");
    let (x, w, stats) = (|| floats(r, c, 1), || floats(1, c, 2), || floats(r, 2, 3));
    let eps = 1e-5f32.to_bits();
    report(&what, "layernorm", vec![x(), w(), Array::Absent, out(r, c), out(r, 2)], &[eps], true)?;
    report(&what, "layernorm_dx", vec![x(), x(), w(), stats(), Array::Absent, out(r, c)], &[], true)?;
    report(&what, "layernorm_dx", vec![x(), x(), w(), stats(), x(), out(r, c), out(1, c)], &[], true)?;
    let drop = [0.1f32.to_bits(), 5];
    report(&what, "dropout", vec![x(), x(), rng(), out(r, c)], &drop, true)?;
    report(&what, "dropout_dx", vec![x(), rng(), out(r, c)], &drop, true)?;
    report(&what, "add", vec![x(), x(), out(r, c)], &[], true)?;
    let (wide, what) = (|| floats(r, 4 * c, 1), format!("{r},{}", 4 * c));
    report(&what, "gelu", vec![wide(), out(r, 4 * c)], &[], true)?;
    report(&what, "gelu_dx", vec![wide(), wide(), out(r, 4 * c)], &[], true)
}
