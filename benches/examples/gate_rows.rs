//! One short round of a few kernels, for `cargo xtask gate --self-test`.
//!
//! Prints rows of the JSON format. `--planted ID` gives that row a tenth more to do under the same id: 704 rows instead
//! of 640. Other arguments are the ids to run; none means all.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::time::Duration;
use tsn_benches::kernels::ops::{cosine::COSINE, gemm::GEMM, masked_gemm::MASKED_GEMM, topk::TOPK};
use tsn_benches::kernels::{Array, DType, Isa, Trial};
use tsn_benches::measure::{Effort, interleaved};
use tsn_benches::{Work, bits, output, trial, values};

const ROWS: usize = 640;
const PLANTED: usize = 704;
const EFFORT: Effort = Effort { sample: Duration::from_micros(250), samples: 24 };

/// Id, and the call with a number of rows.
type Case = (&'static str, fn(usize) -> Trial);

const CASES: [Case; 4] = [
    ("gemm/cpu_f32_best/r640_o128_i128_d100", gemm),
    ("masked_gemm/cpu_f32_best/r640_o128_i128_d50", masked_gemm),
    ("topk/cpu_f32_best/o640_i128_d50", topk),
    ("cosine/cpu_f32_best/n640_m160_d100", cosine),
];

fn main() -> ExitCode {
    let (mut planted, mut only) = (None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--planted" => planted = args.next(),
            _ => only.push(arg),
        }
    }
    let known = |id: &String| CASES.iter().any(|(case, _)| case == id);
    if let Some(id) = planted.iter().chain(&only).find(|id| !known(id)) {
        eprintln!("gate_rows: unknown id {id}");
        return ExitCode::from(2);
    }
    for (id, make) in CASES.iter().filter(|(id, _)| only.is_empty() || only.iter().any(|o| o == id)) {
        let rows = if planted.as_deref() == Some(id) { PLANTED } else { ROWS };
        let trial = make(rows);
        let mut work = Work::new(trial.clone(), trial.op.best(Isa::detect()));
        let samples = interleaved(&mut [&mut || work.run()], EFFORT);
        println!("{}", samples[0].row(id, work.flops(), work.bytes()));
    }
    ExitCode::SUCCESS
}

fn gemm(r: usize) -> Trial {
    trial(&GEMM, vec![values(1, r, 128), values(2, 128, 128), Array::Absent, output(r, 128)], &[])
}

fn masked_gemm(r: usize) -> Trial {
    let weight = [values(2, 128, 128), bits(3, 128, 128, 0.5), Array::Absent, Array::Absent];
    trial(&MASKED_GEMM, [vec![values(1, r, 128)], weight.to_vec(), vec![output(r, 128)]].concat(), &[])
}

fn topk(o: usize) -> Trial {
    let k = Array::U32(1, 1, vec![(o * 128 / 2) as u32]);
    let mask = Array::output(DType::Bits, o, 128);
    trial(&TOPK, vec![values(1, o, 128), Array::Absent, Array::Absent, k, mask], &[0])
}

fn cosine(n: usize) -> Trial {
    trial(&COSINE, vec![values(1, n, 128), values(2, 160, 128), output(n, 160)], &[])
}
