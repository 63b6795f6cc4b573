//! A plan on a CUDA device.

use super::launcher::{CudaDevice, CudaLaunch, CudaMatrix, Launcher};
use super::order::{Order, Step, order};
use crate::arena::ALIGN;
use crate::error::{Error, Result};
use crate::layout::{Layout, Place, Space, View, Work, lay_out, view};
use crate::plan::{Plan, RecordedCall};
use kernels::Cuda;
use kernels::contract::cuda::{self, MAP_BYTES, MAX_BLOCKS_YZ, Part, argument_bytes, batch_bytes};
use std::ops::Range;
use std::sync::Arc;

/// Most blocks in the first dimension of a grid.
const MAX_BLOCKS_X: u32 = i32::MAX as u32;

/// A plan on a CUDA device.
pub(crate) struct Bound {
    calls: Vec<BoundCall>,
    /// All calls, launches of one kernel that need nothing of each other as one.
    whole: Vec<CudaLaunch>,
    places: Vec<Place>,
    state: Memory,
    step: Memory,
    /// What launches of many calls read.
    batches: Memory,
    replay: Replay,
    launcher: Arc<dyn Launcher>,
}

struct BoundCall {
    variant: &'static Cuda,
    views: Vec<Option<View>>,
    arguments: Vec<Option<cuda::Place>>,
    argument: Vec<u8>,
    launches: Vec<CudaLaunch>,
}

/// How a run of all calls is submitted.
enum Replay {
    /// Call by call: the driver may still load what a kernel needs.
    Warming,
    /// Captured after the first run.
    Next,
    Graph(Graph),
}

impl Bound {
    /// Puts the calls of the plan in the order in which they run.
    ///
    /// # Errors
    /// [`Error::NoKernel`] lists what has no kernel for this device; [`Error::DeviceMemory`]; [`Error::Limit`] names a
    /// grid that is too large; [`Error::OldDriver`] or [`Error::Gpu`] if the driver refuses a kernel.
    pub(crate) fn new(plan: &mut Plan, device: &CudaDevice) -> Result<Bound> {
        let launcher = device.launcher.clone();
        let mut variants = plan.choose("cuda", |call| best(plan, call, device))?;
        let Order { groups, used } = order(plan, &mut variants);
        let need = |(call, (recorded, variant)): (usize, (&RecordedCall, &&'static Cuda))| {
            let bytes = |work: fn(&kernels::Dims) -> usize| work(&recorded.dims).saturating_mul(4);
            variant.work.map(|work| Work { call, used: used[call], bytes: bytes(work) })
        };
        let works: Vec<Work> = plan.calls.iter().zip(&variants).enumerate().filter_map(need).collect();
        let whole = usize::MAX / ALIGN * ALIGN;
        let Layout { places, works: offsets, state_bytes, step_bytes } = lay_out(plan, &works, whole)?;
        let [state, step] = [state_bytes, step_bytes];
        let state = Memory::zeroed(&launcher, state)?;
        let step = Memory::zeroed(&launcher, step)?;
        let base = |space| if space == Space::State { state.address } else { step.address };
        let mut calls = Vec::new();
        for (call, (recorded, variant)) in plan.calls.iter().zip(variants).enumerate() {
            let views: Vec<Option<View>> = recorded.args.iter().map(|s| s.map(|s| view(plan, &places, &s))).collect();
            let place = |v: &View| cuda::Place { address: base(v.space) + v.at as u64, ld: v.ld as u32 };
            let arguments: Vec<Option<cuda::Place>> = views.iter().map(|v| v.as_ref().map(place)).collect();
            let work = works.iter().position(|w| w.call == call).map_or(0, |nth| step.address + offsets[nth] as u64);
            let argument = argument_bytes(recorded.op, &recorded.dims, &arguments, work);
            calls.push(BoundCall { variant, views, arguments, argument, launches: Vec::new() });
        }
        for step in groups.iter().flatten() {
            let launch = launch(&*launcher, &plan.calls[step.call], &calls[step.call], step)?;
            calls[step.call].launches.push(launch);
        }
        let (whole, batches) = whole_run(&launcher, plan, &calls, &groups)?;
        Ok(Bound { calls, whole, places, state, step, batches, replay: Replay::Warming, launcher })
    }

    /// Submits some calls; all of them, from the second time on, as one graph.
    pub(crate) fn run(&mut self, calls: Range<usize>) -> Result<()> {
        if calls != (0..self.calls.len()) {
            return self.submit(self.calls[calls].iter().flat_map(|call| &call.launches));
        }
        match &self.replay {
            Replay::Graph(graph) => graph.replay(),
            Replay::Warming => {
                self.submit(&self.whole)?;
                self.replay = Replay::Next;
                Ok(())
            }
            Replay::Next => {
                let graph = Graph::capture(&self.launcher, &self.whole.iter().collect::<Vec<&CudaLaunch>>())?;
                graph.replay()?;
                self.replay = Replay::Graph(graph);
                Ok(())
            }
        }
    }

    fn submit<'l>(&self, launches: impl IntoIterator<Item = &'l CudaLaunch>) -> Result<()> {
        launches.into_iter().try_for_each(|launch| self.launcher.launch(launch))
    }

    /// Launches of a run of all calls: the nodes of its graph.
    pub(crate) fn launches(&self) -> usize {
        self.whole.len()
    }

    /// Runs every call once; microseconds of each by the device's clock.
    pub(crate) fn stamped_run(&mut self) -> Result<Vec<f64>> {
        self.launcher.timed(self.calls.len(), &mut |call| self.submit(&self.calls[call].launches))
    }

    /// Runs all calls some times; microseconds of all of it by the device's clock.
    pub(crate) fn stamped_repeats(&mut self, repeats: u64) -> Result<f64> {
        // The graph must exist before the clock starts.
        while !matches!(self.replay, Replay::Graph(_)) {
            self.run(0..self.calls.len())?;
        }
        let launcher = self.launcher.clone();
        let times = launcher.timed(1, &mut |_| (0..repeats).try_for_each(|_| self.run(0..self.calls.len())))?;
        Ok(times.iter().sum())
    }

    pub(crate) fn wait(&self) -> Result<()> {
        self.launcher.wait()
    }

    /// Bytes of a buffer.
    pub(crate) fn read(&self, buffer: usize, bytes: usize) -> Result<Vec<u8>> {
        let Place { space, at } = self.places[buffer];
        self.memory(space).read(at, bytes)
    }

    pub(crate) fn write(&mut self, buffer: usize, bytes: &[u8]) -> Result<()> {
        let Place { space, at } = self.places[buffer];
        self.memory(space).write(at, bytes)
    }

    /// An argument as it is placed, and its bytes from the first to the last element.
    pub(crate) fn argument(&self, call: usize, arg: usize) -> Result<Option<(View, Vec<u8>)>> {
        let Some(view) = self.calls[call].views[arg] else { return Ok(None) };
        Ok(Some((view, self.memory(view.space).read(view.at, view.end() - view.at)?)))
    }

    pub(crate) fn variant(&self, call: usize) -> &'static str {
        self.calls[call].variant.name
    }

    pub(crate) fn arena_bytes(&self) -> [usize; 3] {
        [self.state.bytes, self.step.bytes, self.batches.bytes]
    }

    fn memory(&self, space: Space) -> &Memory {
        match space {
            Space::State => &self.state,
            Space::Step | Space::Prepared => &self.step,
        }
    }
}

/// The variant that is wanted for a call, or the best one.
fn best(plan: &Plan, call: &RecordedCall, device: &CudaDevice) -> Option<&'static Cuda> {
    let all = || call.op.cuda_for(&call.dims, plan.first_dtype(call), device.info().capability);
    let wanted = device.wanted().and_then(|name| all().find(|variant| variant.name == name));
    wanted.or_else(|| all().rfind(|variant| variant.suits(&call.dims)))
}

/// A launch of one call.
fn launch(launcher: &dyn Launcher, call: &RecordedCall, bound: &BoundCall, step: &Step) -> Result<CudaLaunch> {
    let Step { launch, grid, .. } = *step;
    for (found, limit) in grid.into_iter().zip([MAX_BLOCKS_X, MAX_BLOCKS_YZ, MAX_BLOCKS_YZ]) {
        if found > limit {
            let what = format!("blocks of {} {}", call.op.name, launch.entry);
            return Err(Error::Limit { what, found: found.into(), limit: limit.into() });
        }
    }
    let shared = launch.shared.map_or(0, |bytes| bytes(&call.dims));
    let shared_bytes = u32::try_from(shared).map_err(|_| {
        let what = format!("bytes of shared memory of {} {}", call.op.name, launch.entry);
        Error::Limit { what, found: shared as u64, limit: u32::MAX.into() }
    })?;
    let function = launcher.function(&bound.variant.module, launch.entry, shared_bytes)?;
    let mut maps = Vec::new();
    for name in launch.maps {
        maps.extend(tensor_map(launcher, call, bound, name)?);
    }
    Ok(CudaLaunch { function, grid, threads: launch.threads, shared_bytes, argument: bound.argument.clone(), maps })
}

/// The tensor map of an argument; zero if its kernel has to read it otherwise.
fn tensor_map(launcher: &dyn Launcher, call: &RecordedCall, bound: &BoundCall, name: &str) -> Result<[u8; MAP_BYTES]> {
    let arg = call.op.args.iter().position(|arg| arg.name == name);
    let Some((view, place)) = arg.and_then(|arg| bound.views[arg].as_ref().zip(bound.arguments[arg])) else {
        return Ok([0; MAP_BYTES]);
    };
    let pitch_bytes = u64::from(place.ld) * view.dtype.unit_bytes() as u64;
    let matrix = CudaMatrix { address: place.address, rows: view.rows as u32, cols: view.cols as u32, pitch_bytes };
    match matrix.rows > 0 && matrix.cols > 0 && (place.address | pitch_bytes).is_multiple_of(16) {
        true => launcher.tensor_map(&matrix),
        false => Ok([0; MAP_BYTES]),
    }
}

/// The launches of all calls, a group as one, and the memory of what those read: structs of the calls of a group, then where the
/// blocks of each begin.
fn whole_run(
    launcher: &Arc<dyn Launcher>,
    plan: &Plan,
    calls: &[BoundCall],
    groups: &[Vec<Step>],
) -> Result<(Vec<CudaLaunch>, Memory)> {
    let argument = |step: &Step| &calls[step.call].argument;
    let size = |group: &Vec<Step>| group.iter().map(|step| argument(step).len() + size_of::<Part>()).sum::<usize>();
    let batch = |group: &&Vec<Step>| group.len() > 1;
    let bytes = groups.iter().filter(batch).map(|group| size(group).next_multiple_of(ALIGN)).sum();
    let memory = Memory::zeroed(launcher, bytes)?;
    let mut at = 0;
    let mut whole = Vec::new();
    for group in groups {
        let one = launch(&**launcher, &plan.calls[group[0].call], &calls[group[0].call], &group[0])?;
        if group.len() == 1 {
            whole.push(one);
            continue;
        }
        let mut first = 0;
        let mut part = |step: &Step| {
            let part: Part = [first, step.grid[0], step.grid[1]];
            // A group has at most a full one's blocks and those of one more launch.
            first = first.saturating_add(u32::try_from(step.blocks()).unwrap_or(u32::MAX));
            part
        };
        let parts: Vec<u8> = group.iter().flat_map(&mut part).flat_map(u32::to_ne_bytes).collect();
        if first > MAX_BLOCKS_X {
            let what = format!("blocks of {}", group[0].launch.batch_entry());
            return Err(Error::Limit { what, found: first.into(), limit: MAX_BLOCKS_X.into() });
        }
        let structs: Vec<u8> = group.iter().flat_map(argument).copied().collect();
        memory.write(at, &[&*structs, &*parts].concat())?;
        let address = memory.address + at as u64;
        at += size(group).next_multiple_of(ALIGN);
        let entry = group[0].launch.batch_entry();
        whole.push(CudaLaunch {
            function: launcher.function(&calls[group[0].call].variant.module, &entry, one.shared_bytes)?,
            grid: [first, 1, 1],
            argument: batch_bytes(address, address + structs.len() as u64, group.len() as u32),
            ..one
        });
    }
    Ok((whole, memory))
}

/// Device memory that is given back with its owner.
struct Memory {
    address: u64,
    bytes: usize,
    launcher: Arc<dyn Launcher>,
}

impl Memory {
    fn zeroed(launcher: &Arc<dyn Launcher>, bytes: usize) -> Result<Memory> {
        // Never empty, so that every pointer of a present argument is one.
        Ok(Memory { address: launcher.alloc(bytes.max(ALIGN))?, bytes, launcher: launcher.clone() })
    }

    fn read(&self, at: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut all = vec![0; bytes];
        if bytes > 0 {
            self.launcher.download(self.address + at as u64, &mut all)?;
        }
        Ok(all)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        match bytes {
            [] => Ok(()),
            bytes => self.launcher.upload(self.address + at as u64, bytes),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.launcher.free(self.address);
    }
}

/// A captured run.
struct Graph {
    handle: u64,
    launcher: Arc<dyn Launcher>,
}

impl Graph {
    fn capture(launcher: &Arc<dyn Launcher>, launches: &[&CudaLaunch]) -> Result<Graph> {
        Ok(Graph { handle: launcher.capture(launches)?, launcher: launcher.clone() })
    }

    fn replay(&self) -> Result<()> {
        self.launcher.replay(self.handle)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.launcher.drop_graph(self.handle);
    }
}
