//! Every op, every variant, every device: values against f64, words beside outputs, NaN behind cleared bits, the same
//! bits from run to run and for any number of workers.
//!
//! Cases come from the contracts (`tests/src/cases.rs`), so a new op is covered by being in the list; an op for which no
//! valid call can be drawn fails. A device that is missing is reported as not run; `REQUIRE=cpu,cuda,wgpu,emulator` makes
//! that a failure. The emulator runs CUDA kernels on the CPU, in three orders of their threads that must give the same bits;
//! `cuda` is a GPU. `OPS=gemm,conv` runs these ops alone.

use engine::Device;
use kernels::contract::{F32, no_check, read, write};
use kernels::trial::same_bits;
use kernels::{Arg, Call, Contract, Isa, OPS, Reference, Tol, Trial, Variant};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tsn_tests::cases::{Case, free};
use tsn_tests::on_device::{self, Layout};

/// Empty, single, around vectors, tiles and mask words, and a prime.
const AWKWARD: [u32; 17] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 129];
/// Sizes of all other letters while one is awkward.
const USUAL: [u32; 5] = [3, 5, 2, 4, 6];
const LONG: u32 = 1031;
/// Drawn cases for each op.
const DRAWN: u32 = 48;

#[test]
fn every_op_on_every_device() {
    let required = std::env::var("REQUIRE").unwrap_or_default();
    let mut failures = missing_devices(&required);
    let columns = columns();
    let mut table = format!("{:<18} {:>5}  {:<8} {:<8} {:<8} cpu\n", "op", "cases", "emulator", "cuda", "wgpu");
    let chosen = std::env::var("OPS").unwrap_or_default();
    let unknown = chosen.split(',').filter(|name| !name.is_empty() && OPS.iter().all(|op| op.name != *name));
    failures.extend(unknown.map(|name| format!("OPS: no op is named `{name}`")));
    for op in OPS.iter().filter(|op| chosen.is_empty() || chosen.split(',').any(|name| name == op.name)) {
        // A reference that panics must not hide the other ops.
        let outcome = catch_unwind(AssertUnwindSafe(|| conform(op, &columns)));
        let outcome = outcome.unwrap_or_else(|_| Err("panicked; the message is above".into()));
        let (cases, verdict) = match &outcome {
            Ok(cases) => (*cases, "passed"),
            Err(_) => (0, "FAILED"),
        };
        let mut cpu = String::new();
        for variant in op.cpu {
            let verdict = if Isa::detect().has(variant.needs) { verdict } else { "not run" };
            write!(cpu, "{} {verdict}; ", variant.name).expect("a string grows");
        }
        let cpu = cpu.trim_end_matches("; ");
        let mut gpus = String::new();
        for name in ["emulator", "cuda", "wgpu"] {
            let verdict = match columns.iter().find(|column| column.name == name) {
                Some(column) if !column.covers(op) => "none",
                Some(_) => verdict,
                None => "not run",
            };
            write!(gpus, "{verdict:<8} ").expect("a string grows");
        }
        writeln!(table, "{:<18} {cases:>5}  {gpus}{cpu}", op.name).expect("a string grows");
        if let Err(why) = outcome {
            failures.push(format!("{}: {why}", op.name));
        }
    }
    // The harness keeps what `print!` writes; the table is for every run.
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Devices of one kind, all of which must give the same bits.
struct Column {
    name: &'static str,
    devices: Vec<Device>,
}

/// Those that are there. A GPU runs everything twice.
fn columns() -> Vec<Column> {
    let twice = |name| Device::open(name).ok().map(|device| Column { name, devices: vec![device.clone(), device] });
    #[cfg(feature = "cuda")]
    let emulator = {
        let device = |order| Device::cuda_over(std::sync::Arc::new(tsn_emulator::Emulator::new(order)));
        Some(Column { name: "emulator", devices: tsn_emulator::Order::ALL.map(device).to_vec() })
    };
    #[cfg(not(feature = "cuda"))]
    let emulator = None;
    [emulator, twice("cuda"), twice("wgpu")].into_iter().flatten().collect()
}

impl Column {
    fn covers(&self, op: &Contract) -> bool {
        match self.devices[0] {
            Device::Cpu(_) => !op.cpu.is_empty(),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => !op.cuda.is_empty(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => !op.wgsl.is_empty(),
        }
    }

    /// Variants that a call may run here, plain first, each on all devices.
    fn variants(&self, trial: &Trial) -> Vec<(&'static str, Vec<Device>)> {
        let names: Vec<&'static str> = match &self.devices[0] {
            Device::Cpu(_) => {
                let _ = trial;
                Vec::new()
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                let all = trial.op.cuda_for(&trial.dims, trial.dtype(), gpu.info().capability);
                all.map(|variant| variant.name).collect()
            }
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => {
                let has = |feature| gpu.has(feature);
                trial.op.wgsl_for(&trial.dims, trial.dtype(), &has).map(|source| source.name).collect()
            }
        };
        let with = |device: &Device, name: &str| match device.clone() {
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => Device::Cuda(gpu.with_variant(name)),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => Device::Wgpu(gpu.with_variant(name)),
            cpu => {
                let _ = name;
                cpu
            }
        };
        names.into_iter().map(|name| (name, self.devices.iter().map(|device| with(device, name)).collect())).collect()
    }

    /// Every variant of the op that runs here, against f64 and with the same bits on every device.
    fn run(&self, trial: &Trial) -> Result<(), String> {
        let expected = trial.reference();
        let mut plain = None;
        for (variant, devices) in self.variants(trial) {
            let name = format!("{} {variant}", self.name);
            let run = |device, layout| {
                on_device::run(trial, device, layout).map_err(|why| format!("{} {name}: {why}", trial.op.name))
            };
            // Neither may bits depend on where arguments lie.
            let got = run(&devices[0], Layout::Odd)?;
            for device in &devices[1..] {
                if !same_bits(&got, &run(device, Layout::Aligned)?) {
                    let (op, [first, other]) = (trial.op.name, [&devices[0], device].map(Device::describe));
                    return Err(format!("{op} {name}: bits differ between {first} and {other}"));
                }
            }
            let errors = trial.judge(&name, &got, &expected, plain.as_deref())?;
            plain.get_or_insert(errors);
        }
        Ok(())
    }
}

/// Complaints about devices that `REQUIRE` names and that cannot be opened.
fn missing_devices(required: &str) -> Vec<String> {
    // `tint` is a program that another test asks for.
    let names = required.split(',').map(str::trim).filter(|name| !["", "tint"].contains(name));
    let missing = |name: &str| match name {
        "emulator" if cfg!(feature = "cuda") => None,
        "emulator" => Some("REQUIRE names the emulator, which needs the feature `cuda`".to_owned()),
        name => engine::Device::open(name).err().map(|e| format!("REQUIRE names {name}: {e}")),
    };
    names.filter_map(missing).collect()
}

#[test]
fn a_required_device_that_is_missing_is_a_failure() {
    assert!(missing_devices("").is_empty() && missing_devices("cpu").is_empty());
    let missing = missing_devices("cpu, cuda,abacus");
    assert!(missing.iter().any(|m| m.contains("abacus")), "{missing:?}");
}

const PLANTED_ARGS: &[Arg] = &[read("x", F32, &['r', 'c']), write("y", F32, &['r', 'c'])];

/// `y = 2 x` with variants that may be wrong.
const fn planted(scalars: &'static [&'static str], cpu: &'static [Variant]) -> Contract {
    Contract {
        name: "planted",
        formula: "y = 2 x",
        args: PLANTED_ARGS,
        scalars,
        tol: Tol::times_plain(2.0, 1e-6),
        check: no_check,
        flops: |_| 0,
        reference: |r: &mut Reference| r.put_f(1, r.f(0).iter().map(|x| 2.0 * x).collect()),
        cpu,
        cuda: &[],
        wgsl: &[],
    }
}

fn twice(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).for_each(|(y, x)| *y = 2.0 * x);
}

fn all_but_the_last(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).take(64).for_each(|(y, x)| *y = 2.0 * x);
}

fn by_workers(c: &mut Call<'_>) {
    let off = 1e-7 * c.pool.workers() as f32;
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).for_each(|(y, x)| *y = (2.0 + off) * x);
}

#[test]
fn planted_faults_are_found() {
    static RIGHT: Contract = planted(&[], &[Variant::any("plain", twice)]);
    static SHORT: Contract = planted(&[], &[Variant::any("plain", twice), Variant::any("wide", all_but_the_last)]);
    static UNSTEADY: Contract = planted(&[], &[Variant::any("plain", by_workers)]);
    static OPEN: Contract = planted(&["zeal"], &[Variant::any("plain", twice)]);
    let conform = |op| conform(op, &[]);
    assert!(conform(&RIGHT).expect("right") > 60);
    assert!(conform(&SHORT).expect_err("unwritten elements").contains("planted wide, output y"));
    assert!(conform(&UNSTEADY).expect_err("bits of the workers").contains("bits depend on"));
    assert!(conform(&OPEN).expect_err("a scalar without values").contains("zeal"));
}

/// Operands of products with a fault each, in place of those of the variant `mma`.
#[cfg(feature = "cuda")]
#[test]
fn planted_operands_are_found() {
    use kernels::contract::cuda::{Launch, Module, Target};
    use kernels::{Cuda, ops};
    const FAULTS: Module = Module { name: "faults_products", path: "", ptx: "", target: Target::Sm80 };
    let emulator: Vec<Column> = columns().into_iter().filter(|column| column.name == "emulator").collect();
    for (op, entry) in [
        (&ops::conv::CONV, "unturned_taps"),
        (&ops::conv::CONV, "one_plane"),
        (&ops::conv::CONV_DX, "first_class"),
        (&ops::packed_gemm::PACKED_GEMM, "one_place"),
        (&ops::cosine::COSINE, "neighbours_lengths"),
    ] {
        let mma = op.cuda.iter().find(|variant| variant.name == "mma").expect("on tensor cores");
        let launches: &[Launch] = Box::leak(Box::new([Launch { entry, ..mma.launches[0] }]));
        let cuda: &[Cuda] =
            Box::leak(Box::new([op.cuda[0], Cuda { name: "planted", module: FAULTS, launches, ..*mma }]));
        let planted: &Contract = Box::leak(Box::new(Contract { cuda, ..*op }));
        let error = conform(planted, &emulator).expect_err(entry);
        assert!(error.contains("emulator planted, output"), "{entry}: {error}");
    }
}

/// Runs all cases of an op, on the CPU and on every other device there is, and counts those that the contract allows.
fn conform(op: &'static Contract, columns: &[Column]) -> Result<usize, String> {
    let mut count = 0;
    for case in fixed(op) {
        count += usize::from(holds(op, &case, columns)?);
    }
    Ok(count + drawn(op, columns)?)
}

fn holds(op: &'static Contract, case: &Case, columns: &[Column]) -> Result<bool, String> {
    let verify = |trial: Trial| {
        trial.verify()?;
        columns.iter().try_for_each(|column| column.run(&trial))
    };
    match case.trial(op) {
        Ok(None) => Ok(false),
        Ok(Some(trial)) => verify(trial).map(|()| true).map_err(|why| format!("{why} ({case:?})")),
        Err(why) => Err(format!("{why} ({case:?})")),
    }
}

/// Every awkward size at every letter; all letters of one awkward size; one letter long and the others short. The
/// choice of optional arguments goes through all combinations.
fn fixed(op: &'static Contract) -> Vec<Case> {
    let letters = free(op).len();
    let mut all = Vec::new();
    for (nth, &size) in AWKWARD.iter().enumerate() {
        for letter in 0..letters {
            let mut sizes: Vec<u32> = (0..letters).map(|at| USUAL[(at + nth) % USUAL.len()]).collect();
            sizes[letter] = size;
            all.push(sizes);
        }
        if u64::from(size).pow(letters as u32) <= 300_000 {
            all.push(vec![size; letters]);
        }
    }
    for letter in 0..letters {
        let mut sizes = vec![2; letters];
        sizes[letter] = LONG;
        all.push(sizes);
    }
    all.into_iter().zip(0u32..).map(|(sizes, n)| Case { sizes, present: n.wrapping_mul(7), seed: n.into() }).collect()
}

/// Sizes, values and optional arguments from proptest, which also finds the smallest case that fails.
fn drawn(op: &'static Contract, columns: &[Column]) -> Result<usize, String> {
    let letters = free(op).len();
    // Few letters may be large together.
    let most = [1000u32, 1000, 200, 70, 24, 12].get(letters).copied().unwrap_or(8);
    let sizes = proptest::collection::vec(prop_oneof![0..9u32, 0..most], letters);
    let strategy = (sizes, any::<u32>(), any::<u64>()).prop_map(|(sizes, present, seed)| Case { sizes, present, seed });
    let config = Config { cases: DRAWN, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let count = std::cell::Cell::new(0);
    let outcome = runner.run(&strategy, |case| {
        let ran = holds(op, &case, columns).map_err(TestCaseError::fail)?;
        count.set(count.get() + usize::from(ran));
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(count.get()),
        Err(TestError::Fail(why, case)) => Err(format!("{why}; smallest: {case:?}")),
        Err(error) => Err(error.to_string()),
    }
}
