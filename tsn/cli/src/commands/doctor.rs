//! What this machine offers, and one kernel held against its f64 reference.

use super::Negative;
use crate::args::Doctor;
use crate::files::{print, write_output};
use crate::is_out_of_reach;
use crate::profile::fingerprint::machine_cores;
use crate::settings::SCHEMA;
use crate::simulators::interpreter;
use anyhow::{Result, anyhow, bail};
use dt_io::bridge::packages;
use serde_json::{Value, json};
use std::path::Path;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};
use tsn::dt::autograd::engine::kernels::{Access, Array, BitMask, DType, Isa, OPS, Trial, ops};
use tsn::dt::autograd::engine::{self, Builder, Device, Life};

/// Runs the check.
pub(crate) fn doctor(args: &Doctor) -> Result<()> {
    let isa = Isa::detect();
    let cores = machine_cores();
    let usable = std::thread::available_parallelism().map_or(1, |n| n.get());
    let features = features();
    let cpu = Device::cpu(0).describe();
    let absent: Vec<String> =
        ["cuda", "wgpu"].into_iter().filter_map(|name| Device::find(name).err().map(|e| e.to_string())).collect();
    let (gpus, adapters) = (gpus(), adapters());
    let named = |of: &str, count: usize| (0..count).map(|n| format!("{of}:{n}")).collect::<Vec<_>>();
    let others = [named("cuda", gpus.len()), named("wgpu", adapters.len())].concat();
    let verified = verify(&others);
    let simulators = Simulators::find(&interpreter(args.python.as_deref()));
    let outcome = match &verified {
        Ok(outcome) => format!("ok: {outcome}"),
        Err(error) => format!("FAILED: {error}"),
    };
    match &args.json {
        Some(path) => {
            let document = json!({
                "schema": SCHEMA, "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "cores": cores, "usable_cores": usable,
                "cpu_features": features, "isa": isa.name(), "ops": OPS.len(), "devices": {"cpu": cpu, "gpus": gpus, "adapters": adapters, "absent": absent},
                "simulators": simulators.json(),
                "kernel": outcome, "ok": verified.is_ok(),
            });
            write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
        }
        None => {
            let mut text = format!("program   tsn-affinity {}\n", env!("CARGO_PKG_VERSION"));
            let pinned = if usable < cores { format!(", {usable} of them for this program") } else { String::new() };
            let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
            text += &format!("machine   {} {}, {cores}{pinned}\n", std::env::consts::OS, std::env::consts::ARCH);
            let list = if features.is_empty() { "none that matter".to_owned() } else { features.join(" ") };
            text += &format!("features  {list}\nused      {}, {} ops\ncpu       {cpu}\n", isa.name(), OPS.len());
            gpus.iter().for_each(|gpu| text += &format!("cuda      {gpu}\n"));
            adapters.iter().for_each(|adapter| text += &format!("wgpu      {adapter}\n"));
            absent.iter().for_each(|why| text += &format!("absent    {why}\n"));
            print(&format!("{text}{}kernel    {outcome}\n", simulators.text()))?;
        }
    }
    verified.map(|_| ()).map_err(|error| Negative(format!("a kernel is wrong on this machine: {error}")).into())
}

/// The GPUs that NVIDIA's driver reaches; without one, `absent` says why.
#[cfg(feature = "cuda")]
fn gpus() -> Vec<String> {
    let text = |gpu: tsn::dt::autograd::engine::CudaInfo| {
        let ((major, minor), (of, version)) = (gpu.capability, gpu.driver);
        let (memory, processors) = (gpu.memory_bytes >> 20, gpu.processors);
        format!(
            "{}: {}, capability {major}.{minor}, {memory} MiB, {processors} multiprocessors, driver of CUDA {of}.{version}",
            gpu.index, gpu.name
        )
    };
    tsn::dt::autograd::engine::CudaDevice::list().unwrap_or_default().into_iter().map(text).collect()
}

/// None in a build without CUDA.
#[cfg(not(feature = "cuda"))]
fn gpus() -> Vec<String> {
    Vec::new()
}

/// The GPUs of this machine and their limits.
#[cfg(feature = "wgpu")]
fn adapters() -> Vec<String> {
    let text = |adapter: tsn::dt::autograd::engine::AdapterInfo| {
        let [buffer, binding] = adapter.largest_bytes.map(|bytes| bytes >> 20);
        let subgroups = match adapter.subgroups {
            [0, 0] => "no subgroups".to_owned(),
            [least, most] => format!("subgroups of {least} to {most}"),
        };
        let has = |ability: bool, name: &str| if ability { format!(", {name}") } else { format!(", no {name}") };
        format!(
            "{}: {}, {}, {} ({}); buffers to {buffer} MiB, bindings to {binding} MiB and {} a kernel, {} invocations, \
             {subgroups}{}{}",
            adapter.index,
            adapter.name,
            adapter.kind,
            adapter.backend,
            adapter.driver,
            adapter.bindings,
            adapter.invocations,
            has(adapter.f16, "16-bit floats"),
            has(adapter.timestamps, "timestamps"),
        )
    };
    tsn::dt::autograd::engine::Gpu::list().into_iter().map(text).collect()
}

/// None in a build without GPUs.
#[cfg(not(feature = "wgpu"))]
fn adapters() -> Vec<String> {
    Vec::new()
}

/// The Python that runs simulators, and what it lacks.
struct Simulators {
    python: String,
    found: Result<(String, Vec<dt_io::bridge::Package>), String>,
}

impl Simulators {
    fn find(python: &Path) -> Simulators {
        Simulators { python: python.display().to_string(), found: packages(python).map_err(|e| e.to_string()) }
    }

    fn text(&self) -> String {
        let (version, packages) = match &self.found {
            Ok(found) => found,
            Err(why) => return format!("python    {why}\n"),
        };
        let mut text = format!("python    {} {version}\n", self.python);
        let mut lacking = Vec::new();
        for package in packages {
            match &package.found {
                Some(found) => text += &format!("package   {} {found} ({})\n", package.name, package.needed_by),
                None => {
                    text += &format!("missing   {} (simulators: {})\n", package.name, package.needed_by);
                    lacking.push(format!("'{}'", package.requirement));
                }
            }
        }
        if !lacking.is_empty() {
            text += &format!("          install with: {} -m pip install {}\n", self.python, lacking.join(" "));
        }
        text
    }

    fn json(&self) -> Value {
        match &self.found {
            Ok((version, packages)) => {
                let list: serde_json::Map<String, Value> =
                    packages.iter().map(|p| (p.name.clone(), json!(p.found))).collect();
                json!({"python": self.python, "version": version, "packages": list})
            }
            Err(why) => json!({"python": self.python, "error": why}),
        }
    }
}

/// A masked product of awkward size on every variant this CPU runs, and on other devices.
fn verify(others: &[String]) -> Result<String> {
    let op = ops::find("masked_gemm").ok_or_else(|| anyhow!("this build has no masked_gemm"))?;
    let (r, i, o) = (37, 65, 33);
    let mut rng = Rng::new(0, Stream::Data, [0, 0]);
    let mut floats = |rows: usize, cols: usize| {
        Array::F32(rows, cols, (0..rows * cols).map(|_| rng.uniform(-1.0, 1.0) as f32).collect())
    };
    let (x, w, bias) = (floats(r, i), floats(o, i), floats(1, o));
    let mask = BitMask::from_flags(o as u32, i as u32, (0..o * i).map(|n| n % 3 == 0));
    let mut args = Vec::new();
    for arg in op.args {
        args.push(match arg.name {
            "x" => x.clone(),
            "w" => w.clone(),
            "mask" => Array::Bits(mask.clone()),
            "bias" => bias.clone(),
            "bias_mask" => Array::Bits(BitMask::from_flags(1, o as u32, (0..o).map(|n| n % 2 == 0))),
            "y" => Array::output(DType::F32, r, o),
            _ if arg.optional => Array::Absent,
            other => return Err(anyhow!("masked_gemm has an argument {other} that the check does not know")),
        });
    }
    let trial = Trial::new(op, args, &[]).map_err(|e| anyhow!("{e:?}"))?;
    trial.verify().map_err(|e| anyhow!("{e}"))?;
    let mut outcome = format!("masked_gemm {r}x{i}x{o} agrees with f64, same bits for 1, 2 and 3 workers");
    for name in others {
        match verify_on(name, &trial) {
            Ok(()) => outcome += &format!(", {name} too"),
            // A device that cannot run it is no wrong kernel.
            Err(why) if is_out_of_reach(&why) => outcome += &format!("; not on {name}: {why}"),
            Err(why) => bail!("{name}: {why}"),
        }
    }
    Ok(outcome)
}

/// The same on another device, as a program of one call.
fn verify_on(device: &str, trial: &Trial) -> engine::Result<()> {
    let mut plan = Builder::new();
    let mut place = |name: &str, array: &Array| {
        let shape = array.shape()?;
        let buffer = plan.buffer(name, shape.dtype, shape.rows, shape.cols, Life::State);
        Some(plan.whole(buffer))
    };
    let args: Vec<_> = trial.op.args.iter().zip(&trial.args).map(|(arg, array)| place(arg.name, array)).collect();
    plan.call(trial.op, &args, &[])?;
    let mut program = plan.finish()?.bind(&Device::open(device)?)?;
    for (arg, array) in trial.op.args.iter().zip(&trial.args).filter(|(arg, _)| arg.access == Access::Read) {
        match array {
            Array::F32(_, _, values) => program.write(arg.name, values)?,
            Array::Bits(mask) => program.write(arg.name, mask.words())?,
            _ => {}
        }
    }
    program.check()
}

/// Names of the CPU features that kernels may use.
#[cfg(target_arch = "x86_64")]
pub(crate) fn features() -> Vec<&'static str> {
    let have = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    have.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Names of the CPU features that kernels may use.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn features() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}
