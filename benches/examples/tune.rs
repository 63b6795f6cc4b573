//! Finds the densities below which kept-weight lists beat bits applied while packing, for `cargo xtask tune`.
//!
//! Prints one JSON object per entry of the crossover table. The two variants are sampled in turn at the densities of a
//! bisection. With few rows only the product is timed, as when acting under a fixed mask; with many, what is prepared from
//! the weights too, as in a training step, which changes them. The weight gradient at kept entries is for fixed masks.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::Duration;
use tsn_benches::kernels::ops::masked_gemm::{MASKED_GEMM, MASKED_GEMM_DW, MASKED_GEMM_DX};
use tsn_benches::kernels::{Array, Contract, Isa, Trial, Variant};
use tsn_benches::measure::{Effort, fingerprint, interleaved};
use tsn_benches::{Work, bits, output, trial, values};

const EFFORT: Effort = Effort { sample: Duration::from_micros(300), samples: 11 };
/// Bounds of the classes and the sizes that stand for each; of several rows the least density counts.
const ROWS: [(Option<usize>, &[usize]); 4] =
    [(Some(1), &[1]), (Some(16), &[4, 16]), (Some(256), &[60]), (None, &[1280])];
const WIDTHS: [(Option<usize>, usize); 3] = [(Some(128), 128), (Some(512), 512), (None, 1024)];
/// Most rows at which weights stay as they are from call to call.
const ACTING: usize = 256;
/// The other size of the weight.
const ACROSS: usize = 128;
/// Instruction sets, and what the names of their variants with tiles and with kept weights end in.
const SETS: [(Isa, &str, &str); 5] = [
    (Isa::Scalar, "", ""),
    (Isa::Avx2, "_avx2", "_avx2"),
    (Isa::Avx512, "_avx512", "_avx512"),
    (Isa::Amx, "_amx", "_avx512"),
    (Isa::Neon, "_neon", "_neon"),
];
/// Halvings of the range of densities: steps of 0.03.
const HALVINGS: usize = 5;
/// Bisections of a class; the median counts.
const REPEATS: usize = 3;
/// Least and most density that is tried.
const LEAST: f64 = 0.02;
const MOST: f64 = 0.98;

fn main() {
    println!("{}", fingerprint());
    for (op, kept) in [(&MASKED_GEMM, "lists"), (&MASKED_GEMM_DX, "lists"), (&MASKED_GEMM_DW, "sampled")] {
        for (isa, tiles, vectors) in SETS {
            let find = |name: &str, suffix: &str| op.cpu.iter().find(|v| v.name == format!("{name}{suffix}"));
            let (Some(tiles), Some(lists)) = (find("tiles", tiles), find(kept, vectors)) else { continue };
            if !Isa::detect().has(isa) {
                continue;
            }
            for (rows_up_to, rows) in ROWS {
                for (width_up_to, width) in WIDTHS {
                    let once = |r| crossover(|keep| ratio(op, [tiles, lists], r, width, keep));
                    let median = |r| {
                        let mut all: Vec<f64> = (0..REPEATS).map(|_| once(r)).collect();
                        all.sort_by(f64::total_cmp);
                        all[REPEATS / 2]
                    };
                    let keep = rows.iter().map(|r| median(*r)).fold(1.0, f64::min);
                    let bound = |n: Option<usize>| n.map_or("null".to_owned(), |n| n.to_string());
                    println!(
                        r#"{{"schema":1,"reason":"crossover","op":"{}","isa":"{}","rows_up_to":{},"width_up_to":{},"lists_below_keep":{keep:.2}}}"#,
                        op.name,
                        isa.name(),
                        bound(rows_up_to),
                        bound(width_up_to),
                    );
                }
            }
        }
    }
}

/// The density at which `ratio` (lists over tiles, growing) passes 1: 0 if lists never win, 1 if they always do.
fn crossover(mut ratio: impl FnMut(f64) -> f64) -> f64 {
    let (mut low, mut high) = (LEAST, MOST);
    if ratio(low) >= 1.0 {
        return 0.0;
    }
    if ratio(high) < 1.0 {
        return 1.0;
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if ratio(middle) < 1.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Time of the second variant over that of the first.
fn ratio(op: &'static Contract, variants: [&'static Variant; 2], rows: usize, width: usize, keep: f64) -> f64 {
    let mut works = variants.map(|variant| Work::new(call(op, rows, width, keep), variant));
    let [mut first, mut second] = works.each_mut().map(|work| {
        move || {
            if rows > ACTING && op.name != MASKED_GEMM_DW.name {
                work.prepare();
            }
            work.run();
        }
    });
    let all = interleaved(&mut [&mut first, &mut second], EFFORT);
    all[1].quantile(0.2) / all[0].quantile(0.2)
}

/// `width` is the number of summands of one output; of a weight gradient, of inputs.
fn call(op: &'static Contract, rows: usize, width: usize, keep: f64) -> Trial {
    if op.name == MASKED_GEMM.name {
        let weight = [values(2, ACROSS, width), bits(3, ACROSS, width, keep), Array::Absent, Array::Absent];
        return trial(op, [vec![values(1, rows, width)], weight.to_vec(), vec![output(rows, ACROSS)]].concat(), &[]);
    }
    if op.name == MASKED_GEMM_DW.name {
        let mut args = vec![values(1, rows, ACROSS), values(4, rows, width), values(2, ACROSS, width)];
        args.extend([bits(3, ACROSS, width, keep), Array::Absent, Array::Absent, output(ACROSS, width), Array::Absent]);
        return trial(op, args, &[]);
    }
    let weight = [values(2, width, ACROSS), bits(3, width, ACROSS, keep)];
    trial(op, [vec![values(1, rows, width)], weight.to_vec(), vec![output(rows, ACROSS)]].concat(), &[])
}
