//! Rates of the convolution passes on one thread, for the three layers of the image encoder.
//!
//! `cargo run --release -p tsn-kernels --example conv_rate [images] [rounds] [variant]`
//!
//! Every pass is first held against the f64 reference on four images. Times are medians and minima; GFLOP/s count the contract's
//! operations, two per product.
#![expect(clippy::print_stdout, reason = "a program that reports")]

use std::time::Instant;
use tsn_kernels::contract::MAX_ARGS;
use tsn_kernels::ops::conv::{CONV, CONV_DW, CONV_DX};
use tsn_kernels::philox::{Rng, Stream};
use tsn_kernels::{Array, BitMask, Call, Contract, DType, Isa, Mat, MatMut, Operand, Pool, Trial};

/// Name, outputs, scalars, positions of one output, bytes or floats.
const LAYERS: [(&str, usize, [u32; 6], usize, bool); 3] = [
    ("conv1", 32, [4, 84, 84, 8, 8, 4], 400, true),
    ("conv2", 64, [32, 20, 20, 4, 4, 2], 81, false),
    ("conv3", 64, [64, 9, 9, 3, 3, 1], 49, false),
];

fn main() -> Result<(), String> {
    let number = |at: usize, default| std::env::args().nth(at).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (images, rounds) = (number(1, 1280), number(2, 9));
    let wanted = std::env::args().nth(3);
    let isa = Isa::detect();
    println!("{images} images, one thread, {}, median of {rounds}", isa.name());
    let mut total = [0.0; 2];
    for (name, o, scalars, pixels, bytes) in LAYERS {
        for trial in layer(4, o, scalars, pixels, bytes)? {
            trial.verify()?;
        }
        for trial in layer(images, o, scalars, pixels, bytes)? {
            if trial.op.name == "conv_dx" && bytes {
                continue; // the frames need no gradient
            }
            let named = trial.op.cpu.iter().find(|v| Some(v.name) == wanted.as_deref());
            let variant = named.unwrap_or(trial.op.best(isa));
            let (median, best) = time(&trial, variant, rounds);
            total = [total[0] + median, total[1] + best];
            let rate = |seconds| (trial.op.flops)(&trial.dims) as f64 / seconds / 1e9;
            println!(
                "{name} {:<8} {:<14} {:8.2} ms {:6.1} GFLOP/s, best {:8.2} ms {:6.1} GFLOP/s",
                trial.op.name,
                variant.name,
                median * 1e3,
                rate(median),
                best * 1e3,
                rate(best),
            );
        }
    }
    println!("all {:.1} ms, best {:.1} ms", total[0] * 1e3, total[1] * 1e3);
    Ok(())
}

/// The three passes of a layer at keep ratio 0.5.
fn layer(n: usize, o: usize, scalars: [u32; 6], pixels: usize, bytes: bool) -> Result<[Trial; 3], String> {
    let [c, h, w, kh, kw, _] = scalars.map(|v| v as usize);
    let (a, j, e) = (c * h * w, c * kh * kw, o * pixels);
    let mut rng = Rng::new(7, Stream::Data, [0, 0]);
    let mut floats =
        |rows, cols| Array::F32(rows, cols, (0..rows * cols).map(|_| rng.uniform(-1.0, 1.0) as f32).collect());
    let (weights, score, bias, dy) = (floats(o, j), floats(o, j), floats(1, o), floats(n, e));
    let x = match bytes {
        true => {
            let mut rng = Rng::new(8, Stream::Data, [0, 0]);
            Array::U8(n, a, (0..n * a).map(|_| rng.u32() as u8).collect())
        }
        false => floats(n, a),
    };
    let mut rng = Rng::new(9, Stream::Data, [0, 0]);
    let mask = BitMask::from_flags(o as u32, j as u32, (0..o * j).map(|_| rng.u32() & 1 == 1));
    let (mask, all) = (Array::Bits(mask), Array::Bits(BitMask::ones(o as u32, j as u32)));
    let (y, dx) = (Array::output(DType::F32, n, e), Array::output(DType::F32, n, a));
    let (dw, ds) = (Array::output(DType::F32, o, j), Array::output(DType::F32, o, j));
    let new = |op: &'static Contract, args| Trial::new(op, args, &scalars).map_err(|e| format!("{e:?}"));
    Ok([
        new(&CONV, vec![x.clone(), weights.clone(), mask.clone(), bias, Array::Absent, y])?,
        new(&CONV_DX, vec![dy.clone(), weights.clone(), mask.clone(), dx])?,
        new(&CONV_DW, vec![dy, x, weights, mask, score, all, dw, ds])?,
    ])
}

/// Median and least seconds of a call, arguments and workspace made before.
fn time(trial: &Trial, variant: &tsn_kernels::Variant, rounds: usize) -> (f64, f64) {
    let pool = Pool::serial();
    let need = (variant.scratch)(&trial.dims);
    let (mut shared, mut workers) = (vec![0.0; need.shared], vec![0.0; need.worker]);
    let mut args = trial.args.clone();
    let mut times: Vec<f64> = (0..rounds + 1)
        .map(|_| {
            let mut operands: [Operand<'_>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
            for ((operand, array), arg) in operands.iter_mut().zip(&mut args).zip(trial.op.args) {
                *operand = view(array, arg.access == tsn_kernels::Access::Read);
            }
            let (shared, workers) = (&mut shared[..], &mut workers[..]);
            let mut call = Call { shared, workers, ..Call::new(&trial.dims, &pool, operands) };
            let start = Instant::now();
            variant.stage().run(&mut call);
            start.elapsed().as_secs_f64()
        })
        .skip(1) // the first touches fresh memory
        .collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

fn view(array: &mut Array, read: bool) -> Operand<'_> {
    match array {
        Array::F32(r, c, v) => match read {
            true => Operand::F32(Mat::dense(v, *r, *c)),
            false => Operand::F32Mut(MatMut::dense(v, *r, *c)),
        },
        Array::U8(r, c, v) => Operand::U8(Mat::dense(v, *r, *c)),
        Array::Bits(m) => Operand::Bits(tsn_kernels::BitMat {
            words: m.words(),
            rows: m.rows() as usize,
            cols: m.cols() as usize,
            ld: m.words_per_row(),
        }),
        _ => Operand::Absent,
    }
}
