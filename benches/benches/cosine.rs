//! Cosines of observations with the prototypes of many tasks, 16 each, and the best three.

mod common;

use tsn_benches::kernels::ops::cosine::{COSINE, COSINE_TOPK};
use tsn_benches::kernels::{Array, DType, Trial};
use tsn_benches::{output, trial, values};

const WIDTH: usize = 128;
const BEST: usize = 3;

fn main() {
    let mut c = common::criterion();
    for n in [1, 64, 1280] {
        for tasks in [10, 64] {
            let m = 16 * tasks;
            let shape = format!("n{n}_m{m}_d{WIDTH}");
            for make in [all, best] {
                common::op(&mut c, &shape, 1.0, 0, &|| make(n.min(65), m), &|| make(n, m));
            }
        }
    }
    c.final_summary();
}

fn all(n: usize, m: usize) -> Trial {
    trial(&COSINE, vec![values(1, n, WIDTH), values(2, m, WIDTH), output(n, m)], &[])
}

fn best(n: usize, m: usize) -> Trial {
    let index = Array::output(DType::U32, n, BEST);
    trial(&COSINE_TOPK, vec![values(1, n, WIDTH), values(2, m, WIDTH), output(n, BEST), index], &[])
}
