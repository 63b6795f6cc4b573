//! An opened adapter: device, queue, compiled pipelines, and the first fault.

use super::wait::block_on;
use crate::arena::ALIGN;
use crate::error::{Error, Result};
use crate::launches::Call;
use kernels::GpuFeature;
use kernels::contract::MAX_ARGS;
use kernels::contract::wgsl::{MAX_BINDINGS, PARAMS_BINDING};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use wgpu::{Features, Limits};

/// Bytes of the parameters of one call: a uniform binding's offset alignment.
pub(super) const PARAMS_BYTES: u64 = 256;

/// An adapter as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Index for `wgpu:N`.
    pub index: usize,
    /// Name of the GPU.
    pub name: String,
    /// Driver and its version.
    pub driver: String,
    /// Interface it is reached by: Vulkan, Metal, Direct3D 12.
    pub backend: String,
    /// Discrete, integrated, virtual, CPU.
    pub kind: String,
    /// Largest buffer and largest binding, in bytes.
    pub largest_bytes: [u64; 2],
    /// Most storage buffers of one kernel.
    pub bindings: u32,
    /// Most invocations in a workgroup.
    pub invocations: u32,
    /// Smallest and largest subgroup, 0 if there are none.
    pub subgroups: [u32; 2],
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Clock for calls.
    pub timestamps: bool,
}

/// An opened GPU. Clones share it.
#[derive(Clone)]
pub struct Gpu {
    pub(super) inner: Arc<Inner>,
    variant: Option<Arc<str>>,
    chunk_bytes: usize,
}

/// Address of the source text, which is a static, entry point, and the arguments that are bound with another one.
type PipelineKey = (usize, &'static str, Vec<(u32, u32)>);

pub(super) struct Inner {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: AdapterInfo,
    /// Bound where a call leaves an argument out, a range for each.
    pub(super) absent: wgpu::Buffer,
    /// By the storage bindings.
    layouts: Mutex<BTreeMap<Vec<u32>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>>,
    pipelines: Mutex<BTreeMap<PipelineKey, wgpu::ComputePipeline>>,
    fault: Arc<Mutex<Option<Error>>>,
}

/// The adapters of this machine, in the order of their indices.
fn adapters() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let adapters = block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    (instance, adapters)
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroups = match features.contains(Features::SUBGROUP) {
        true => [info.subgroup_min_size, info.subgroup_max_size],
        false => [0, 0],
    };
    AdapterInfo {
        index,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        name: info.name,
        largest_bytes: [limits.max_buffer_size, limits.max_storage_buffer_binding_size],
        bindings: limits.max_storage_buffers_per_shader_stage,
        invocations: limits.max_compute_invocations_per_workgroup,
        subgroups,
        f16: features.contains(Features::SHADER_F16),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
    }
}

impl Gpu {
    /// Every adapter that `wgpu` reaches here. Empty without a driver.
    pub fn list() -> Vec<AdapterInfo> {
        adapters().1.iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
    }

    /// Opens the adapter of an index, or the first whose name contains `which` (in any case), or for an empty `which` the
    /// first that is a GPU, else the first.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] lists those there are; [`Error::Gpu`] if the driver refuses.
    pub fn open(which: &str) -> Result<Gpu> {
        let (_instance, adapters) = adapters();
        let infos: Vec<AdapterInfo> = adapters.iter().enumerate().map(|(at, a)| describe(at, a)).collect();
        let at = Gpu::find(which, &infos)?;
        Gpu::with_limits(&adapters[at], infos[at].clone(), adapters[at].limits())
    }

    /// Which of some adapters [`Gpu::open`] takes.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] lists them.
    pub(crate) fn find(which: &str, infos: &[AdapterInfo]) -> Result<usize> {
        let at = match which.parse::<usize>() {
            Ok(index) if index < infos.len() => Some(index),
            _ if which.is_empty() => {
                let gpu = |kind: &str| infos.iter().position(|info| info.kind == kind);
                gpu("DiscreteGpu").or_else(|| gpu("IntegratedGpu")).or_else(|| gpu("VirtualGpu")).or(Some(0))
            }
            _ => infos.iter().position(|info| info.name.to_lowercase().contains(&which.to_lowercase())),
        };
        let found = || infos.iter().map(|info| format!("{}: {}", info.index, info.name)).collect();
        at.filter(|at| *at < infos.len()).ok_or_else(|| Error::NoAdapter { name: which.to_owned(), found: found() })
    }

    fn with_limits(adapter: &wgpu::Adapter, info: AdapterInfo, mut limits: Limits) -> Result<Gpu> {
        // What a browser gives: a kernel that needs more is refused everywhere.
        limits.max_storage_buffers_per_shader_stage = MAX_BINDINGS as u32;
        let wanted = Features::TIMESTAMP_QUERY | Features::SUBGROUP | Features::SHADER_F16;
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("tsn"),
            required_features: adapter.features() & wanted,
            required_limits: limits,
            ..Default::default()
        });
        let (device, queue) = block_on(request)
            .map_err(|error| Error::Gpu { what: format!("opening {}", info.name), cause: error.to_string() })?;
        let fault: Arc<Mutex<Option<Error>>> = Arc::default();
        let (uncaptured, lost, name) = (fault.clone(), fault.clone(), info.name.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep(&uncaptured, gpu_error("running", &error));
        }));
        device.set_device_lost_callback(move |reason, message| {
            let cause = format!("{reason:?}: {message}");
            keep(&lost, Error::Lost { device: name.clone(), cause: cause.trim_end_matches(": ").to_owned() });
        });
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let absent = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("absent"),
            size: 256 * MAX_ARGS as u64,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        if block_on(scope.pop()).is_some() {
            return Err(Error::Memory { bytes: 256 * MAX_ARGS });
        }
        let (layouts, pipelines) = Default::default();
        let chunk_bytes = usize::try_from(info.largest_bytes[0]).unwrap_or(usize::MAX) / ALIGN * ALIGN;
        let inner = Arc::new(Inner { device, queue, info, absent, layouts, pipelines, fault });
        Ok(Gpu { inner, variant: None, chunk_bytes })
    }

    /// The same GPU, on which programs run the variant of a name wherever an op has it for the call at hand.
    pub fn with_variant(self, name: &str) -> Gpu {
        Gpu { variant: Some(name.into()), ..self }
    }

    /// The same GPU, on which the arenas of a program are cut into chunks of at most `bytes`, rounded down to 256, instead of
    /// its largest buffer: for tests of what happens at the cuts.
    pub fn with_chunks(self, bytes: usize) -> Gpu {
        let chunk_bytes = (bytes / ALIGN * ALIGN).clamp(ALIGN, self.chunk_bytes);
        Gpu { chunk_bytes, ..self }
    }

    /// Bytes that a chunk of an arena holds at most; no buffer of a plan crosses from one to the next.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The variant that calls should run.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The adapter.
    pub fn info(&self) -> &AdapterInfo {
        &self.inner.info
    }

    /// Whether the adapter has an ability.
    pub fn has(&self, feature: GpuFeature) -> bool {
        let bit = match feature {
            GpuFeature::Subgroups => Features::SUBGROUP,
            GpuFeature::F16 => Features::SHADER_F16,
        };
        self.inner.device.features().contains(bit)
    }

    /// Abilities that are slow here. A driver in software takes turns where a subgroup works together.
    pub fn slow(&self) -> &'static [GpuFeature] {
        match self.inner.info.kind.as_str() {
            "Cpu" => &[GpuFeature::Subgroups],
            _ => &[],
        }
    }

    /// Ends the device, as a driver does that resets it: every later call fails. For tests of what happens then.
    pub fn lose(&self) {
        self.inner.device.destroy();
        let _ = self.inner.device.poll(wgpu::PollType::Poll);
    }

    /// The first thing that went wrong, if anything did.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    /// Waits for all submitted work.
    pub(super) fn wait(&self) -> Result<()> {
        let polled = self.inner.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(|_| ()).map_err(|error| Error::Gpu { what: "waiting".to_owned(), cause: error.to_string() })
    }

    /// What `make` makes, or the error that the driver or the validation found in it.
    pub(super) fn scoped<T>(&self, what: &str, bytes: usize, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.check()?;
        let device = &self.inner.device;
        let invalid = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let made = make(device);
        let memory = block_on(memory.pop());
        let [internal, invalid] = [block_on(internal.pop()), block_on(invalid.pop())];
        if memory.is_some() {
            return Err(Error::Memory { bytes });
        }
        match internal.or(invalid) {
            Some(error) => Err(gpu_error(what, &error)),
            None => self.check().map(|()| made),
        }
    }

    /// The interface of dispatches that bind these arguments and the parameters.
    pub(super) fn layout(&self, bindings: &[u32]) -> Result<wgpu::BindGroupLayout> {
        let mut layouts = self.inner.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((layout, _)) = layouts.get(bindings) {
            return Ok(layout.clone());
        }
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let storage = wgpu::BufferBindingType::Storage { read_only: false };
        let mut entries: Vec<_> = bindings.iter().map(|binding| entry(*binding, storage)).collect();
        entries.push(entry(PARAMS_BINDING, wgpu::BufferBindingType::Uniform));
        let (layout, pipeline) = self.scoped("an interface", 0, |device| {
            let layout =
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            (layout, pipeline)
        })?;
        layouts.insert(bindings.to_vec(), (layout.clone(), pipeline));
        Ok(layout)
    }

    /// A compiled entry point of a call's source, compiled once for each way in which arguments share bindings.
    pub(super) fn pipeline(&self, call: &Call, entry: &'static str, bindings: &[u32]) -> Result<wgpu::ComputePipeline> {
        let key = (call.source.text.as_ptr() as usize, entry, call.pairs.clone());
        if let Some(pipeline) = self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(pipeline.clone());
        }
        self.layout(bindings)?;
        let layouts = self.inner.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, layout) = &layouts[bindings];
        let pipeline = self.scoped(&format!("kernel {entry}"), 0, |device| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(entry),
                source: wgpu::ShaderSource::Wgsl(call.text()),
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            })
        })?;
        self.inner.pipelines.lock().unwrap_or_else(PoisonError::into_inner).insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

/// The first fault stays: later ones follow from it.
fn keep(fault: &Mutex<Option<Error>>, error: Error) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

fn gpu_error(what: &str, error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::Memory { bytes: 0 },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Gpu { what: what.to_owned(), cause: description.clone() }
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.inner.info.name, self.inner.info.backend)
    }
}
