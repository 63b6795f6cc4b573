//! What only a GPU can say: every PTX loads, and kernels give the emulator's bits. Without one only its absence is tested, which
//! `REQUIRE=cuda` makes a failure. `cargo xtask gpu-bundle` carries this program to a machine that has one.

use engine::{CudaDevice, Device, Error};
use kernels::contract::cuda::manifest::modules;
use kernels::trial::same_bits;
use kernels::{Contract, OPS, Trial};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;
use tsn_emulator::{Emulator, Order};
use tsn_tests::cases::{Case, free};
use tsn_tests::on_device::{self, Layout};
use tsn_tests::training::{Training, models};

fn gpu() -> Option<CudaDevice> {
    match CudaDevice::open("") {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(required.split(',').all(|name| name.trim() != "cuda"), "REQUIRE names cuda: {error}");
            None
        }
    }
}

#[test]
fn absent_gpus_are_errors_with_advice() {
    match CudaDevice::list() {
        Err(error) => {
            assert!(matches!(error, Error::NoDriver { .. } | Error::OldDriver { .. }), "{error}");
            assert!(error.to_string().contains("driver"), "{error}");
            assert_eq!(Device::open("cuda").map(|_| ()), Err(error.clone()));
            assert_eq!(Device::find("cuda:1"), Err(error));
        }
        Ok(all) => {
            let beyond = format!("cuda:{}", all.len());
            assert!(matches!(Device::open(&beyond), Err(Error::NoGpu { .. })));
        }
    }
}

/// `JSON=file` gets the times; a driver keeps what it has compiled, so a second run shows the times from its cache.
#[test]
fn every_module_loads() {
    let Some(gpu) = gpu() else { return };
    let mut rows = Vec::new();
    for module in modules().iter().filter(|module| module.target.runs_on(gpu.info().capability)) {
        let entry = module.ptx.split_once(".entry ").expect("a kernel").1;
        let entry = entry.split('(').next().expect("a name");
        let begin = Instant::now();
        if let Err(error) = gpu.launcher().function(module, entry, 0) {
            panic!("{}: {error}", module.name);
        }
        rows.push((module.name, begin.elapsed().as_secs_f64() * 1e3));
    }
    let mut json = String::from("[");
    for (name, ms) in &rows {
        eprintln!("{name:<24} {ms:>8.1} ms");
        write!(json, "{}{{\"module\": \"{name}\", \"ms\": {ms:.3}}}", if json.len() > 1 { ", " } else { "" })
            .expect("a string grows");
    }
    if let Some(file) = std::env::var_os("JSON") {
        std::fs::write(file, json + "]\n").expect("a file");
    }
}

/// Tensor cores sum in an order of their own; everything else is written down.
#[test]
fn a_gpu_gives_the_bits_of_the_emulator() {
    let Some(gpu) = gpu() else { return };
    let emulator = CudaDevice::over(Arc::new(Emulator::new(Order::Ascending)));
    let mut differing = Vec::new();
    for op in OPS {
        for (sizes, seed) in [(33, 0), (33, 1), (65, 2), (65, 3)] {
            let Some(trial) = trial(op, sizes, seed) else { continue };
            let capability = gpu.info().capability;
            for variant in op.cuda_for(&trial.dims, trial.dtype(), capability) {
                if variant.name.split('_').any(|word| word.ends_with("mma")) {
                    continue;
                }
                let [got, expected] = [&gpu, &emulator].map(|device| {
                    let device = Device::Cuda(device.clone().with_variant(variant.name));
                    on_device::run(&trial, &device, Layout::Aligned).map_err(|e| format!("{}: {e}", op.name))
                });
                match (got, expected) {
                    (Ok(got), Ok(expected)) if same_bits(&got, &expected) => {}
                    (Err(error), _) | (_, Err(error)) => differing.push(error),
                    _ => differing.push(format!("{} {} of {sizes}: other bits", op.name, variant.name)),
                }
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Launches of several calls and stages on rows, which no call alone has.
#[test]
fn a_gpu_trains_with_the_bits_of_one_launch_for_each_call() {
    let Some(gpu) = gpu() else { return };
    for (name, config) in models() {
        let [mut whole, mut apart] = [(); 2].map(|()| Training::new(&config, &Device::Cuda(gpu.clone())));
        for step in 0..3 {
            whole.run(step, step + 1);
            apart.run_apart(step, step + 1);
            assert_eq!(whole.digest(), apart.digest(), "{name}, step {step}");
        }
    }
}

fn trial(op: &'static Contract, size: u32, seed: u64) -> Option<Trial> {
    let letters = free(op).len();
    let sizes = vec![if letters > 3 { size.min(7) } else { size }; letters];
    Case { sizes, present: u32::MAX, seed }.trial(op).expect("a valid case")
}
