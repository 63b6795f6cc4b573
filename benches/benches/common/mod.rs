//! Criterion settings, and how a kernel call and a program become benchmarks.
#![allow(dead_code, reason = "each benchmark is a crate of its own and uses only some of this")]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use std::time::Duration;
use tsn_benches::kernels::Trial;
use tsn_benches::{Step, Work, density_label, variants};

/// Short enough that all kernel benchmarks together take minutes; `-- --test` runs everything once.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(25))
        .measurement_time(Duration::from_millis(100))
        .without_plots()
        .configure_from_args()
}

/// Times every variant of a call. `small` is the same call at a size that the f64 reference does in milliseconds: all
/// variants are held against it first. Elements are flops over kept weights, or `work` for an op without arithmetic.
pub(crate) fn op(
    c: &mut Criterion,
    shape: &str,
    density: f64,
    work: u64,
    small: &dyn Fn() -> Trial,
    full: &dyn Fn() -> Trial,
) {
    let op = small().op;
    let mut group = c.benchmark_group(op.name);
    let mut verified = false;
    for variant in variants(op) {
        let mut call = Work::new(full(), variant);
        let elements = (call.flops() as f64 * density) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: elements.max(work), bytes: call.bytes() });
        let id = BenchmarkId::new(format!("cpu_f32_{}", variant.name), format!("{shape}_{}", density_label(density)));
        group.bench_function(id, |b| {
            // Inside, so that what a filter leaves out costs nothing.
            if !verified {
                small().verify().unwrap_or_else(|error| panic!("{error}"));
                verified = true;
            }
            b.iter(|| call.run());
        });
    }
    #[cfg(feature = "rivals")]
    for name in tsn_benches::rivals::names(op.name) {
        let mut rival = None;
        let id = BenchmarkId::new(format!("rival_f32_{name}"), format!("{shape}_{}", density_label(density)));
        group.bench_function(id, |b| {
            let checked = || tsn_benches::rivals::Rival::checked(name, &full()).unwrap_or_else(|why| panic!("{why}"));
            let rival = rival.get_or_insert_with(checked);
            b.iter(|| rival.run());
        });
    }
    group.finish();
}

/// Times the runs of a step on some workers. It is bound only if the filter asks for it.
pub(crate) fn step(c: &mut Criterion, id: BenchmarkId, name: &str, step: &Step, workers: usize) {
    let mut group = c.benchmark_group(name);
    let (elements, bytes) = step.work();
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::ElementsAndBytes { elements, bytes });
    let mut bound = None;
    group.bench_function(id, |b| {
        let program = bound.get_or_insert_with(|| step.bind(workers).expect("a step of the standard model"));
        b.iter(|| program.run().expect("a step of the standard model"));
    });
    group.finish();
}
