//! A plan on a GPU.

use super::gpu::{Gpu, PARAMS_BYTES};
use super::memory::Arena;
use crate::error::Result;
use crate::launches::{Adapter, Call, Launch, Launches};
use crate::layout::{Place, Space, View};
use crate::plan::Plan;
use kernels::contract::wgsl::PARAMS_BINDING;
use std::ops::Range;

/// Passes that one set of stamps holds: 4096 stamps, two to a pass.
const MOST_PASSES: usize = 2048;

/// A plan on a GPU.
pub(crate) struct Bound {
    gpu: Gpu,
    launches: Launches,
    calls: Vec<Vec<Dispatch>>,
    state: Arena,
    step: Arena,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 3],
}

impl Bound {
    /// # Errors
    /// Those of [`Launches::new`]; [`Error::Gpu`](crate::Error::Gpu) if the driver refuses a kernel.
    pub(crate) fn new(plan: &Plan, gpu: Gpu) -> Result<Bound> {
        let has = |feature| gpu.has(feature);
        let [_, binding_bytes] = gpu.info().largest_bytes;
        let (chunk_bytes, slow, variant) = (gpu.chunk_bytes(), gpu.slow(), gpu.wanted());
        let adapter = Adapter { chunk_bytes, binding_bytes, has: &has, slow, variant };
        let launches = Launches::new(plan, &adapter)?;
        let [state, step] = launches.arena_bytes;
        let state = Arena::zeroed(&gpu, "state", state)?;
        let step = Arena::zeroed(&gpu, "step", step)?;
        let params = params_buffer(&launches.calls, &gpu)?;
        let mut calls = Vec::new();
        for (at, call) in (0..).zip(&launches.calls) {
            gpu.inner.queue.write_buffer(&params, PARAMS_BYTES * at, bytemuck::cast_slice(&call.params));
            let mut dispatches = Vec::new();
            for launch in &call.launches {
                let bindings: Vec<u32> = launch.binds.iter().map(|(binding, _)| *binding).collect();
                let pipeline = gpu.pipeline(call, launch.entry, &bindings)?;
                let group = group(&gpu, [&state, &step], &params, at, launch, &bindings)?;
                dispatches.push(Dispatch { pipeline, group, groups: launch.groups });
            }
            calls.push(dispatches);
        }
        gpu.check()?;
        Ok(Bound { gpu, launches, calls, state, step })
    }

    /// Submits some calls.
    pub(crate) fn run(&mut self, calls: Range<usize>) -> Result<()> {
        self.gpu.check()?;
        let mut encoder = self.gpu.inner.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            self.calls[calls].iter().flatten().for_each(|dispatch| dispatch.record(&mut pass));
        }
        self.gpu.inner.queue.submit([encoder.finish()]);
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
        let mut encoder = self.gpu.inner.device.create_command_encoder(&Default::default());
        for ((calls, repeats), first) in passes.iter().zip((0..).step_by(2)) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &set,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for _ in 0..*repeats {
                self.calls[calls.clone()].iter().flatten().for_each(|dispatch| dispatch.record(&mut pass));
            }
        }
        encoder.resolve_query_set(&set, 0..count, &resolved, 0);
        self.gpu.inner.queue.submit([encoder.finish()]);
        let stamps = super::memory::download(&self.gpu, &resolved, 0, bytes)?;
        let ticks: Vec<u64> = stamps.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b)).collect();
        let tick_us = f64::from(self.gpu.inner.queue.get_timestamp_period()) / 1e3;
        let spans = ticks.as_chunks::<2>().0.iter();
        Ok(spans.map(|[begin, end]| end.saturating_sub(*begin) as f64 * tick_us).collect())
    }

    pub(crate) fn wait(&self) -> Result<()> {
        self.gpu.wait()
    }

    /// Bytes of a buffer.
    pub(crate) fn read(&self, buffer: usize, bytes: usize) -> Result<Vec<u8>> {
        let Place { space, at } = self.launches.places[buffer];
        self.arena(space).read(&self.gpu, at, bytes)
    }

    pub(crate) fn write(&mut self, buffer: usize, bytes: &[u8]) -> Result<()> {
        let Place { space, at } = self.launches.places[buffer];
        self.arena(space).write(&self.gpu, at, bytes)
    }

    /// An argument as it is placed, and its bytes from the first to the last element.
    pub(crate) fn argument(&self, call: usize, arg: usize) -> Result<Option<(View, Vec<u8>)>> {
        let Some(view) = self.launches.calls[call].views[arg] else { return Ok(None) };
        let before = view.at % 4;
        let mut bytes = self.arena(view.space).read(&self.gpu, view.at - before, view.end() - view.at + before)?;
        bytes.drain(..before.min(bytes.len()));
        Ok(Some((view, bytes)))
    }

    pub(crate) fn variant(&self, call: usize) -> &'static str {
        self.launches.calls[call].source.name
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

impl Dispatch {
    fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.groups;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

fn group(
    gpu: &Gpu,
    arenas: [&Arena; 2],
    params: &wgpu::Buffer,
    call: u64,
    launch: &Launch,
    bindings: &[u32],
) -> Result<wgpu::BindGroup> {
    let range = |buffer, offset, bytes: usize| {
        let size = wgpu::BufferSize::new(bytes as u64);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    };
    let storage = |(binding, bound): &(u32, Option<crate::launches::Range>)| {
        let resource = match bound {
            None => range(&gpu.inner.absent, 256 * u64::from(*binding), 256),
            Some(bound) => {
                let (chunk, offset) = arenas[bound.arena].at(bound.at);
                range(chunk, offset, bound.bytes)
            }
        };
        wgpu::BindGroupEntry { binding: *binding, resource }
    };
    let mut entries: Vec<_> = launch.binds.iter().map(storage).collect();
    let resource = range(params, PARAMS_BYTES * call, PARAMS_BYTES as usize);
    entries.push(wgpu::BindGroupEntry { binding: PARAMS_BINDING, resource });
    let layout = gpu.layout(bindings)?;
    gpu.scoped("arguments", 0, |device| {
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries })
    })
}

/// Room for the parameters of all calls.
fn params_buffer(calls: &[Call], gpu: &Gpu) -> Result<wgpu::Buffer> {
    let size = PARAMS_BYTES * calls.len().max(1) as u64;
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    gpu.scoped("memory", size as usize, |device| {
        let label = Some("parameters");
        device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    })
}
