//! Training steps: forward, backward, clip, AdamW, and top-k where masks are learned.

mod common;

use criterion::BenchmarkId;
use tsn_benches::{Model, Step, density_label};

const BATCH: u32 = 64;

fn main() {
    let mut c = common::criterion();
    for (model, name, densities) in
        [(Model::CartPole, "cartpole", &[1.0, 0.5, 0.1][..]), (Model::Atari, "atari", &[0.5])]
    {
        for density in densities {
            let step = Step::training(model, BATCH, *density).expect("a step of the standard model");
            for (workers, suffix) in [(1, ""), (2, "_w2")] {
                let shape = format!("{name}_b{BATCH}_{}{suffix}", density_label(*density));
                common::step(&mut c, BenchmarkId::new("cpu_f32_train", shape), "step", &step, workers);
            }
        }
    }
    c.final_summary();
}
