//! Dense products at the sizes of the model.

mod common;

use tsn_benches::kernels::ops::gemm::{GEMM, GEMM_DW, GEMM_DX};
use tsn_benches::kernels::{Array, Trial};
use tsn_benches::{ROWS, WEIGHTS, output, trial, values};

fn main() {
    let mut c = common::criterion();
    for r in ROWS {
        for (o, i) in WEIGHTS {
            let shape = format!("r{r}_o{o}_i{i}");
            for make in [forward, dx, dw] {
                common::op(&mut c, &shape, 1.0, 0, &|| make(61, o, i), &|| make(r, o, i));
            }
        }
    }
    c.final_summary();
}

fn forward(r: usize, o: usize, i: usize) -> Trial {
    trial(&GEMM, vec![values(1, r, i), values(2, o, i), Array::Absent, output(r, o)], &[])
}

fn dx(r: usize, o: usize, i: usize) -> Trial {
    trial(&GEMM_DX, vec![values(1, r, o), values(2, o, i), output(r, i)], &[])
}

fn dw(r: usize, o: usize, i: usize) -> Trial {
    trial(&GEMM_DW, vec![values(1, r, o), values(2, r, i), output(o, i)], &[])
}
