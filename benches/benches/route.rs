//! What routing one new task costs: the loss under an earlier task's mask, and the decision over many tasks.

mod common;

use criterion::{BenchmarkId, Throughput};
use std::hint::black_box;
use tsn::affinity::{Candidate, Mode, Policy, Target, decide};
use tsn_benches::{Model, Step, density_label};

fn main() {
    let mut c = common::criterion();
    for (batch, density) in [(64, 1.0), (64, 0.08)] {
        let step = Step::loss(Model::CartPole, batch, density).expect("a loss of the standard model");
        let shape = format!("cartpole_b{batch}_{}", density_label(density));
        common::step(&mut c, BenchmarkId::new("cpu_f32_loss", shape), "route", &step, 1);
    }
    let mut group = c.benchmark_group("route");
    for tasks in [10, 64] {
        let candidates: Vec<Candidate> = (0..tasks).map(candidate).collect();
        let target = Target { chance: Some(0.7), width: Some(128) };
        let policy = Policy { mode: Mode::HybridAbs, ..Policy::corrected() };
        let bytes = size_of_val(&candidates[..]) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: tasks as u64, bytes });
        group.bench_function(BenchmarkId::new("cpu_f64_decide", format!("tasks{tasks}_d100")), |b| {
            b.iter(|| decide(&policy, &target, black_box(&candidates)).expect("candidates have every measure"));
        });
    }
    group.finish();
    among_many(&mut c);
    c.final_summary();
}

/// One query among 1 000 tasks of 16 prototypes: exactly, by means, by the graph.
fn among_many(c: &mut criterion::Criterion) {
    use tsn::affinity::graph::Graph;
    use tsn::affinity::index::{Found, RERANK, Search, synthetic, synthetic_queries};
    let index = synthetic(1000, 16, 64, Some(31), 1).expect("tasks");
    let (q, _) = synthetic_queries(&index, 1, 2);
    let mut group = c.benchmark_group("route");
    let mut found = [Found { task: 0, cosine: 0.0 }];
    for (name, search) in [("exact", Search::Exact), ("means", Search::Means { open: RERANK })] {
        let mut searcher = index.searcher(search, 1).expect("a searcher");
        group.bench_function(BenchmarkId::new(format!("cpu_f32_nearest_{name}"), "tasks1000_m16_d64"), |b| {
            b.iter(|| index.find(&mut searcher, black_box(&q), &mut found).expect("a task"));
        });
    }
    let graph = Graph::new(&index).expect("a graph");
    group.bench_function(BenchmarkId::new("cpu_f32_nearest_graph", "tasks1000_m16_d64"), |b| {
        b.iter(|| graph.find(&index, black_box(&q)).expect("a task"));
    });
    group.finish();
}

/// An earlier task that resembles the new one less and less.
fn candidate(task: usize) -> Candidate {
    let far = task as f64 / 10.0;
    let (action, latent) = (Some(0.1 + far), Some(1.0 + 10.0 * far));
    Candidate {
        action,
        own_error: Some(0.1),
        latent,
        cosine: Some(1.0 / (1.0 + far)),
        fits: true,
        ..Candidate::new(task, 0)
    }
}
