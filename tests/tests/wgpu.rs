//! Programs on a GPU through wgpu: training agrees with the CPU and repeats its bits, calls are timed, a lost device and a
//! missing one are errors.
//!
//! Without an adapter these are reported as not run; `REQUIRE=wgpu` makes that a failure.

use dt::config::{Action, Config, Observation};
use engine::launches::{Adapter, Launches};
use engine::{Builder, DType, Device, Error, Gpu, Life, Program, Slice};
use kernels::{GpuFeature, ops};
use std::time::{Duration, Instant};
use tsn_tests::training::{Training, models, plan};

/// Steps over which a GPU has to stay with the CPU.
const STEPS: u32 = 20;

fn gpu() -> Option<Device> {
    match Device::open("wgpu") {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|name| name.trim() == "wgpu"), "REQUIRE names wgpu: {error}");
            eprintln!("not run: {error}");
            None
        }
    }
}

#[test]
fn training_agrees_with_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (name, config) in models() {
        let [mut ours, mut cpu] = [gpu.clone(), Device::cpu(1)].map(|device| Training::new(&config, &device));
        for step in 0..STEPS {
            ours.run(step, step + 1);
            cpu.run(step, step + 1);
            let (ours, cpu) = (ours.loss(), cpu.loss());
            assert!((ours - cpu).abs() <= 1e-4 * cpu.abs(), "{name}, step {step}: loss {ours}, on the CPU {cpu}");
        }
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    for (name, config) in models() {
        let [first, second] = [(); 2].map(|()| {
            let mut training = Training::new(&config, &gpu);
            training.run(0, 5);
            training.digest()
        });
        assert_eq!(first, second, "{name}");
    }
}

/// Arenas cut into chunks as small as a buffer allows are the same arenas.
#[test]
fn arenas_in_many_chunks_give_the_same_bits() {
    let Some(Device::Wgpu(gpu)) = gpu() else { return };
    const CHUNK: usize = 64 << 10;
    let (_, config) = models()[0];
    let [whole, cut] = [gpu.clone(), gpu.with_chunks(CHUNK)].map(|gpu| {
        let mut training = Training::new(&config, &Device::Wgpu(gpu));
        training.run(0, 5);
        (training.arena_bytes(), training.digest(), training.loss().to_bits())
    });
    assert!(cut.0.iter().all(|bytes| *bytes > 2 * CHUNK), "{:?} bytes are hardly cut", cut.0);
    assert_eq!((cut.1, cut.2), (whole.1, whole.2));
}

/// A step on 64 windows of 20 frames, within what every WebGPU promises: buffers of 256 MiB, bindings of 128 MiB.
#[test]
fn steps_on_images_stay_within_usual_limits() {
    let image = Observation::Image { channels: 4, height: 84, width: 84 };
    let plan = plan(&Config::new(image, Action::Discrete(18)), 64);
    let (chunk_bytes, binding_bytes) = (256 << 20, 128 << 20);
    for (all, variant) in [(true, None), (false, Some("plain"))] {
        let adapter = Adapter { chunk_bytes, binding_bytes, has: &|_| all, slow: &[], variant };
        let launches = Launches::new(&plan, &adapter).unwrap_or_else(|error| panic!("{variant:?}: {error}"));
        assert!(launches.arena_bytes[1] > chunk_bytes, "{:?} bytes are nothing to cut", launches.arena_bytes);
    }
}

/// What an adapter cannot hold is named before anything is allocated.
#[test]
fn what_is_larger_than_the_adapter_allows_is_named() {
    let Some(Device::Wgpu(gpu)) = gpu() else { return };
    let [buffer, binding] = gpu.info().largest_bytes;
    let device = Device::Wgpu(gpu);
    for (bytes, limit, what) in
        [(buffer, buffer / 256 * 256, "bytes of buffer \"x\""), (binding, binding, "bytes of a \"x\" of add")]
    {
        // Some drivers promise more than a plan can ask for.
        let Ok(rows) = u32::try_from(bytes / 4096 + 1) else { continue };
        let mut plan = Builder::new();
        let [x, y] = [("x", Life::State), ("y", Life::Output)]
            .map(|(name, life)| plan.buffer(name, DType::F32, rows, 1024, life));
        let [x, y] = [x, y].map(|buffer| plan.whole(buffer));
        plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
        let error = plan.finish().expect("names differ").bind(&device).map(|_| ()).expect_err("too large");
        let found = u64::from(rows) * 4096;
        assert_eq!(error, Error::Limit { what: what.to_owned(), found, limit });
    }
    sum(&device).run().expect("the device goes on");
}

fn sum(device: &Device) -> Program {
    let mut plan = Builder::new();
    let [x, y] =
        [("x", Life::State), ("y", Life::Output)].map(|(name, life)| plan.buffer(name, DType::F32, 3, 5, life));
    let [x, y] = [x, y].map(|buffer| plan.whole(buffer));
    plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
    plan.finish().expect("names differ").bind(device).expect("a small plan")
}

#[test]
fn a_program_is_checked_and_timed_call_by_call() {
    let Some(gpu) = gpu() else { return };
    let mut program = sum(&gpu);
    program.write("x", &[1.5f32; 15]).expect("15 elements");
    program.check().expect("agrees with f64");
    assert_eq!(program.read_vec::<f32>("y").expect("an output"), [3.0; 15]);
    let profile = program.profile(3).expect("a profile");
    let add = &profile.ops[0];
    assert_eq!((add.op, add.variant, add.calls, add.flops), ("add", "plain", 1, 15));
    assert!(add.us > 0.0 && add.us.is_finite() && profile.step_us > 0.0, "{profile}");
}

/// A driver in software is slow at subgroups: they run there when they are wanted, and by default only on GPUs.
#[test]
fn subgroups_are_the_default_on_hardware_alone() {
    let Some(Device::Wgpu(gpu)) = gpu() else { return };
    let mut plan = Builder::new();
    let mut add = |name, rows, cols, life| {
        let buffer = plan.buffer(name, DType::F32, rows, cols, life);
        Some(plan.whole(buffer))
    };
    let args = [add("x", 1, 5, Life::State), add("w", 3, 5, Life::State), None, add("y", 1, 3, Life::Output)];
    plan.call(&ops::gemm::GEMM, &args, &[]).expect("shapes agree");
    let plan = plan.finish().expect("names differ");
    let ran = |gpu| {
        let mut program = plan.bind(&Device::Wgpu(gpu)).expect("a small plan");
        program.write("x", &[1.0f32; 5]).expect("5 elements");
        program.write("w", &[1.0f32; 15]).expect("15 elements");
        program.check().expect("agrees with f64");
        program.profile(1).expect("a profile").ops[0].variant
    };
    let has = gpu.has(GpuFeature::Subgroups);
    let default = if has && gpu.info().kind != "Cpu" { "subgroups" } else { "plain" };
    assert_eq!(ran(gpu.clone()), default);
    assert_eq!(ran(gpu.with_variant("subgroups")), if has { "subgroups" } else { "plain" });
}

/// Slices that overlap, that share 256 bytes, or that are one, in calls that read and write one buffer.
#[test]
fn arguments_that_overlap_share_a_binding() {
    let Some(gpu) = gpu() else { return };
    let mut plan = Builder::new();
    let x = plan.buffer("x", DType::F32, 6, 5, Life::State);
    let slice = |at, rows| Slice { buffer: x, at, rows, cols: 5, ld: 5 };
    let y = plan.buffer("y", DType::F32, 3, 5, Life::Output);
    let (y, rows) = (plan.whole(y), |at: u32| Some(slice(5 * at, 3)));
    // y = x[0..3] + x[2..5]; then x[0..3] = y + y; then x[3..6] = x[0..3] + x[0..3]: written beside what is read.
    plan.call(&ops::pointwise::ADD, &[rows(0), rows(2), Some(y)], &[]).expect("shapes agree");
    plan.call(&ops::pointwise::ADD, &[Some(y), Some(y), rows(0)], &[]).expect("shapes agree");
    plan.call(&ops::pointwise::ADD, &[rows(0), rows(0), rows(3)], &[]).expect("shapes agree");
    let mut program = plan.finish().expect("names differ").bind(&gpu).expect("a small plan");
    let x: Vec<f32> = (0..30u8).map(f32::from).collect();
    program.write("x", &x).expect("30 elements");
    program.check().expect("agrees with f64");
    let y: Vec<f32> = (0..15).map(|at| x[at] + x[at + 10]).collect();
    assert_eq!(program.read_vec::<f32>("y").expect("an output"), y);
    let twice = y.iter().map(|v| 2.0 * v).chain(y.iter().map(|v| 4.0 * v)).collect::<Vec<f32>>();
    assert_eq!(program.read_vec::<f32>("x").expect("a state"), twice);
}

#[test]
fn a_lost_device_keeps_its_first_cause() {
    let Some(Device::Wgpu(gpu)) = gpu() else { return };
    let mut program = sum(&Device::Wgpu(gpu.clone()));
    program.run().expect("not lost yet");
    gpu.lose();
    let begin = Instant::now();
    let first = program.run().and_then(|()| program.wait()).expect_err("a device that is gone");
    assert!(matches!(&first, Error::Lost { device, .. } if *device == gpu.info().name), "{first:?}");
    assert_eq!(program.write("x", &[0.0f32; 15]), Err(first.clone()));
    assert_eq!(program.read_vec::<f32>("y"), Err(first.clone()));
    assert_eq!(program.plan().bind(&Device::Wgpu(gpu)).map(|_| ()), Err(first));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // Another device is not touched by it.
    let again = Device::open("wgpu").expect("opened before");
    sum(&again).run().expect("a device of its own");
}

#[test]
fn adapters_are_told_and_others_refused() {
    for (name, found) in [("wgpu:999", "wgpu:999"), ("wgpu:no such adapter", "no such adapter")] {
        let error = Device::open(name).expect_err("no such adapter").to_string();
        assert!(error.contains(found), "{error}");
    }
    for adapter in Gpu::list() {
        assert!(!adapter.name.is_empty() && adapter.largest_bytes[0] > 0, "{adapter:?}");
        let device = Device::open(&format!("wgpu:{}", adapter.index)).expect("it was listed");
        assert!(device.describe().contains(&adapter.name), "{}", device.describe());
    }
}

/// Nothing may be bound behind the end of an arena, and a name may be a number.
#[test]
fn empty_states_at_the_end_are_no_bounds_to_cross() {
    let Some(gpu) = gpu() else { return };
    let mut plan = Builder::new();
    let mut add = |name, rows, life| {
        let buffer = plan.buffer(name, DType::F32, rows, 64, life);
        plan.whole(buffer)
    };
    let (x, y) = (add("x", 1, Life::State), add("y", 1, Life::Output));
    let (none, nothing) = (add("none", 0, Life::State), add("nothing", 0, Life::Output));
    plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
    plan.call(&ops::pointwise::ADD, &[Some(none), Some(none), Some(nothing)], &[]).expect("shapes agree");
    let mut program = plan.finish().expect("names differ").bind(&gpu).expect("binds");
    program.write::<f32>("none", &[]).expect("0 elements");
    program.run().expect("runs");
    assert!(program.read_vec::<f32>("none").expect("a state").is_empty());
}
