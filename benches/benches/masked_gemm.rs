//! Products with a bit-masked weight at the sizes of the model, score gradients included.

mod common;

use tsn_benches::kernels::ops::masked_gemm::{MASKED_GEMM, MASKED_GEMM_DW, MASKED_GEMM_DX};
use tsn_benches::kernels::{Array, Trial};
use tsn_benches::{DENSITIES, ROWS, WEIGHTS, bits, output, trial, values};

/// Rows, outputs, inputs, density.
type Make = fn(usize, usize, usize, f64) -> Trial;

fn main() {
    let mut c = common::criterion();
    for r in ROWS {
        for (o, i) in WEIGHTS {
            for density in DENSITIES {
                let shape = format!("r{r}_o{o}_i{i}");
                // Score gradients are those of every weight, kept or not.
                let all = 2 * (r * o * i) as u64;
                for (make, least) in [(forward as Make, 0), (dx, 0), (dw, all)] {
                    common::op(&mut c, &shape, density, least, &|| make(61, o, i, density), &|| make(r, o, i, density));
                }
            }
        }
    }
    c.final_summary();
}

fn forward(r: usize, o: usize, i: usize, density: f64) -> Trial {
    let args =
        vec![values(1, r, i), values(2, o, i), bits(3, o, i, density), Array::Absent, Array::Absent, output(r, o)];
    trial(&MASKED_GEMM, args, &[])
}

fn dx(r: usize, o: usize, i: usize, density: f64) -> Trial {
    trial(&MASKED_GEMM_DX, vec![values(1, r, o), values(2, o, i), bits(3, o, i, density), output(r, i)], &[])
}

fn dw(r: usize, o: usize, i: usize, density: f64) -> Trial {
    let weight = [values(3, o, i), bits(4, o, i, density), values(5, o, i), Array::Absent];
    let args = [vec![values(1, r, o), values(2, r, i)], weight.to_vec(), vec![output(o, i), output(o, i)]];
    trial(&MASKED_GEMM_DW, args.concat(), &[])
}
