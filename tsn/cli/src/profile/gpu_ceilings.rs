//! What a GPU can do at most, as its kernels reach it: multiply-adds in registers, and reading and copying its memory.

use super::ceilings::{Ceilings, Compute, Level};
use anyhow::{Result, anyhow, bail};
use std::time::Duration;
#[cfg(feature = "cuda")]
use tsn::dt::autograd::engine::kernels::contract::cuda::{self, CEILINGS, Cuda, Launch};
use tsn::dt::autograd::engine::kernels::contract::wgsl::{Dispatch, line};
use tsn::dt::autograd::engine::kernels::contract::{F32, no_check, read, write};
use tsn::dt::autograd::engine::kernels::{Contract, DType, Reference, Tol, Wgsl, ops};
use tsn::dt::autograd::engine::{Builder, Device, Life, Program};

/// Operations of an invocation of `multiply_add.wgsl`: 256 turns of 8 chains of 4 elements.
const OPERATIONS: u64 = 256 * 8 * 4 * 2;
/// Invocations of `read.wgsl`.
const READERS: u32 = 1 << 16;
/// Most elements that are read, if a binding may be that large.
const ELEMENTS: u64 = 64 << 20;

static MULTIPLY_ADD: Contract = Contract {
    name: "multiply_add",
    formula: "y = the sum of 32 chains x -> x s + t",
    args: &[write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| OPERATIONS * (d.size('r') * d.size('c')) as u64,
    reference: no_reference,
    cpu: &[],
    #[cfg(feature = "cuda")]
    cuda: &[Cuda::any(
        "plain",
        CEILINGS,
        &[Launch::new("multiply_add", 256, |d| cuda::line(d.size('r') * d.size('c'), 256))],
    )],
    #[cfg(not(feature = "cuda"))]
    cuda: &[],
    wgsl: &[Wgsl::any(
        "plain",
        include_str!("multiply_add.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| line(d.size('r') * d.size('c'), 256) }],
    )],
};

static READ: Contract = Contract {
    name: "read",
    formula: "y = sums of x",
    args: &[read("x", F32, &['r', 'c']), write("y", F32, &['n'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: no_reference,
    cpu: &[],
    #[cfg(feature = "cuda")]
    cuda: &[Cuda::any("plain", CEILINGS, &[Launch::new("read", 256, |d| cuda::line(d.size('n'), 256))])],
    #[cfg(not(feature = "cuda"))]
    cuda: &[],
    wgsl: &[Wgsl::any(
        "plain",
        include_str!("read.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| line(d.size('n'), 256) }],
    )],
};

/// Ceilings are timed, not held against anything.
fn no_reference(_: &mut Reference) {}

/// Measures.
///
/// # Errors
/// Those of running, and too little memory.
pub(crate) fn measure(device: &Device, span: Duration) -> Result<Ceilings> {
    let (name, language) = match device {
        Device::Cpu(_) => bail!("a CPU is not measured by kernels of a GPU"),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => (&gpu.info().name, "CUDA"),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => (&gpu.info().name, "WGSL"),
    };
    let mut gflops = 0.0f64;
    // Enough invocations to fill any adapter, few enough for a software driver.
    for rows in (0..8).map(|n| 1u32 << (2 * n)) {
        let mut program = single(device, &MULTIPLY_ADD, &[rows, 256])?;
        let us = best_us(&mut program, span)?;
        gflops = gflops.max((OPERATIONS * 256 * u64::from(rows)) as f64 / us.max(1e-3) / 1e3);
        if us > 5e3 {
            break;
        }
    }
    let elements = (largest_bytes(device) / 4).min(ELEMENTS) as u32;
    let (rows, bytes) = (elements / 1024, u64::from(elements / 1024) * 4096);
    let rate = |bytes: u64, us: f64| bytes as f64 / us.max(1e-3) / 1e3;
    let read_gbps = rate(bytes, best_us(&mut single(device, &READ, &[rows, 1024, READERS])?, span)?);
    let copy_gbps = rate(2 * bytes, best_us(&mut single(device, &ops::pointwise::ADD, &[rows, 1024])?, span)?);
    Ok(Ceilings {
        device: name.clone(),
        threads: 1,
        compute: vec![Compute { isa: language, dtype: "f32", gflops }],
        levels: vec![Level { name: "DRAM", holds_bytes: None, measured_bytes: bytes, read_gbps, copy_gbps }],
    })
}

/// Bytes of the largest buffer that ceilings may have.
fn largest_bytes(device: &Device) -> u64 {
    match device {
        Device::Cpu(_) => 0,
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => gpu.info().memory_bytes / 8,
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => gpu.info().largest_bytes.into_iter().min().unwrap_or(0),
    }
}

/// A program that reads more than a GPU's caches hold, so that they keep nothing else.
///
/// # Errors
/// Too little memory.
pub(crate) fn displacing(device: &Device) -> Result<Program> {
    single(device, &READ, &[(largest_bytes(device) / 4).min(ELEMENTS) as u32 / 1024, 1024, READERS])
}

/// A call on zeros; every argument is `sizes[0]` by `sizes[1]`, a vector has `sizes[2]` elements. What two arguments read
/// is one buffer.
fn single(device: &Device, op: &'static Contract, sizes: &[u32]) -> Result<Program> {
    let mut plan = Builder::new();
    let mut slice = |name: &str, rows, cols| {
        let buffer = plan.buffer(name, DType::F32, rows, cols, Life::State);
        plan.whole(buffer)
    };
    let x = slice("x", sizes[0], sizes[1]);
    let args: Vec<_> = match *op.args {
        [_] => vec![Some(x)],
        [_, _] => vec![Some(x), Some(slice("y", 1, sizes[2]))],
        _ => vec![Some(x), Some(x), Some(slice("y", sizes[0], sizes[1]))],
    };
    plan.call(op, &args, &[])?;
    Ok(plan.finish()?.bind(device)?)
}

/// The shortest of some runs, in microseconds.
fn best_us(program: &mut Program, span: Duration) -> Result<f64> {
    let (mut best, mut spent) = (f64::INFINITY, 0.0);
    for run in 0..1000 {
        let us = program.stamped(1)?.ok_or_else(|| anyhow!("the adapter has no timestamps"))?;
        (best, spent) = (best.min(us), spent + us);
        if run > 1 && spent > span.as_secs_f64() * 1e6 {
            break;
        }
    }
    Ok(best)
}
