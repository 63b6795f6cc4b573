//! One decision of one agent at full context, under a mask on dense weights.

mod common;

use criterion::BenchmarkId;
use tsn_benches::{Model, Step, density_label};

fn main() {
    let mut c = common::criterion();
    for (model, name) in [(Model::CartPole, "cartpole"), (Model::Atari, "atari")] {
        for density in [1.0, 0.5, 0.08] {
            let step = Step::decision(model, density).expect("a decision of the standard model");
            let shape = format!("{name}_k20_{}", density_label(density));
            common::step(&mut c, BenchmarkId::new("cpu_f32_decision", shape), "act", &step, 1);
        }
    }
    c.final_summary();
}
