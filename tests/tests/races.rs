//! CUDA kernels under ThreadSanitizer: every kernel with shared memory is recorded once on the emulator and runs again in a
//! program that a compiler has instrumented. A missing barrier is a data race there, with the lines of the kernel.
//!
//! Threads of a kernel without shared memory touch nothing of each other's inside a block, so those are left out, but for rows,
//! whose stages are those of products with shared memory. Wide tiles share their body with the narrow ones and need more of them
//! than is quick. `RACES_IN=folder` keeps the program and the recorded launches in a folder.

use engine::{Builder, CudaLaunch, DType, Device, Launcher, Life, Slice};
use kernels::contract::ArgShape;
use kernels::contract::cuda::rows::{ROWS, ROWS_MODULE};
use kernels::contract::cuda::{Module, Target};
use kernels::{Contract, Cuda, OPS, ops};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tsn_emulator::{Emulator, Order};
use tsn_tests::cases::{Case, free};
use tsn_tests::on_device::{self, Layout};

/// Registers and shared memory of every kernel, as the assembler reports them.
const RESOURCES: &str = include_str!("../../kernels/src/cuda/resources.txt");
/// Planted faults: a barrier is missing, at all or between two others.
const MISSING: [&str; 2] = ["no_barrier", "no_second_barrier"];
const FAULTS: Module = Module { name: "faults", path: "", ptx: "", target: Target::Sm80 };

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    let folder = std::env::var_os("RACES_IN")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("races"), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("a folder for the program");
    folder
}

/// Kernels with shared memory by the path of their source, and the module of each.
fn chosen() -> BTreeMap<PathBuf, (&'static str, BTreeSet<&'static str>)> {
    let lines =
        RESOURCES.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fixed: BTreeSet<&str> = lines.filter(|words| words[4] != "0").map(|words| words[0]).collect();
    let mut all: BTreeMap<PathBuf, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for Cuda { module, launches, .. } in OPS.iter().flat_map(|op| op.cuda) {
        let shares = launches.iter().filter(|launch| launch.shared.is_some() || fixed.contains(launch.entry));
        for launch in shares.filter(|launch| !launch.entry.contains("_wide")) {
            let path = root().join("kernels/src").join(module.path);
            let entries = &mut all.entry(path).or_insert((module.name, BTreeSet::new())).1;
            entries.insert(launch.entry);
            entries.extend(launch.head.map(|head| head.entry));
        }
    }
    let path = root().join("kernels/src").join(ROWS_MODULE.path);
    all.insert(path, (ROWS_MODULE.name, [ROWS.entry].into()));
    all
}

/// Compiles one unit, or links all.
fn compiler(with: impl FnOnce(&mut Command) -> &mut Command) {
    let emulator = root().join("tests/emulator");
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command.args(["-fsanitize=thread", "-g1", "-O1", "-std=c++17", "-march=x86-64-v3", "-ffp-contract=off"]);
    command.args(["-DHOST_CUDA", "-Wno-tsan", "-Wno-unknown-pragmas", "-Wno-psabi"]);
    command.arg("-I").arg(&emulator).arg("-I").arg(root().join("kernels/src/cuda"));
    with(&mut command);
    let out = command.output().expect("a C++ compiler");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The program that runs recorded launches of the chosen kernels, and of the planted fault.
fn program(folder: &Path) -> PathBuf {
    let emulator = root().join("tests/emulator");
    let mut sources = chosen();
    sources.insert(
        emulator.join("faults/faults.cu"),
        (FAULTS.name, [&["shift"], MISSING.as_slice()].concat().into_iter().collect()),
    );
    let mut units: Vec<PathBuf> = ["runtime.cpp", "async.cpp", "replay.cpp"].map(|name| emulator.join(name)).to_vec();
    let (mut declared, mut listed) = (String::new(), String::new());
    for (path, (module, entries)) in &sources {
        let mut text = format!("#include \"host_cuda.h\"\nnamespace {{\n#include \"{}\"\n}}\n", path.display());
        for entry in entries {
            let (run, bytes) = (format!("hc_{module}_{entry}"), format!("hc_bytes_{module}_{entry}"));
            writeln!(
                text,
                "void {run}(const hc::Launch& l, const void* a) {{ hc::launch({entry}, l, a); }}\n\
                 extern const size_t {bytes} = hc::argument_bytes({entry});"
            )
            .expect("a string grows");
            writeln!(declared, "void {run}(const hc::Launch&, const void*);\nextern const size_t {bytes};")
                .expect("a string grows");
            writeln!(listed, "    {{\"{module}\", \"{entry}\", {run}, &{bytes}}},").expect("a string grows");
        }
        let unit = folder.join(format!("{module}.cpp"));
        std::fs::write(&unit, text).expect("a file");
        units.push(unit);
    }
    let table = folder.join("table.cpp");
    let text = format!(
        "#include \"host_cuda.h\"\n{declared}\
         struct Kernel {{ const char *module, *entry; void (*run)(const hc::Launch&, const void*); const size_t* bytes; }};\n\
         static const Kernel kernels[] = {{\n{listed}}};\n\
         extern \"C\" const Kernel* emulator_kernel(size_t at) {{\n\
         \x20   return at < sizeof kernels / sizeof *kernels ? &kernels[at] : nullptr;\n}}\n"
    );
    std::fs::write(&table, text).expect("a file");
    units.push(table);
    let object = |unit: &Path| folder.join(unit.file_name().expect("a file")).with_extension("o");
    std::thread::scope(|scope| {
        for part in units.chunks(units.len().div_ceil(workers())) {
            scope.spawn(move || {
                part.iter().for_each(|unit| compiler(|c| c.arg("-c").arg(unit).arg("-o").arg(object(unit))));
            });
        }
    });
    let program = folder.join("replay");
    compiler(|c| c.args(units.iter().map(|unit| object(unit))).arg("-o").arg(&program));
    program
}

/// What a program says of recorded launches.
fn replay(program: &Path, what: &str, records: &[u8]) -> Output {
    let file = program.with_file_name(format!("{what}.launches"));
    std::fs::write(&file, records).expect("a file of launches");
    Command::new(program).arg(&file).env("TSAN_OPTIONS", "halt_on_error=0 exitcode=66").output().expect("runs")
}

fn fault(entry: &'static str) -> Vec<u8> {
    let emulator = Emulator::recording(Order::Ascending, [entry.to_owned()]);
    let y = emulator.alloc(256).expect("256 bytes");
    let argument = [y.to_ne_bytes(), 64u64.to_ne_bytes()].concat();
    let function = emulator.function(&FAULTS, entry, 256).expect("a kernel");
    let launch = CudaLaunch { function, grid: [1, 1, 1], threads: 64, shared_bytes: 256, argument, maps: Vec::new() };
    emulator.launch(&launch).expect("ends");
    emulator.recorded()
}

/// Runs an op at sizes with several tiles each way, then with one letter long (products of few rows, or of many summed rows,
/// have kernels of their own), until the first launch of each wanted kernel is recorded. Element types are drawn.
fn record(op: &'static Contract, emulator: &Arc<Emulator>) {
    let Device::Cuda(gpu) = Device::cuda_over(emulator.clone()) else { unreachable!("a CUDA device") };
    let letters = free(op).len();
    let sizes = |size: &dyn Fn(usize) -> u32| (0..letters).map(size).collect::<Vec<u32>>();
    let one_long =
        |long: u32, short: u32| (0..letters).map(move |nth| sizes(&|at| if at == nth { long } else { short }));
    let shapes: Vec<Vec<u32>> = if letters > 3 {
        // Attention has kernels for widths of a head, some for whole steps of 16 alone: sequences are as long as heads are wide.
        const LONG: [u32; 4] = [112, 64, 32, 16];
        let both = LONG.map(|long| sizes(&|at| if at % 2 == 1 { long } else { 3 }));
        both.into_iter().chain(LONG.into_iter().flat_map(|long| one_long(long, 3))).collect()
    } else {
        std::iter::once(sizes(&|_| 70)).chain(one_long(300, 9)).collect()
    };
    for (seed, sizes) in (0..8).flat_map(|seed| shapes.iter().map(move |sizes| (seed, sizes.clone()))) {
        let missing = emulator.missing();
        let wanted = |variant: &Cuda| variant.launches.iter().any(|launch| missing.contains(launch.entry));
        if !op.cuda.iter().any(wanted) {
            return;
        }
        let Some(trial) = (Case { sizes, present: u32::MAX, seed }).trial(op).expect("a valid case") else { continue };
        for variant in op.cuda_for(&trial.dims, trial.dtype(), gpu.info().capability).filter(|variant| wanted(variant))
        {
            let device = Device::Cuda(gpu.clone().with_variant(variant.name));
            on_device::run(&trial, &device, Layout::Aligned).expect("runs");
        }
    }
}

/// Runs every product that goes on with stages, and two stages that no product precedes. Values do not matter: all are 0.
fn record_heads(emulator: &Arc<Emulator>) {
    let device = Device::cuda_over(emulator.clone());
    let run = |plan: Builder| plan.finish().expect("names differ").bind(&device).expect("small").run().expect("runs");
    let matrix = |plan: &mut Builder, name: &str, ArgShape { dtype, rows, cols }| {
        let buffer = plan.buffer(name, dtype, rows, cols, Life::State);
        plan.whole(buffer)
    };
    let gelu = |plan: &mut Builder, from: Slice, to: &str| {
        let to = matrix(plan, to, ArgShape { dtype: DType::F32, rows: from.rows, cols: from.cols });
        plan.call(&ops::pointwise::GELU, &[Some(from), Some(to)], &[]).expect("shapes agree");
        to
    };
    let launches = OPS
        .iter()
        .flat_map(|op| op.cuda.iter().flat_map(move |variant| variant.launches.iter().map(move |l| (*op, l))));
    for (op, head) in launches.filter_map(|(op, launch)| Some((op, launch.head?))) {
        let case =
            |seed| Case { sizes: vec![70, 40, 100], present: u32::MAX, seed }.trial(op).expect("valid").expect("some");
        let trial = (0..64).map(case).find(|trial| trial.dtype() == DType::F32).expect("one of many is of f32");
        let mut plan = Builder::new();
        let args: Vec<Option<Slice>> = op
            .args
            .iter()
            .zip(&trial.args)
            .map(|(arg, array)| array.shape().map(|shape| matrix(&mut plan, arg.name, shape)))
            .collect();
        plan.call(op, &args, &[]).expect("shapes agree");
        let to = op.args.iter().position(|arg| arg.name == head.to).and_then(|at| args[at]).expect("is written");
        gelu(&mut plan, to, "after");
        run(plan);
    }
    let mut plan = Builder::new();
    let x = matrix(&mut plan, "x", ArgShape { dtype: DType::F32, rows: 70, cols: 100 });
    let y = gelu(&mut plan, x, "y");
    gelu(&mut plan, y, "z");
    run(plan);
}

#[test]
fn kernels_have_no_races_and_a_missing_barrier_is_one() {
    let program = program(&folder());
    let text = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();
    let right = replay(&program, "shift", &fault("shift"));
    assert!(right.status.success(), "{}", text(&right));
    for entry in MISSING {
        let wrong = replay(&program, entry, &fault(entry));
        let report = text(&wrong);
        assert!(!wrong.status.success() && report.contains("data race"), "{entry}, {:?}: {report}", wrong.status);
        assert!(report.contains(entry) && report.contains("faults.cu"), "{report}");
    }

    let all: BTreeSet<String> = chosen().values().flat_map(|(_, entries)| entries).map(|s| (*s).to_owned()).collect();
    let emulator = Arc::new(Emulator::recording(Order::Ascending, all.clone()));
    record_heads(&emulator);
    let mut recorded = vec![("rows", emulator.recorded())];
    for op in OPS {
        record(op, &emulator);
        recorded.push((op.name, emulator.recorded()));
    }
    let queue = Mutex::new(recorded.into_iter());
    let next = || queue.lock().expect("nobody panics with it").next();
    let check = || {
        let mut ran = BTreeSet::new();
        while let Some((what, records)) = next() {
            let out = replay(&program, what, &records);
            assert!(out.status.success(), "{what}: {:?}\n{}", out.status, text(&out));
            ran.extend(String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned));
        }
        ran
    };
    let ran: BTreeSet<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers()).map(|_| scope.spawn(check)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no race")).collect()
    });
    let missing: Vec<_> = all.difference(&ran).collect();
    assert!(missing.is_empty(), "never ran: {missing:?}");
}
