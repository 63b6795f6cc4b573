//! A plan on a CUDA device.

use super::launcher::{CudaDevice, CudaLaunch, Launcher};
use super::order::{Order, order};
use super::whole::{launch, whole_run};
use crate::arena::ALIGN;
use crate::error::Result;
use crate::layout::{Layout, Place, Space, View, Work, lay_out, view};
use crate::plan::{Plan, RecordedCall};
use kernels::Cuda;
use kernels::contract::cuda::{self, argument_bytes};
use std::ops::Range;
use std::sync::Arc;

/// A plan on a CUDA device.
pub(crate) struct Bound {
    calls: Vec<BoundCall>,
    /// All calls, what runs as one launch as one.
    whole: Vec<CudaLaunch>,
    places: Vec<Place>,
    state: Memory,
    step: Memory,
    /// What launches of several calls read.
    tables: Memory,
    replay: Replay,
    launcher: Arc<dyn Launcher>,
}

pub(super) struct BoundCall {
    pub(super) variant: &'static Cuda,
    pub(super) views: Vec<Option<View>>,
    pub(super) arguments: Vec<Option<cuda::Place>>,
    pub(super) argument: Vec<u8>,
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
        for step in groups.iter().flat_map(|group| &group.steps) {
            let launch = launch(&*launcher, plan, &calls, step)?;
            calls[step.call].launches.push(launch);
        }
        let (whole, tables) = whole_run(&launcher, plan, &calls, &groups)?;
        Ok(Bound { calls, whole, places, state, step, tables, replay: Replay::Warming, launcher })
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
        [self.state.bytes, self.step.bytes, self.tables.bytes]
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

/// Device memory that is given back with its owner.
pub(super) struct Memory {
    pub(super) address: u64,
    bytes: usize,
    launcher: Arc<dyn Launcher>,
}

impl Memory {
    pub(super) fn zeroed(launcher: &Arc<dyn Launcher>, bytes: usize) -> Result<Memory> {
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

    pub(super) fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
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
