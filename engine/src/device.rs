//! Devices: opened by name, absent ones are errors.

#[cfg(feature = "cuda")]
use crate::backend::cuda::{CudaDevice, Launcher};
#[cfg(feature = "wgpu")]
use crate::backend::webgpu::Gpu;
use crate::error::{Error, Result};
use kernels::{Crossover, Isa, Pool};
use std::borrow::Cow;
use std::sync::Arc;

/// Where programs run.
#[derive(Clone, Debug)]
pub enum Device {
    /// The host's cores.
    Cpu(Cpu),
    /// A GPU of NVIDIA's.
    #[cfg(feature = "cuda")]
    Cuda(CudaDevice),
    /// A GPU.
    #[cfg(feature = "wgpu")]
    Wgpu(Gpu),
}

/// The host's cores.
#[derive(Clone, Debug)]
pub struct Cpu {
    pub(crate) pool: Arc<Pool>,
    pub(crate) isa: Isa,
    pub(crate) crossover: Cow<'static, Crossover>,
}

impl Device {
    /// Opens `cpu` (one worker per core), `cuda[:n]`, or `wgpu[:n]` with an index or a part of the adapter's name.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for an unknown name, [`Error::NotBuilt`] for a backend that this build lacks,
    /// [`Error::NoAdapter`], [`Error::NoGpu`] or [`Error::NoDriver`] if no GPU is there.
    pub fn open(name: &str) -> Result<Device> {
        let (kind, which) = name.split_once(':').unwrap_or((name, ""));
        match kind {
            "cpu" if name == "cpu" => Ok(Device::cpu(0)),
            "cuda" => open_cuda(which),
            "wgpu" => open_wgpu(which),
            _ => Err(Error::NoDevice { name: name.to_owned() }),
        }
    }

    /// Whether there is something that [`Device::open`] would open under a name. Opens nothing, so a driver may refuse
    /// it still.
    ///
    /// # Errors
    /// Those of [`Device::open`] that say that it is absent.
    pub fn find(name: &str) -> Result<()> {
        match name.split_once(':').unwrap_or((name, "")) {
            ("wgpu", which) => find_wgpu(which),
            ("cuda", which) => find_cuda(which),
            // Nothing is opened for these.
            _ => Device::open(name).map(|_| ()),
        }
    }

    /// A device over anything that launches CUDA kernels: a driver of one's own, an emulator.
    #[cfg(feature = "cuda")]
    pub fn cuda_over(launcher: Arc<dyn Launcher>) -> Device {
        Device::Cuda(CudaDevice::over(launcher))
    }

    /// The CPU with a number of workers; 0 means one per core. Results do not depend on it.
    pub fn cpu(workers: usize) -> Device {
        Device::cpu_with(workers, Isa::detect())
    }

    /// The CPU restricted to an instruction set, for tests and comparisons. Sets this CPU lacks are lowered to its own.
    pub fn cpu_with(workers: usize, isa: Isa) -> Device {
        let own = Isa::detect();
        let isa = if own.has(isa) { isa } else { own };
        let crossover = Cow::Borrowed(Crossover::SHIPPED);
        Device::Cpu(Cpu { pool: Arc::new(Pool::new(workers)), isa, crossover })
    }

    /// The same device with a table of one's own. Another table may give other bits: it changes the order of sums.
    /// GPUs have no such table.
    pub fn with_crossover(self, table: Crossover) -> Device {
        match self {
            Device::Cpu(cpu) => Device::Cpu(Cpu { crossover: Cow::Owned(table), ..cpu }),
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => Device::Cuda(gpu),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => Device::Wgpu(gpu),
        }
    }

    /// Whether reading waits for everything that was submitted before, so that it is better done rarely.
    pub fn reading_waits(&self) -> bool {
        !matches!(self, Device::Cpu(_))
    }

    /// Short description for run records.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => {
                let workers = cpu.pool.workers();
                format!("cpu, {}, {workers} worker{}", cpu.isa.name(), if workers == 1 { "" } else { "s" })
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                let (major, minor) = gpu.info().capability;
                format!("cuda, {}, capability {major}.{minor}", gpu.info().name)
            }
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => format!("wgpu, {}, {}", gpu.info().name, gpu.info().backend),
        }
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(which: &str) -> Result<Device> {
    CudaDevice::open(which).map(Device::Cuda)
}

#[cfg(feature = "cuda")]
fn find_cuda(which: &str) -> Result<()> {
    CudaDevice::find(which).map(|_| ())
}

#[cfg(not(feature = "cuda"))]
fn find_cuda(which: &str) -> Result<()> {
    open_cuda(which).map(|_| ())
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: &str) -> Result<Device> {
    Err(Error::NotBuilt { device: "cuda", feature: "cuda" })
}

#[cfg(feature = "wgpu")]
fn open_wgpu(which: &str) -> Result<Device> {
    Gpu::open(which).map(Device::Wgpu)
}

#[cfg(feature = "wgpu")]
fn find_wgpu(which: &str) -> Result<()> {
    Gpu::find(which, &Gpu::list()).map(|_| ())
}

#[cfg(not(feature = "wgpu"))]
fn find_wgpu(which: &str) -> Result<()> {
    open_wgpu(which).map(|_| ())
}

#[cfg(not(feature = "wgpu"))]
fn open_wgpu(_: &str) -> Result<Device> {
    Err(Error::NotBuilt { device: "wgpu", feature: "wgpu" })
}
