//! Calls on a GPU: which sources a case runs, one call in a program of its own, and its time by the GPU's clock.

use super::case::Case;
use super::expand::find_variant;
use super::flags::{CacheArg, ProfileArgs};
use super::measure::{self, Samples, Spans};
use super::row::dtype_name;
use anyhow::{Result, anyhow, bail};
use std::time::{Duration, Instant};
use tsn::dt::autograd::engine::kernels::{Array, BitMask, Trial, Wgsl, bf16, f16};
use tsn::dt::autograd::engine::{AdapterInfo, Buffer, Builder, Device, Element, Gpu, Life, Program};

/// Most calls of one submission.
const MOST_BATCH: u64 = 1 << 12;
/// Submissions whose time on the host is taken.
const HOST_RUNS: usize = 9;

/// Refuses options that only a CPU has, and adapters without a clock.
///
/// # Errors
/// Says what is asked for and cannot be.
pub(crate) fn suits(args: &ProfileArgs, adapter: &AdapterInfo) -> Result<()> {
    if !adapter.timestamps && !args.once {
        bail!("{} ({}) has no timestamps, so its kernels cannot be timed", adapter.name, adapter.backend);
    }
    let cpu_only = [
        (args.threads != [1], "--threads"),
        (!matches!(args.cache, CacheArg::Warm), "--cache"),
        (args.fresh, "--fresh"),
        (args.tuning.tune.is_some(), "--tune"),
    ];
    match cpu_only.iter().find(|(given, _)| *given) {
        Some((_, option)) => bail!("{option} is for the cpu: leave it out with --device {}", args.device),
        None => Ok(()),
    }
}

/// Names of the sources that a case asks for, before its sizes are known to fit.
pub(crate) fn names(case: &Case, gpu: &Gpu, wanted: Option<&str>) -> Result<Vec<&'static str>> {
    let dtype = case.dtype_of(&case.op.args[case.op.typed_arg()]);
    let own = case.op.wgsl.iter().any(|source| source.only == Some(dtype)).then_some(dtype);
    let here: Vec<&str> = case
        .op
        .wgsl
        .iter()
        .filter(|s| s.only == own && s.needs.iter().all(|feature| gpu.has(*feature)))
        .map(|s| s.name)
        .collect();
    if here.is_empty() {
        bail!("{} has no WGSL source for {} on {}", case.op.name, dtype_name(dtype), gpu.info().name);
    }
    match wanted {
        None => Ok(here.into_iter().next_back().into_iter().collect()),
        Some("all") => Ok(here),
        Some(name) => Ok(vec![find_variant(case.op.name, &here, name)?]),
    }
}

/// The sources that a call asks for: the best one, all, or one by name.
///
/// # Errors
/// A sentence if none fits these sizes.
pub(crate) fn sources(trial: &Trial, gpu: &Gpu, wanted: Option<&str>) -> Result<Vec<&'static Wgsl>, String> {
    let has = |feature| gpu.has(feature);
    let fitting = || trial.op.wgsl_for(&trial.dims, trial.dtype(), &has);
    let found: Vec<&Wgsl> = match wanted {
        None => fitting().next_back().into_iter().collect(),
        Some("all") => fitting().collect(),
        Some(name) => fitting().filter(|source| source.name == name).collect(),
    };
    match found.is_empty() {
        true => Err(format!("{} {} cannot compute these sizes", trial.op.name, wanted.unwrap_or("in WGSL"))),
        false => Ok(found),
    }
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
    pub(crate) fn new(trial: &Trial, gpu: &Gpu, source: &Wgsl) -> Result<Single, String> {
        // Without this the engine would take another source.
        sources(trial, gpu, Some(source.name))?;
        let program = bound(trial, &Device::Wgpu(gpu.clone().with_variant(source.name)));
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

    /// Times it.
    pub(crate) fn samples(&mut self, spans: Spans) -> Result<Samples> {
        samples(spans, &mut self.program)
    }
}

/// Times a program by the GPU's clock, and what the host spends on a submission.
///
/// # Errors
/// Those of running it.
pub(crate) fn samples(spans: Spans, program: &mut Program) -> Result<Samples> {
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
    let mut samples = measure::timed(spans, MOST_BATCH, &mut time);
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

    fn adapter(timestamps: bool) -> AdapterInfo {
        AdapterInfo {
            index: 0,
            name: "a GPU".to_owned(),
            driver: String::new(),
            backend: "Vulkan".to_owned(),
            kind: "DiscreteGpu".to_owned(),
            largest_bytes: [1 << 30; 2],
            bindings: 8,
            invocations: 256,
            subgroups: [0, 0],
            f16: false,
            timestamps,
        }
    }

    #[test]
    fn an_adapter_without_a_clock_is_refused() {
        let suits = |words: &str, timestamps| {
            let cli = Cli::parse_from(format!("tsn-affinity profile gelu --device wgpu {words}").split_whitespace());
            let Some(crate::args::Command::Profile(args)) = cli.command else { panic!("another command") };
            suits(&args, &adapter(timestamps)).map_err(|e| e.to_string())
        };
        assert_eq!(suits("", true), Ok(()));
        let why = suits("", false).expect_err("no clock");
        assert!(why.contains("a GPU (Vulkan) has no timestamps"), "{why}");
        assert_eq!(suits("--once", false), Ok(()));
        for option in ["--threads 2", "--cache cold", "--fresh", "--tune none.json"] {
            let why = suits(option, true).expect_err(option);
            assert!(why.starts_with(option.split(' ').next().unwrap_or("")) && why.contains("for the cpu"), "{why}");
        }
    }
}
