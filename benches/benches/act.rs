//! One decision of one agent at full context, under a mask on dense weights.

mod common;

use criterion::BenchmarkId;
use tsn_benches::{Model, Step, density_label};

fn main() {
    let mut c = common::criterion();
    for (model, name) in [(Model::CartPole, "cartpole"), (Model::Panda, "panda"), (Model::Atari, "atari")] {
        for density in [1.0, 0.5, 0.1] {
            let step = Step::decision(model, density).expect("a decision of the standard model");
            for (workers, suffix) in [(1, ""), (2, "_w2")] {
                let shape = format!("{name}_k20_{}{suffix}", density_label(density));
                common::step(&mut c, BenchmarkId::new("cpu_f32_decision", shape), "act", &step, workers);
            }
        }
    }
    c.final_summary();
}
