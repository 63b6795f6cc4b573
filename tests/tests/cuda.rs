//! CUDA without a GPU: sources and PTX agree, kernels and host agree on every byte of an argument, programs run on the
//! emulator as on the CPU, and the emulator finds planted faults.

use dt::config::{Action, Config, Observation};
use engine::{Builder, CudaDevice, CudaLaunch, CudaMatrix, DType, Device, Error, Launcher, Life, Program};
use kernels::contract::ArgShape;
use kernels::contract::cuda::manifest::{HEADERS, PATH, manifest, modules};
use kernels::contract::cuda::rows::{Head, ROWS, ROWS_MODULE, THREADS};
use kernels::contract::cuda::{Module, PANEL, Target, members};
use kernels::trial::same_bits;
use kernels::{Access, Array, Contract, Cuda, Isa, OPS, Trial, bf16, f16, ops};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tsn_emulator::{Emulator, Order};
use tsn_tests::cases::{Case, free};
use tsn_tests::on_device::{self, Layout};
use tsn_tests::training::{Training, models, plan};

fn source(path: &str) -> Result<String, String> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src").join(path);
    std::fs::read_to_string(&full).map_err(|error| format!("{}: {error}", full.display()))
}

/// The compiler that a manifest names.
fn compiler(manifest: &str) -> &str {
    manifest.lines().find_map(|line| line.strip_prefix("compiler ")).expect("a manifest names its compiler")
}

#[test]
fn ptx_is_what_the_sources_gave() {
    let kept = source(PATH).expect("a manifest");
    let now = manifest(compiler(&kept), source).expect("every source and its PTX");
    assert_eq!(kept, now, "run cargo xtask ptx");
    for module in modules() {
        assert_eq!(source(&module.ptx_path()).as_deref(), Ok(module.ptx), "{}", module.name);
        let target = module.target.arch().replace("compute", ".target sm");
        assert!(module.ptx.contains(&target), "{}: not for {target}", module.name);
    }
}

#[test]
fn a_changed_source_is_found() {
    let kept = source(PATH).expect("a manifest");
    for path in HEADERS.into_iter().chain([modules()[0].path]) {
        let changed = |name: &str| source(name).map(|text| text + if name == path { " " } else { "" });
        assert_ne!(manifest(compiler(&kept), changed).expect("texts"), kept, "{path}");
    }
}

#[test]
fn every_launch_is_in_its_module() {
    let heads = |module: Module, head: Option<Head>| head.map(|head| (module, head.entry.to_owned(), THREADS));
    let mut all: Vec<(Module, String, u32)> = heads(ROWS_MODULE, Some(ROWS)).into_iter().collect();
    for Cuda { module, launches, .. } in OPS.iter().flat_map(|op| op.cuda) {
        for launch in *launches {
            all.push((*module, launch.entry.to_owned(), launch.threads));
            all.extend(launch.batched.then(|| (*module, launch.batch_entry(), launch.threads)));
            all.extend(heads(*module, launch.head));
        }
    }
    for (module, entry, threads) in all {
        let found = module.ptx.split_once(&format!(".entry {entry}("));
        let found = found.unwrap_or_else(|| panic!("{}: no {entry}", module.name));
        let head = found.1.split_once('{').expect("a body").0;
        let bound = format!(".maxntid {threads}, 1, 1");
        assert!(head.contains(&bound), "{entry}: launched with {threads} threads, compiled for {head}");
    }
}

/// A block's shared memory, what a kernel declares and what it is launched with, is there on every GPU that its module is for: on
/// those from 8.0 on but for 8.6 and 8.9 there is more.
#[test]
fn shared_memory_fits_every_gpu() {
    let resources = include_str!("../../kernels/src/cuda/resources.txt");
    let lines = || resources.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    for (op, Cuda { module, launches, .. }) in
        OPS.iter().flat_map(|op| op.cuda.iter().map(move |variant| (op, variant)))
    {
        let some = (0..64).find_map(|seed| {
            Case { sizes: vec![3; free(op).len()], present: u32::MAX, seed }.trial(op).expect("a case")
        });
        let dims = some.unwrap_or_else(|| panic!("{}: no valid case", op.name)).dims;
        let limit = if module.target == Target::Sm80 { 99 } else { 227 } << 10;
        for launch in *launches {
            let dynamic = launch.shared.map_or(0, |bytes| bytes(&dims));
            let fixed = lines().filter(|words| words[0] == launch.entry).map(|words| words[4].parse::<usize>());
            let fixed: Vec<usize> = fixed.collect::<Result<_, _>>().expect("a number");
            assert!(!fixed.is_empty(), "{} is not in the table", launch.entry);
            let all = dynamic + fixed.iter().max().expect("is there");
            assert!(all <= limit, "{}: {all} bytes of shared memory, at most {limit} are everywhere", launch.entry);
        }
    }
}

/// Element types that the CPU computes an op for, and for which no kernel has all sizes.
fn without_kernel(op: &Contract) -> Vec<DType> {
    let types = op.args[op.typed_arg()].dtypes;
    let whole = |variant: &&Cuda| variant.fits.is_none() && variant.module.target == Target::Sm80;
    let on_gpu: Vec<DType> = op.cuda.iter().filter(whole).map(|v| v.only.unwrap_or(types[0])).collect();
    let on_cpu = |dtype: &DType| op.variants(Isa::Scalar, *dtype).next().is_some();
    types.iter().copied().filter(|dtype| on_cpu(dtype) && !on_gpu.contains(dtype)).collect()
}

#[test]
fn every_op_has_a_kernel_for_all_types_and_sizes() {
    let all = OPS.iter().map(|op| (op.name, without_kernel(op)));
    let missing: Vec<_> = all.filter(|(_, types)| !types.is_empty()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // CONV has one variant on the CPU for f32 and u8, and one for f16.
    let op = &ops::conv::CONV;
    let of = |types: [Option<DType>; 2]| {
        let cuda = op.cuda.iter().copied().filter(|variant| types.contains(&variant.only)).collect::<Vec<_>>();
        without_kernel(&Contract { cuda: cuda.leak(), ..*op })
    };
    assert_eq!(of([None, Some(DType::U8)]), [DType::F16]);
    assert_eq!(of([None, Some(DType::F16)]), [DType::U8]);
    assert_eq!(of([Some(DType::U8), Some(DType::F16)]), [DType::F32]);
}

/// Warpgroups multiply on one capability, and only where there are tiles for many processors.
#[test]
fn a_variant_is_chosen_for_the_sizes_that_it_is_made_for() {
    let chosen = |rows, capability| {
        let op = &ops::masked_gemm::MASKED_GEMM;
        let shape = |dtype, rows, cols| Some(ArgShape { dtype, rows, cols });
        let [x, w] = [rows, 512].map(|rows| shape(DType::Bf16, rows, 64));
        let (mask, y) = (shape(DType::Bits, 512, 64), shape(DType::F32, rows, 512));
        let dims = op.unify(&[x, w, mask, None, None, y], &[]).expect("shapes agree");
        let best = op.cuda_for(&dims, DType::Bf16, capability).rfind(|variant| variant.suits(&dims));
        best.expect("a variant").name
    };
    let found = [(4096, (9, 0)), (4096, (8, 0)), (4096, (10, 0)), (100, (9, 0))].map(|(rows, on)| chosen(rows, on));
    assert_eq!(found, ["wgmma_bf16", "mma_wide_bf16", "mma_wide_bf16", "mma_bf16"]);
    let attention = |op: &'static Contract, dtype, t: u32, width: u32, capability| {
        let shape = |dtype, rows, cols| Some(ArgShape { dtype, rows, cols });
        let [y, stats, dqkv] = [2 * width, 2, 6 * width].map(|cols| shape(DType::F32, t, cols));
        let [qkv, dy] = [6 * width, 2 * width].map(|cols| shape(dtype, t, cols));
        let args = [qkv, shape(DType::U8, 1, t), None, y, stats, dy, dqkv];
        let dims = op.unify(&args[..op.args.len()], &[2, 0, 0]).expect("shapes agree");
        let best = op.cuda_for(&dims, dtype, capability).rfind(|variant| variant.suits(&dims));
        best.expect("a variant").name
    };
    for op in [&ops::attention::ATTENTION, &ops::attention::ATTENTION_DX] {
        let found = [(128, 64, (9, 0)), (128, 40, (9, 0)), (128, 64, (8, 0)), (60, 64, (9, 0)), (60, 200, (9, 0))]
            .map(|(t, width, on)| attention(op, DType::F16, t, width, on));
        assert_eq!(found, ["wgmma_f16", "mma_f16", "mma_f16", "mma_f16", "plain_f16"], "{}", op.name);
        assert_eq!(attention(op, DType::F32, 128, 64, (9, 0)), "tiled", "{}", op.name);
    }
}

/// What the C++ compiler makes of `args.h` is what the host writes.
#[test]
fn arguments_are_laid_out_as_the_compiler_does() {
    let compiled: Vec<_> = tsn_emulator::members().collect();
    let mut count = 0;
    for op in OPS {
        let own = members(op);
        let last = own.last().expect("a member");
        let size = (last.offset + if last.kind.ends_with('*') { 8 } else { 4 }).next_multiple_of(8);
        for member in own {
            let theirs =
                compiled.iter().find(|m| m.op == op.name && m.name == member.name).expect("listed for every op");
            assert_eq!((theirs.offset, theirs.size), (member.offset, size), "{} {}", op.name, member.name);
            count += 1;
        }
    }
    assert_eq!(count, compiled.len());
}

fn device(order: Order) -> Device {
    Device::cuda_over(Arc::new(Emulator::new(order)))
}

fn sum(device: &Device) -> Program {
    let mut plan = Builder::new();
    let [x, y] = [("x", Life::State), ("y", Life::State)].map(|(name, life)| plan.buffer(name, DType::F32, 3, 5, life));
    let [x, y] = [x, y].map(|buffer| plan.whole(buffer));
    plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
    plan.call(&ops::pointwise::GELU, &[Some(y), Some(x)], &[]).expect("shapes agree");
    plan.finish().expect("names differ").bind(device).expect("a small plan")
}

/// The first run launches, the second captures, later ones replay.
#[test]
fn a_replayed_graph_gives_the_bits_of_its_launches() {
    let [mut graph, mut apart] = [(); 2].map(|()| sum(&device(Order::Ascending)));
    for program in [&mut graph, &mut apart] {
        program.write("x", &[0.5f32; 15]).expect("15 elements");
    }
    for run in 0..4 {
        graph.run().expect("runs");
        apart.run_apart().expect("runs");
        assert_eq!(graph.read_vec::<f32>("x"), apart.read_vec::<f32>("x"), "run {run}");
    }
}

#[test]
fn a_program_is_checked_and_timed_call_by_call() {
    let mut program = sum(&device(Order::Scattered));
    program.write("x", &[1.5f32; 15]).expect("15 elements");
    program.check().expect("agrees with f64");
    let profile = program.profile(3).expect("a profile");
    let mut rows: Vec<_> = profile.ops.iter().map(|row| (row.op, row.variant, row.calls, row.us > 0.0)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [("add", "plain", 1, true), ("gelu", "plain", 1, true)]);
    assert!(program.stamped(3).expect("a clock").expect("the device has one") > 0.0);
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let mut plan = Builder::new();
    let x = plan.buffer("x", DType::F32, 1 << 16, 1 << 16, Life::State);
    let x = plan.whole(x);
    plan.call(&ops::pointwise::FILL, &[Some(x)], &[0]).expect("shapes agree");
    let error = plan.finish().expect("names differ").bind(&device(Order::Ascending)).map(|_| ()).expect_err("16 GiB");
    assert!(matches!(&error, Error::DeviceMemory { bytes: 17_179_869_184, free, .. } if *free > 0), "{error}");
}

const FAULTS: Module = Module { name: "faults", path: "", ptx: "", target: Target::Sm80 };

/// The 64 elements that a kernel of `faults.cu` leaves.
fn faulty(entry: &'static str, order: Order) -> Result<Vec<u32>, Error> {
    let emulator = Emulator::new(order);
    let y = emulator.alloc(256)?;
    let argument = [y.to_ne_bytes(), 64u64.to_ne_bytes()].concat();
    let function = emulator.function(&FAULTS, entry, 256)?;
    let (grid, maps) = ([1, 1, 1], Vec::new());
    emulator.launch(&CudaLaunch { function, grid, threads: 64, shared_bytes: 256, argument, maps })?;
    let mut bytes = vec![0; 256];
    emulator.download(y, &mut bytes)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_ne_bytes(*b)).collect())
}

const SQUARES: Module = Module { name: "faults_async", ..FAULTS };

/// The 64 elements that a kernel of `faults_async.cu` leaves.
fn square(entry: &'static str, order: Order) -> Result<Vec<f32>, Error> {
    let emulator = Emulator::new(order);
    let (y, x) = (emulator.alloc(256)?, emulator.alloc(PANEL as usize * 128)?);
    let values: Vec<u8> = (0..PANEL * PANEL).flat_map(|at| element(at / PANEL, at % PANEL).to_ne_bytes()).collect();
    emulator.upload(x, &values)?;
    let matrix = CudaMatrix { address: x, rows: PANEL, cols: PANEL, pitch_bytes: 128 };
    let argument = [y.to_ne_bytes(), x.to_ne_bytes()].concat();
    let maps = emulator.tensor_map(&matrix)?.to_vec();
    let shared_bytes = 1024 + 256 + 2 * 8192 + 8;
    let function = emulator.function(&SQUARES, entry, shared_bytes)?;
    emulator.launch(&CudaLaunch { function, grid: [1, 1, 1], threads: 128, shared_bytes, argument, maps })?;
    let mut bytes = vec![0; 256];
    emulator.download(y, &mut bytes)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect())
}

fn element(row: u32, col: u32) -> bf16 {
    bf16::from_f32(((row + 3 * col * col) % 7) as f32)
}

#[test]
fn a_product_of_a_warpgroup_is_right_and_one_with_a_fault_is_not() {
    let x = |row, col| f32::from(element(row, col));
    let expected: Vec<f32> = (0..PANEL).map(|c| (0..PANEL).map(|k| x(5, k) * x(c, k)).sum()).collect();
    let not_a_number =
        ["unfenced_stores", "plain_stores", "early_product", "early_sums", "overwritten_tile", "overwritten_registers"];
    let other = ["chunks_in_order", "other_stride", "turned_tile", "unaligned_tile"];
    for order in Order::ALL {
        let run = |entry| square(entry, order).unwrap_or_else(|error| panic!("{entry}: {error}"));
        for entry in ["square_right", "left_in_registers"] {
            assert_eq!(run(entry), expected, "{entry}, {order:?}");
        }
        for entry in not_a_number {
            assert!(run(entry).iter().any(|v| v.is_nan()), "{entry}, {order:?}");
        }
        for entry in other {
            assert_ne!(run(entry), expected, "{entry}, {order:?}");
        }
    }
}

#[test]
fn a_missing_barrier_changes_results_with_the_order() {
    let results = |entry| Order::ALL.map(|order| faulty(entry, order).expect("ends"));
    let [first, others @ ..] = results("shift");
    assert!(others.iter().all(|other| *other == first));
    let expected: Vec<u32> = (0..64u8).map(|n| f32::from((n + 1) % 64).to_bits()).collect();
    assert_eq!(first, expected);
    let distinct: BTreeSet<Vec<u32>> = results("no_barrier").into_iter().collect();
    assert!(distinct.len() > 1);
}

#[test]
fn unwritten_shared_memory_is_not_a_number() {
    let got = faulty("unwritten_shared", Order::Ascending).expect("ends");
    assert!(got.iter().all(|bits| f32::from_bits(*bits).is_nan()));
}

#[test]
fn a_copy_that_was_not_waited_for_is_not_a_number() {
    let got = faulty("early_read", Order::Ascending).expect("ends");
    assert!(got.iter().all(|bits| f32::from_bits(*bits).is_nan()));
}

#[test]
fn fragments_that_are_mixed_up_change_a_product() {
    let product = |m: u32, n: u32| (0..16).map(|k| (m + 3 * k) % 7 * ((2 * k + n) % 5)).sum::<u32>();
    let expected: Vec<u32> = (0..64).map(|at| (product(at / 8, at % 8) as f32).to_bits()).collect();
    for order in Order::ALL {
        let run = |entry| faulty(entry, order).expect("ends");
        for entry in ["fragments", "fragments_f16"] {
            assert_eq!(run(entry), expected, "{entry}, {order:?}");
        }
        for entry in ["mixed_fragments", "foreign_fragments"] {
            assert_ne!(run(entry), expected, "{entry}, {order:?}");
        }
    }
}

#[test]
fn writing_behind_an_allocation_loses_the_device() {
    let error = faulty("behind_the_end", Order::Ascending).expect_err("found at the next copy");
    assert!(matches!(&error, Error::Lost { cause, .. } if cause.contains("outside an allocation")), "{error}");
}

/// Names the fault that a process is to run.
const CHILD: &str = "TSN_TEST_FAULT";

/// Starts itself once for each fault, with its name in the environment, and then runs that.
#[test]
fn what_would_hang_or_be_undefined_ends_the_process_and_is_named() {
    let faults = [
        ("divergent_barrier", "__syncthreads is not reached by every thread", "thread 0"),
        ("outside_mask", "a shuffle reads a lane outside its mask", "thread 0"),
        ("missing_lanes", "a warp operation is not reached by its lanes", "thread 0"),
        ("endless_copy", "a copy is never waited for", "thread 0"),
        ("behind_shared", "dynamic shared memory is written behind its end", "thread 0"),
    ];
    let of_squares = [
        ("unfenced_barrier", "an mbarrier was not fenced before a bulk copy uses it", "thread 0"),
        ("unordered_sums", "a group of products without wgmma.fence before it", "thread 0"),
        ("more_bytes", "a phase of an mbarrier never ends", "thread 0"),
        ("fewer_bytes", "more bytes arrive at an mbarrier than it expects", "thread"),
        ("missing_arrival", "a phase of an mbarrier never ends", "thread 0"),
        ("one_arrival_more", "an mbarrier is arrived at too often", "thread 0"),
        ("missing_warp", "a product is not reached by its warpgroup", "thread 0"),
        ("endless_bulk_copy", "a bulk copy is never waited for", "thread"),
        ("endless_product", "a product is never waited for", "thread"),
        ("no_map", "a bulk copy has no tensor map", "thread 0"),
    ];
    if let Ok(name) = std::env::var(CHILD) {
        let named = |(fault, ..): &&(&str, &str, &str)| *fault == name;
        match (faults.iter().find(named), of_squares.iter().find(named)) {
            (Some(known), _) => panic!("not found: {:?}", faulty(known.0, Order::Ascending)),
            (_, known) => panic!("not found: {:?}", square(known.expect("a fault").0, Order::Ascending)),
        }
    }
    for (fault, what, thread) in faults.into_iter().chain(of_squares) {
        let own = std::env::current_exe().expect("this program");
        let test = "what_would_hang_or_be_undefined_ends_the_process_and_is_named";
        let out = Command::new(own).args(["--exact", test]).env(CHILD, fault).output().expect("runs");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{fault} was not found");
        let expected = format!("emulator: {what}: kernel {fault}, block (0,0,0), {thread}");
        assert!(text.contains(&expected), "{fault}: {text}");
    }
}

/// Drawn cases have too few rows and columns for the wide tiles of products.
#[test]
fn wide_tiles_give_what_others_give() {
    let gpu = CudaDevice::over(Arc::new(Emulator::new(Order::Scattered)));
    for (op, wide) in OPS.iter().flat_map(|op| op.cuda.iter().map(move |variant| (op, variant))) {
        if !wide.name.contains("_wide") {
            continue;
        }
        let summed = |letter: char| op.args.iter().all(|arg| arg.access == Access::Read || !arg.dims.contains(&letter));
        // Many rows of tiles, one column and one or two steps, all of which end inside the last.
        let mut sides = [16_290, 40].into_iter();
        let sizes: Vec<u32> =
            free(op).into_iter().map(|letter| if summed(letter) { 20 } else { sides.next().unwrap_or(1) }).collect();
        // The element type is drawn before anything of these sizes is.
        let dtype = wide.only.unwrap_or(DType::F32);
        let of =
            |sizes: &[u32], seed| Case { sizes: sizes.to_vec(), present: u32::MAX, seed }.trial(op).expect("a case");
        let seed = (0..64).find(|seed| of(&vec![3; sizes.len()], *seed).is_some_and(|trial| trial.dtype() == dtype));
        let trial = of(&sizes, seed.expect("one of many has this element type")).expect("sizes that are not 0");
        assert_eq!(trial.dtype(), dtype);
        assert!(wide.fits.is_some_and(|fits| fits(&trial.dims)), "{} {}", op.name, wide.name);
        let small = wide.name.replace("_wide", "");
        let [got, expected] = [wide.name, &*small].map(|name| {
            on_device::run(&trial, &Device::Cuda(gpu.clone().with_variant(name)), Layout::Aligned).expect("runs")
        });
        assert!(same_bits(&got, &expected), "{} {}: not the bits of {small}", op.name, wide.name);
    }
}

/// Drawn cases with wide heads have few tokens: here blocks go round their ring, and every width of a tile is there. A sequence of
/// no numbers behind another does not reach it.
#[test]
fn tensor_cores_attend_over_many_chunks() {
    for op in [&ops::attention::ATTENTION, &ops::attention::ATTENTION_DX] {
        for (dtype, plain, name) in [(DType::F32, "plain", "mma"), (DType::F16, "plain_f16", "wgmma_f16")] {
            for sizes in [[2, 330, 1, 16], [2, 200, 2, 32], [2, 150, 1, 48], [2, 130, 1, 128]] {
                attends(op, dtype, [plain, name], &sizes);
            }
        }
    }
}

fn second_half<T>(v: &mut [T]) -> &mut [T] {
    let half = v.len() / 2;
    &mut v[half..]
}

/// Values of a variant, with dropout, against f64 and those of a plain one; bits of other orders and beside what is no number.
fn attends(op: &'static Contract, dtype: DType, [plain, name]: [&'static str; 2], sizes: &[u32]) {
    let of = |sizes: &[u32], seed| {
        Case { sizes: sizes.to_vec(), present: u32::MAX, seed }
            .trial(op)
            .expect("a case")
            .expect("sizes that are not 0")
    };
    let drops = |trial: &Trial| trial.dtype() == dtype && f32::from_bits(trial.dims.scalar(1)) > 0.0;
    let seed = (0..64).find(|seed| drops(&of(&[1; 4], *seed))).expect("one of many has this type and dropout");
    let trial = of(sizes, seed);
    let run = |trial: &Trial, order, name, layout| {
        let gpu = CudaDevice::over(Arc::new(Emulator::new(order))).with_variant(name);
        on_device::run(trial, &Device::Cuda(gpu), layout).expect("runs")
    };
    let reference = trial.reference();
    let plain_values = run(&trial, Order::Ascending, plain, Layout::Aligned);
    let errors = trial.judge(plain, &plain_values, &reference, None).expect("agrees with f64");
    let got = run(&trial, Order::Ascending, name, Layout::Odd);
    trial.judge(name, &got, &reference, Some(&errors)).expect("agrees with f64");
    for order in [Order::Descending, Order::Scattered] {
        let other = run(&trial, order, name, Layout::Aligned);
        assert!(same_bits(&got, &other), "{} {name}, {sizes:?}: bits differ in {order:?}", op.name);
    }
    let mut spoiled = trial.clone();
    for (arg, array) in op.args.iter().zip(&mut spoiled.args) {
        match array {
            _ if arg.access == Access::Write => {}
            Array::F16(_, _, v) => second_half(v).fill(f16::NAN),
            Array::F32(_, _, v) => second_half(v).fill(f32::NAN),
            _ => {}
        }
    }
    let again = run(&spoiled, Order::Scattered, name, Layout::Aligned);
    let first = |arrays: &[Array]| -> Vec<Array> {
        let written = op.args.iter().zip(arrays).filter(|(arg, _)| arg.access == Access::Write);
        let half = |v: &[f32]| Array::F32(1, v.len() / 2, v[..v.len() / 2].to_vec());
        written.map(|(_, array)| half(array.f32())).collect()
    };
    assert!(same_bits(&first(&got), &first(&again)), "{} {name}, {sizes:?}: sequences meet", op.name);
}

/// Steps over which the emulator has to stay with the CPU.
const STEPS: u32 = 10;

/// A run of all calls has launches of many calls, a run call by call has none: the same bits. In long sequences weight
/// gradients are sums of parts.
#[test]
fn launches_of_many_calls_give_the_bits_of_one_for_each() {
    let long = ("long", Config { context: 30, ..models()[0].1 });
    for (name, config) in models().into_iter().chain([long]) {
        let [mut whole, mut apart] =
            [Order::Scattered, Order::Descending].map(|order| Training::new(&config, &device(order)));
        for step in 0..3 {
            whole.run(step, step + 1);
            apart.run_apart(step, step + 1);
            assert_eq!(whole.digest(), apart.digest(), "{name}, step {step}");
        }
    }
}

/// The step that trains the CartPole task (three blocks of width 128, masks from scores).
#[test]
fn a_training_step_is_few_launches() {
    let cartpole =
        Config { width: 128, layers: 3, heads: 4, ..Config::new(Observation::Vector(4), Action::Discrete(2)) };
    let program = plan(&cartpole, 64).bind(&device(Order::Ascending)).expect("a small plan");
    let (calls, launches) = (program.plan().len(), program.launches());
    assert!(launches <= 58, "{calls} calls are {launches} launches");
}

/// Models of all kinds: losses to rounding, masks to the bit.
#[test]
fn training_agrees_with_the_cpu() {
    for (name, config) in models() {
        let mut ours = Training::new(&config, &device(Order::Scattered));
        let mut cpu = Training::new(&config, &Device::cpu(1));
        for step in 0..STEPS {
            ours.run(step, step + 1);
            cpu.run(step, step + 1);
            let [found, expected] = [ours.loss(), cpu.loss()];
            assert!((found - expected).abs() <= 1e-4 * expected.abs(), "{name}, step {step}: {found}, not {expected}");
            let [found, expected] = [ours.masks(), cpu.masks()];
            assert!(!expected.is_empty() && found == expected, "{name}, step {step}: masks differ");
        }
    }
}
