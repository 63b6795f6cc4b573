//! Top-k over the scores of one weight; elements are scores.

mod common;

use tsn_benches::kernels::ops::topk::TOPK;
use tsn_benches::kernels::{Array, DType, Trial};
use tsn_benches::{DENSITIES, bits, trial, values};

fn main() {
    let mut c = common::criterion();
    for (o, i) in [(128, 128), (512, 128), (128, 3136)] {
        for density in DENSITIES {
            for (kind, free) in [("any", 1.0), ("free", 0.7)] {
                let shape = format!("o{o}_i{i}_{kind}");
                let make = || scores(o, i, density, free);
                common::op(&mut c, &shape, density, (o * i) as u64, &make, &make);
            }
        }
    }
    c.final_summary();
}

fn scores(o: usize, i: usize, density: f64, free: f64) -> Trial {
    let candidates = if free < 1.0 { bits(2, o, i, free) } else { Array::Absent };
    let k = Array::U32(1, 1, vec![(density * (o * i) as f64) as u32]);
    let mask = Array::output(DType::Bits, o, i);
    trial(&TOPK, vec![values(1, o, i), candidates, Array::Absent, k, mask], &[0])
}
