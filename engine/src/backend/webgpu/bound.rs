//! A plan on a GPU.

use super::gpu::{Gpu, PARAMS_BYTES};
use super::memory::{Arena, chunk_bytes};
use super::share::{Bind, Shares};
use crate::error::{Error, Result};
use crate::layout::{Layout, Place, Space, View, Work, lay_out, view};
use crate::plan::{Plan, RecordedCall};
use kernels::Wgsl;
use kernels::contract::wgsl::{MAX_BINDINGS, MAX_GROUPS, PARAMS_BINDING, WORK_BINDING, parameter_values};
use std::ops::Range;

/// Passes that one set of stamps holds: 4096 stamps, two to a pass.
const MOST_PASSES: usize = 2048;

/// A plan on a GPU.
pub(crate) struct Bound {
    gpu: Gpu,
    calls: Vec<BoundCall>,
    places: Vec<Place>,
    state: Arena,
    step: Arena,
}

struct BoundCall {
    source: &'static Wgsl,
    views: Vec<Option<View>>,
    dispatches: Vec<BoundDispatch>,
}

struct BoundDispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 3],
}

impl Bound {
    /// # Errors
    /// [`Error::NoKernel`] lists what has no source for this adapter; [`Error::Memory`]; [`Error::Limit`] names what is
    /// larger than a buffer or a binding; [`Error::Gpu`] if the driver refuses a kernel.
    pub(crate) fn new(plan: &Plan, gpu: Gpu) -> Result<Bound> {
        let sources = choose(plan, &gpu)?;
        let need = |(call, (recorded, source)): (usize, (&RecordedCall, &&'static Wgsl))| {
            // A declared workspace is bound even if these sizes need none.
            source.work.map(|work| Work { call, bytes: work(&recorded.dims).max(1).saturating_mul(4) })
        };
        let works: Vec<Work> = plan.calls.iter().zip(&sources).enumerate().filter_map(need).collect();
        let Layout { places, works: offsets, state_bytes, step_bytes } = lay_out(plan, &works, chunk_bytes(&gpu))?;
        let state = Arena::zeroed(&gpu, "state", state_bytes)?;
        let step = Arena::zeroed(&gpu, "step", step_bytes)?;
        let params = params_buffer(plan, &gpu)?;
        let mut calls = Vec::new();
        for (call, (recorded, source)) in plan.calls.iter().zip(&sources).enumerate() {
            let views: Vec<Option<View>> = recorded.args.iter().map(|s| s.map(|s| view(plan, &places, &s))).collect();
            let work = works.iter().position(|w| w.call == call).map(|nth| Bind {
                space: Space::Step,
                at: offsets[nth],
                bytes: works[nth].bytes,
            });
            let shares = Shares::of(&views);
            within_limits(plan, recorded, &gpu, &shares.binds, work.as_ref())?;
            write_params(&gpu, &params, call, recorded, &views, &shares.binds);
            let mut dispatches = Vec::new();
            for (nth, dispatch) in source.dispatches.iter().enumerate() {
                let groups = (dispatch.groups)(&recorded.dims);
                if groups.contains(&0) {
                    continue;
                }
                if let Some(most) = groups.iter().find(|n| **n > MAX_GROUPS) {
                    let (what, limit) = (format!("workgroups of {}", recorded.op.name), u64::from(MAX_GROUPS));
                    return Err(Error::Limit { what, found: u64::from(*most), limit });
                }
                let bindings = shares.bindings(&source.bindings(recorded.op.args.len(), nth));
                if bindings.len() > MAX_BINDINGS {
                    let what = format!("storage buffers of {} {}", recorded.op.name, dispatch.entry);
                    return Err(Error::Limit { what, found: bindings.len() as u64, limit: MAX_BINDINGS as u64 });
                }
                let pipeline = gpu.pipeline(source, dispatch.entry, &shares.pairs(), &bindings)?;
                let group = group(&gpu, [&state, &step], &params, call, &bindings, &shares.binds, work.as_ref())?;
                dispatches.push(BoundDispatch { pipeline, group, groups });
            }
            calls.push(BoundCall { source, views, dispatches });
        }
        gpu.check()?;
        Ok(Bound { gpu, calls, places, state, step })
    }

    /// Submits some calls.
    pub(crate) fn run(&mut self, calls: Range<usize>) -> Result<()> {
        self.gpu.check()?;
        let mut encoder = self.gpu.0.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            self.calls[calls].iter().for_each(|call| call.record(&mut pass));
        }
        self.gpu.0.queue.submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Runs every call once in a pass of its own; microseconds of each by the device's clock, if it has one.
    pub(crate) fn stamped_run(&mut self) -> Result<Option<Vec<f64>>> {
        if !self.gpu.info().timestamps || self.calls.is_empty() {
            return Ok(None);
        }
        let passes: Vec<_> = (0..self.calls.len()).map(|call| (call..call + 1, 1)).collect();
        let mut times = Vec::new();
        for passes in passes.chunks(MOST_PASSES) {
            times.extend(self.stamped(passes)?);
        }
        Ok(Some(times))
    }

    /// Runs all calls some times in one pass; microseconds of the pass by the device's clock, if it has one.
    pub(crate) fn stamped_repeats(&mut self, repeats: u64) -> Result<Option<f64>> {
        match self.gpu.info().timestamps {
            true => self.stamped(&[(0..self.calls.len(), repeats)]).map(|times| times.first().copied()),
            false => Ok(None),
        }
    }

    /// Runs calls some times in a pass, at most [`MOST_PASSES`] of them; microseconds of every pass.
    fn stamped(&self, passes: &[(Range<usize>, u64)]) -> Result<Vec<f64>> {
        let count = 2 * passes.len() as u32;
        let bytes = 16 * passes.len();
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let (set, resolved) = self.gpu.scoped("a clock", bytes, |device| {
            let (ty, size) = (wgpu::QueryType::Timestamp, bytes as u64);
            let set = device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count });
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            (set, device.create_buffer(&descriptor))
        })?;
        let mut encoder = self.gpu.0.device.create_command_encoder(&Default::default());
        for ((calls, repeats), first) in passes.iter().zip((0..).step_by(2)) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &set,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for _ in 0..*repeats {
                self.calls[calls.clone()].iter().for_each(|call| call.record(&mut pass));
            }
        }
        encoder.resolve_query_set(&set, 0..count, &resolved, 0);
        self.gpu.0.queue.submit([encoder.finish()]);
        let stamps = super::memory::download(&self.gpu, &resolved, 0, bytes)?;
        let ticks: Vec<u64> = stamps.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b)).collect();
        let tick_us = f64::from(self.gpu.0.queue.get_timestamp_period()) / 1e3;
        let spans = ticks.as_chunks::<2>().0.iter();
        Ok(spans.map(|[begin, end]| end.saturating_sub(*begin) as f64 * tick_us).collect())
    }

    pub(crate) fn wait(&self) -> Result<()> {
        self.gpu.wait()
    }

    /// Bytes of a buffer.
    pub(crate) fn read(&self, buffer: usize, bytes: usize) -> Result<Vec<u8>> {
        let Place { space, at } = self.places[buffer];
        self.arena(space).read(&self.gpu, at, bytes)
    }

    pub(crate) fn write(&mut self, buffer: usize, bytes: &[u8]) -> Result<()> {
        let Place { space, at } = self.places[buffer];
        self.arena(space).write(&self.gpu, at, bytes)
    }

    /// An argument as it is placed, and its bytes from the first to the last element.
    pub(crate) fn argument(&self, call: usize, arg: usize) -> Result<Option<(View, Vec<u8>)>> {
        let Some(view) = self.calls[call].views[arg] else { return Ok(None) };
        let before = view.at % 4;
        let mut bytes = self.arena(view.space).read(&self.gpu, view.at - before, view.end() - view.at + before)?;
        bytes.drain(..before.min(bytes.len()));
        Ok(Some((view, bytes)))
    }

    pub(crate) fn variant(&self, call: usize) -> &'static str {
        self.calls[call].source.name
    }

    pub(crate) fn arena_bytes(&self) -> [usize; 3] {
        [self.state.bytes(), self.step.bytes(), 0]
    }

    fn arena(&self, space: Space) -> &Arena {
        match space {
            Space::State => &self.state,
            Space::Step | Space::Prepared => &self.step,
        }
    }
}

impl BoundCall {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        for BoundDispatch { pipeline, group, groups: [x, y, z] } in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// The best source of every call, or the ops that have none.
fn choose(plan: &Plan, gpu: &Gpu) -> Result<Vec<&'static Wgsl>> {
    let has = |feature| gpu.has(feature);
    let best = |call: &RecordedCall| {
        let all = || call.op.wgsl_for(&call.dims, plan.first_dtype(call), &has);
        let wanted = gpu.wanted().and_then(|name| all().find(|source| source.name == name));
        wanted.or_else(|| all().next_back())
    };
    let mut missing: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for call in &plan.calls {
        match best(call) {
            Some(source) => sources.push(source),
            None => missing.push(format!("{} of {:?}", call.op.name, plan.first_dtype(call))),
        }
    }
    missing.sort();
    missing.dedup();
    match missing.is_empty() {
        true => Ok(sources),
        false => Err(Error::NoKernel { device: "wgpu", ops: missing.join(", ") }),
    }
}

fn within_limits(
    plan: &Plan,
    call: &RecordedCall,
    gpu: &Gpu,
    binds: &[Option<Bind>],
    work: Option<&Bind>,
) -> Result<()> {
    let [_, limit] = gpu.info().largest_bytes;
    let name = |arg: usize| {
        let buffer = call.args[arg].map_or("", |s| plan.buffers[s.buffer.0 as usize].name.as_str());
        format!("bytes of {} \"{buffer}\" of {}", call.op.args[arg].name, call.op.name)
    };
    for (arg, bind) in binds.iter().enumerate() {
        if let Some(bind) = bind.as_ref().filter(|b| b.bytes as u64 > limit) {
            return Err(Error::Limit { what: name(arg), found: bind.bytes as u64, limit });
        }
    }
    if let Some(work) = work.filter(|w| w.bytes as u64 > limit) {
        let what = format!("bytes of the workspace of {}", call.op.name);
        return Err(Error::Limit { what, found: work.bytes as u64, limit });
    }
    Ok(())
}

fn group(
    gpu: &Gpu,
    [state, step]: [&Arena; 2],
    params: &wgpu::Buffer,
    call: usize,
    bindings: &[u32],
    binds: &[Option<Bind>],
    work: Option<&Bind>,
) -> Result<wgpu::BindGroup> {
    let range = |buffer, offset, bytes: usize| {
        let size = wgpu::BufferSize::new(bytes as u64);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    };
    let placed = |bind: &Bind| {
        let arena = if bind.space == Space::State { state } else { step };
        let (chunk, offset) = arena.at(bind.at);
        range(chunk, offset, bind.bytes)
    };
    let storage = |&binding: &u32| {
        let bind = if binding == WORK_BINDING { work } else { binds[binding as usize].as_ref() };
        let resource = bind.map_or_else(|| range(&gpu.0.absent, 256 * u64::from(binding), 256), placed);
        wgpu::BindGroupEntry { binding, resource }
    };
    let mut entries: Vec<_> = bindings.iter().map(storage).collect();
    let resource = range(params, PARAMS_BYTES * call as u64, PARAMS_BYTES as usize);
    entries.push(wgpu::BindGroupEntry { binding: PARAMS_BINDING, resource });
    let layout = gpu.layout(bindings)?;
    gpu.scoped("arguments", 0, |device| {
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries })
    })
}

/// Room for the parameters of all calls.
fn params_buffer(plan: &Plan, gpu: &Gpu) -> Result<wgpu::Buffer> {
    let size = PARAMS_BYTES * plan.calls.len().max(1) as u64;
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    gpu.scoped("memory", size as usize, |device| {
        let label = Some("parameters");
        device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    })
}

fn write_params(
    gpu: &Gpu,
    params: &wgpu::Buffer,
    call: usize,
    recorded: &RecordedCall,
    views: &[Option<View>],
    binds: &[Option<Bind>],
) {
    let place = |(view, bind): (&View, &Option<Bind>)| {
        let units = bind.map_or(0, |bind| (view.at - bind.at) / view.dtype.unit_bytes());
        [units as u32, view.ld as u32]
    };
    let places = views.iter().zip(binds).map(|(view, bind)| view.as_ref().map(|view| place((view, bind))));
    let places: Vec<Option<[u32; 2]>> = places.collect();
    let values = parameter_values(recorded.op, &recorded.dims, &places);
    gpu.0.queue.write_buffer(params, PARAMS_BYTES * call as u64, bytemuck::cast_slice(&values));
}
