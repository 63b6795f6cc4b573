//! Calls on a GPU: which sources a case runs, one call in a program of its own, and its time by the GPU's clock.

use super::case::Case;
use super::expand::find_variant;
use super::flags::ProfileArgs;
use super::measure::{self, Samples, Spans};
use super::row::dtype_name;
use anyhow::{Result, anyhow, bail};
use std::time::{Duration, Instant};
#[cfg(feature = "cuda")]
use tsn::dt::autograd::engine::CudaRange;
#[cfg(feature = "cuda")]
use tsn::dt::autograd::engine::kernels::Cuda;
#[cfg(feature = "wgpu")]
use tsn::dt::autograd::engine::kernels::Wgsl;
use tsn::dt::autograd::engine::kernels::{Array, BitMask, Trial, bf16, f16};
use tsn::dt::autograd::engine::{Buffer, Builder, Device, Element, Life, Program};

/// Most calls of one submission.
const MOST_BATCH: u64 = 1 << 12;
/// Submissions whose time on the host is taken.
const HOST_RUNS: usize = 9;

/// Refuses options that only a CPU has, and devices without a clock.
///
/// # Errors
/// Says what is asked for and cannot be.
pub(crate) fn suits(args: &ProfileArgs, device: &Device) -> Result<()> {
    let has_clock = match device {
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => gpu.info().timestamps,
        _ => true,
    };
    suits_with(args, &device.describe(), has_clock)
}

fn suits_with(args: &ProfileArgs, name: &str, has_clock: bool) -> Result<()> {
    if !has_clock && !args.once {
        bail!("{name} has no timestamps, so its kernels cannot be timed");
    }
    let cpu_only =
        [(args.threads != [1], "--threads"), (args.fresh, "--fresh"), (args.tuning.tune.is_some(), "--tune")];
    match cpu_only.iter().find(|(given, _)| *given) {
        Some((_, option)) => bail!("{option} is for the cpu: leave it out with --device {}", args.device),
        None => Ok(()),
    }
}

/// Names of the variants that a case asks for, before its sizes are known to fit.
pub(crate) fn names(case: &Case, device: &Device, wanted: Option<&str>) -> Result<Vec<&'static str>> {
    let dtype = case.dtype_of(&case.op.args[case.op.typed_arg()]);
    let here: Vec<&str> = match device {
        Device::Cpu(_) => Vec::new(),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let own = case.op.cuda.iter().any(|variant| variant.only == Some(dtype)).then_some(dtype);
            let runs = |v: &&Cuda| v.only == own && v.module.target.runs_on(gpu.info().capability);
            case.op.cuda.iter().filter(runs).map(|v| v.name).collect()
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => {
            let own = case.op.wgsl.iter().any(|source| source.only == Some(dtype)).then_some(dtype);
            let runs = |s: &&Wgsl| s.only == own && s.needs.iter().all(|feature| gpu.has(*feature));
            case.op.wgsl.iter().filter(runs).map(|s| s.name).collect()
        }
    };
    if here.is_empty() {
        bail!("{} has no kernel for {} on {}", case.op.name, dtype_name(dtype), device.describe());
    }
    match wanted {
        None => Ok(here.into_iter().next_back().into_iter().collect()),
        Some("all") => Ok(here),
        Some(name) => Ok(vec![find_variant(case.op.name, &here, name)?]),
    }
}

/// The variants that a call asks for: the best one, all, or one by name.
///
/// # Errors
/// A sentence if none fits these sizes.
pub(crate) fn variants(trial: &Trial, device: &Device, wanted: Option<&str>) -> Result<Vec<&'static str>, String> {
    let (fitting, best): (Vec<&str>, Option<&str>) = match device {
        Device::Cpu(_) => Default::default(),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let all = || trial.op.cuda_for(&trial.dims, trial.dtype(), gpu.info().capability).map(|v| v.name);
            (all().collect(), all().next_back())
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => {
            let has = |feature| gpu.has(feature);
            let all = || trial.op.wgsl_for(&trial.dims, trial.dtype(), &has);
            (all().map(|s| s.name).collect(), Wgsl::best(all(), &trial.dims, gpu.slow()).map(|s| s.name))
        }
    };
    let found: Vec<&str> = match wanted {
        None => best.into_iter().collect(),
        Some("all") => fitting,
        Some(name) => fitting.into_iter().filter(|variant| *variant == name).collect(),
    };
    match found.is_empty() {
        true => Err(format!("{} {} cannot compute these sizes", trial.op.name, wanted.unwrap_or("on a GPU"))),
        false => Ok(found),
    }
}

/// The device on which programs run this variant.
fn with_variant(device: &Device, name: &str) -> Device {
    match device {
        Device::Cpu(cpu) => Device::Cpu(cpu.clone()),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => Device::Cuda(gpu.clone().with_variant(name)),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => Device::Wgpu(gpu.clone().with_variant(name)),
    }
}

/// Names what is submitted as long as the result lives, for profilers that know such names: those of CUDA. An id is a name
/// with spaces, because the filters of `ncu` take a `/` for their own.
#[cfg(feature = "cuda")]
pub(crate) fn range(device: &Device, id: &str) -> Option<CudaRange> {
    matches!(device, Device::Cuda(_)).then(|| CudaRange::begin(&id.replace('/', " "))).flatten()
}

/// Nothing without CUDA.
#[cfg(not(feature = "cuda"))]
pub(crate) fn range(_: &Device, _: &str) -> Option<()> {
    None
}

/// One call in a program of its own.
pub(crate) struct Single {
    program: Program,
}

impl Single {
    /// Binds the call and moves its arguments to the GPU.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) fn new(trial: &Trial, device: &Device, variant: &str) -> Result<Single, String> {
        // Without this the engine would take another variant.
        variants(trial, device, Some(variant))?;
        let program = bound(trial, &with_variant(device, variant));
        program.map(|program| Single { program }).map_err(|e| e.to_string())
    }

    /// Runs it once; the arguments of the trial as they are then.
    pub(crate) fn run_once(mut self, trial: &Trial) -> Result<Vec<Array>, String> {
        self.program.run().map_err(|e| e.to_string())?;
        let held = trial.op.args.iter().zip(&trial.args);
        held.map(|(arg, array)| fetch(&self.program, arg.name, array)).collect::<Result<_>>().map_err(|e| e.to_string())
    }

    /// Two calls without a clock, waited for.
    pub(crate) fn twice(mut self) -> Result<()> {
        self.program.run()?;
        self.program.run()?;
        Ok(self.program.wait()?)
    }

    /// Times it as [`samples`] does.
    pub(crate) fn samples(&mut self, spans: Spans, displace: Option<&mut Program>) -> Result<Samples> {
        samples(spans, &mut self.program, displace)
    }
}

/// Times a program by the GPU's clock, and what the host spends on a submission; with `displace`, single runs, each after one
/// of that program, which leaves nothing else in the caches.
///
/// # Errors
/// Those of running them.
pub(crate) fn samples(spans: Spans, program: &mut Program, displace: Option<&mut Program>) -> Result<Samples> {
    let mut broken = None;
    let mut time = |repeats| match program.stamped(repeats) {
        Ok(Some(us)) => Duration::from_nanos((1e3 * us) as u64),
        Ok(None) => {
            broken = Some(anyhow!("the adapter has no timestamps"));
            Duration::from_millis(1)
        }
        Err(error) => {
            broken = Some(error.into());
            Duration::from_millis(1)
        }
    };
    let mut samples = match displace {
        None => measure::timed(spans, MOST_BATCH, &mut time),
        Some(displace) => {
            let mut refused = None;
            let mut run = || refused = displace.run().err().or(refused.take());
            let samples = measure::cold_by(spans, MOST_BATCH, &mut run, &mut time);
            if let Some(error) = refused {
                return Err(error.into());
            }
            samples
        }
    };
    if let Some(error) = broken {
        return Err(error);
    }
    let mut host = Vec::new();
    for _ in 0..HOST_RUNS {
        let begin = Instant::now();
        program.run()?;
        host.push(begin.elapsed().as_nanos() as f64);
        program.wait()?;
    }
    host.sort_by(f64::total_cmp);
    samples.host_ns = host[HOST_RUNS / 2];
    Ok(samples)
}

/// Clock of the processors of a GPU in MHz, where NVIDIA's `nvidia-smi` tells; it counts GPUs as the driver does unless they
/// differ.
pub(crate) fn clock_mhz(device: &Device) -> Option<f64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let query = ["--query-gpu=clocks.sm", "--format=csv,noheader,nounits"];
            let index = format!("--id={}", gpu.info().index);
            let out = std::process::Command::new("nvidia-smi").args(query).arg(index).output().ok()?;
            String::from_utf8_lossy(&out.stdout).trim().parse().ok()
        }
        _ => None,
    }
}

fn bound(trial: &Trial, device: &Device) -> Result<Program> {
    let mut plan = Builder::new();
    let mut place = |(array, name): (&Array, &str)| {
        array.shape().map(|s| {
            let buffer: Buffer = plan.buffer(name, s.dtype, s.rows, s.cols, Life::State);
            plan.whole(buffer)
        })
    };
    let named = || trial.args.iter().zip(trial.op.args.iter().map(|arg| arg.name));
    let slices: Vec<_> = named().map(&mut place).collect();
    let scalars: Vec<u32> = (0..trial.op.scalars.len()).map(|at| trial.dims.scalar(at)).collect();
    plan.call(trial.op, &slices, &scalars)?;
    let mut program = plan.finish()?.bind(device)?;
    named().try_for_each(|(array, name)| store(&mut program, name, array))?;
    Ok(program)
}

fn store(program: &mut Program, name: &str, array: &Array) -> Result<()> {
    match array {
        Array::Absent => Ok(()),
        Array::F32(_, _, v) => Ok(program.write(name, v)?),
        Array::F16(_, _, v) => Ok(program.write(name, &v.iter().map(|x| x.to_bits()).collect::<Vec<u16>>())?),
        Array::Bf16(_, _, v) => Ok(program.write(name, &v.iter().map(|x| x.to_bits()).collect::<Vec<u16>>())?),
        Array::U32(_, _, v) => Ok(program.write(name, v)?),
        Array::U16(_, _, v) => Ok(program.write(name, v)?),
        Array::U8(_, _, v) => Ok(program.write(name, v)?),
        Array::Bits(mask) => Ok(program.write(name, mask.words())?),
    }
}

/// An argument of the shape of `like`.
fn fetch(program: &Program, name: &str, like: &Array) -> Result<Array> {
    fn read<T: Element>(program: &Program, name: &str) -> Result<Vec<T>> {
        Ok(program.read_vec(name)?)
    }
    let halves = || read::<u16>(program, name);
    Ok(match like {
        Array::Absent => Array::Absent,
        Array::F32(r, c, _) => Array::F32(*r, *c, read(program, name)?),
        Array::F16(r, c, _) => Array::F16(*r, *c, halves()?.into_iter().map(f16::from_bits).collect()),
        Array::Bf16(r, c, _) => Array::Bf16(*r, *c, halves()?.into_iter().map(bf16::from_bits).collect()),
        Array::U32(r, c, _) => Array::U32(*r, *c, read(program, name)?),
        Array::U16(r, c, _) => Array::U16(*r, *c, halves()?),
        Array::U8(r, c, _) => Array::U8(*r, *c, read(program, name)?),
        Array::Bits(mask) => {
            let words = BitMask::from_words(mask.rows(), mask.cols(), read(program, name)?);
            Array::Bits(words.ok_or_else(|| anyhow!("pad bits of {name} are set"))?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser as _;

    #[test]
    fn an_adapter_without_a_clock_is_refused() {
        let suits = |words: &str, timestamps| {
            let cli = Cli::parse_from(format!("tsn-affinity profile gelu --device wgpu {words}").split_whitespace());
            let Some(crate::args::Command::Profile(args)) = cli.command else { panic!("another command") };
            suits_with(&args, "wgpu, a GPU, Vulkan", timestamps).map_err(|e| e.to_string())
        };
        assert_eq!(suits("", true), Ok(()));
        let why = suits("", false).expect_err("no clock");
        assert!(why.contains("a GPU, Vulkan has no timestamps"), "{why}");
        assert_eq!(suits("--once", false), Ok(()));
        for option in ["--threads 2", "--fresh", "--tune none.json"] {
            let why = suits(option, true).expect_err(option);
            assert!(why.starts_with(option.split(' ').next().unwrap_or("")) && why.contains("for the cpu"), "{why}");
        }
    }
}
