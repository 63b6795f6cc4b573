//! CUDA kernels under ThreadSanitizer: every kernel once, at an awkward size, is recorded on the emulator and runs again in a
//! program that a compiler has instrumented. A missing barrier is a data race there, with the lines of the kernel.
//!
//! `RACES_IN=folder` keeps the program and the recorded launches in a folder.

use engine::{CudaLaunch, Device, Launcher};
use kernels::contract::cuda::{Module, Target};
use kernels::{Contract, OPS};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tsn_emulator::{Emulator, Order, UNITS};
use tsn_tests::cases::{Case, free};
use tsn_tests::on_device::{self, Layout};

fn folder() -> PathBuf {
    let folder = std::env::var_os("RACES_IN")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("races"), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("a folder for the program");
    folder
}

/// Compiles one unit, or links all.
fn compiler(with: impl FnOnce(&mut Command) -> &mut Command) {
    let emulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command.args(["-fsanitize=thread", "-g1", "-O1", "-std=c++17", "-march=x86-64-v3", "-ffp-contract=off"]);
    command
        .args(["-DHOST_CUDA", "-Wno-tsan", "-I"])
        .arg(&emulator)
        .arg("-I")
        .arg(emulator.join("../../kernels/src/cuda"));
    with(&mut command);
    let out = command.output().expect("a C++ compiler");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The program that runs recorded launches.
fn program(folder: &Path) -> PathBuf {
    let emulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
    let generated = std::fs::read_dir(UNITS).expect("units").map(|entry| entry.expect("an entry").path());
    let generated = generated.filter(|path| path.extension().is_some_and(|ending| ending == "cpp"));
    let units: Vec<PathBuf> = generated.chain(["runtime.cpp", "replay.cpp"].map(|name| emulator.join(name))).collect();
    let object = |unit: &Path| folder.join(unit.file_name().expect("a file")).with_extension("o");
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for part in units.chunks(units.len().div_ceil(workers)) {
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
fn replay(program: &Path, records: &[u8]) -> Output {
    let file = program.with_extension("launches");
    std::fs::write(&file, records).expect("a file of launches");
    Command::new(program).arg(&file).env("TSAN_OPTIONS", "halt_on_error=0 exitcode=66").output().expect("runs")
}

fn fault(entry: &'static str) -> Vec<u8> {
    const FAULTS: Module = Module { name: "faults", path: "", ptx: "", target: Target::Sm80 };
    let emulator = Emulator::recording(Order::Ascending);
    let y = emulator.alloc(256).expect("256 bytes");
    let argument = [y.to_ne_bytes(), 64u64.to_ne_bytes()].concat();
    let function = emulator.function(&FAULTS, entry, 256).expect("a kernel");
    let launch = CudaLaunch { function, grid: [1, 1, 1], threads: 64, shared_bytes: 256, argument };
    emulator.launch(&launch).expect("ends");
    emulator.recorded()
}

/// Every variant of an op, at sizes with several tiles each way, then with one letter long: products of few rows, or of many
/// summed rows, have kernels of their own. The emulator keeps the first launch of each kernel. Element types are drawn.
fn record(op: &'static Contract, emulator: &Arc<Emulator>) {
    let Device::Cuda(gpu) = Device::cuda_over(emulator.clone()) else { unreachable!("a CUDA device") };
    let letters = free(op).len();
    let [usual, short, long] = if letters > 3 { [7, 3, 20] } else { [70, 9, 300] };
    let one_long = (0..letters).map(|nth| (0..letters).map(|at| if at == nth { long } else { short }).collect());
    let shapes: Vec<Vec<u32>> = std::iter::once(vec![usual; letters]).chain(one_long).collect();
    for (seed, sizes) in (0..4).flat_map(|seed| shapes.iter().map(move |sizes| (seed, sizes.clone()))) {
        let Some(trial) = (Case { sizes, present: u32::MAX, seed }).trial(op).expect("a valid case") else { continue };
        for variant in op.cuda_for(&trial.dims, trial.dtype(), gpu.info().capability) {
            let device = Device::Cuda(gpu.clone().with_variant(variant.name));
            on_device::run(&trial, &device, Layout::Aligned).expect("runs");
        }
    }
}

#[test]
fn kernels_have_no_races_and_a_missing_barrier_is_one() {
    let program = program(&folder());
    let text = |out: &Output| String::from_utf8_lossy(&out.stderr).into_owned();
    let right = replay(&program, &fault("shift"));
    assert!(right.status.success(), "{}", text(&right));
    let wrong = replay(&program, &fault("no_barrier"));
    let report = text(&wrong);
    assert!(!wrong.status.success() && report.contains("data race"), "{:?}: {report}", wrong.status);
    assert!(report.contains("no_barrier") && report.contains("faults.cu"), "{report}");

    let emulator = Arc::new(Emulator::recording(Order::Ascending));
    let mut ran = BTreeSet::new();
    for op in OPS.iter().filter(|op| !op.cuda.is_empty()) {
        record(op, &emulator);
        let out = replay(&program, &emulator.recorded());
        assert!(out.status.success(), "{}: {:?}\n{}", op.name, out.status, text(&out));
        ran.extend(String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned));
    }
    let all = OPS.iter().flat_map(|op| op.cuda).flat_map(|variant| variant.launches);
    let missing: Vec<_> = all.map(|launch| launch.entry).filter(|entry| !ran.contains(*entry)).collect();
    // These need more tiles than a test can have; their code is that of the tiles beside them.
    let others: Vec<_> = missing.iter().filter(|entry| !entry.contains("_wide")).collect();
    assert!(others.is_empty(), "never ran: {others:?}");
}
