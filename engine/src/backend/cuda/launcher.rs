//! What a plan needs of something that runs CUDA kernels.

use super::{driver, probe};
use crate::error::Result;
use kernels::contract::cuda::{MAP_BYTES, Module};
use std::fmt;
use std::sync::Arc;

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaInfo {
    /// Index for `cuda:N`.
    pub index: usize,
    /// Name of the GPU.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Multiprocessors.
    pub processors: u32,
    /// Version of CUDA that the driver offers, major and minor.
    pub driver: (u32, u32),
}

/// One launch, ready to be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaLaunch {
    /// What [`Launcher::function`] returned.
    pub function: u64,
    /// Blocks; none is 0.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The kernel's argument.
    pub argument: Vec<u8>,
    /// Its second one, tensor maps; empty if it has none.
    pub maps: Vec<u8>,
}

/// A matrix of 16-bit elements in device memory, whose rows begin at multiples of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaMatrix {
    /// Address of its first element.
    pub address: u64,
    /// Rows, not 0.
    pub rows: u32,
    /// Columns, not 0.
    pub cols: u32,
    /// Bytes from one row to the next.
    pub pitch_bytes: u64,
}

/// Runs kernels in the order of their submission, on memory of its own. Addresses and handles mean nothing elsewhere.
///
/// Every call fails with [`Error::Lost`](crate::Error::Lost) and the first cause once a kernel has failed.
pub trait Launcher: Send + Sync {
    /// The device.
    fn info(&self) -> &CudaInfo;

    /// Zeroed memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`](crate::Error::DeviceMemory).
    fn alloc(&self, bytes: usize) -> Result<u64>;

    /// Gives memory of [`Launcher::alloc`] back once nothing submitted uses it.
    fn free(&self, address: u64);

    /// Copies to the device; `bytes` may be used again at once.
    ///
    /// # Errors
    /// A lost device.
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Copies from the device what everything submitted before leaves there.
    ///
    /// # Errors
    /// A lost device.
    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// A kernel of a module, which may be launched with so much dynamic shared memory.
    ///
    /// # Errors
    /// The driver refuses the module, or the device has less shared memory.
    fn function(&self, module: &Module, entry: &str, shared_bytes: u32) -> Result<u64>;

    /// The tensor map of a matrix for panels of 64 rows and columns, whose chunks of 16 bytes are exchanged within 128 bytes.
    ///
    /// # Errors
    /// What the driver answers.
    fn tensor_map(&self, matrix: &CudaMatrix) -> Result<[u8; MAP_BYTES]>;

    /// Submits a launch.
    ///
    /// # Errors
    /// A lost device, or a launch that the driver refuses.
    fn launch(&self, launch: &CudaLaunch) -> Result<()>;

    /// Waits for everything submitted.
    ///
    /// # Errors
    /// A lost device.
    fn wait(&self) -> Result<()>;

    /// A graph of some launches in their order, which runs nothing yet.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    fn capture(&self, launches: &[&CudaLaunch]) -> Result<u64>;

    /// Submits a graph.
    ///
    /// # Errors
    /// A lost device.
    fn replay(&self, graph: u64) -> Result<()>;

    /// Gives a graph back.
    fn drop_graph(&self, graph: u64);

    /// Lets `submit` submit parts `0..count` and returns the microseconds of each by the device's clock.
    ///
    /// # Errors
    /// A lost device; those of `submit`.
    fn timed(&self, count: usize, submit: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>>;
}

/// An opened device. Clones share it.
#[derive(Clone)]
pub struct CudaDevice {
    pub(super) launcher: Arc<dyn Launcher>,
    wanted: Option<Arc<str>>,
}

impl CudaDevice {
    /// Every GPU that the driver reaches.
    ///
    /// # Errors
    /// [`Error::NoDriver`](crate::Error::NoDriver) and [`Error::OldDriver`](crate::Error::OldDriver).
    pub fn list() -> Result<Vec<CudaInfo>> {
        probe::list()
    }

    /// Opens the GPU of an index, the first for an empty name. Every thread that uses it has the device's primary context as its
    /// current one from then on.
    ///
    /// # Errors
    /// Those of [`CudaDevice::list`]; [`Error::NoGpu`](crate::Error::NoGpu) lists those there are.
    pub fn open(which: &str) -> Result<CudaDevice> {
        let info = CudaDevice::find(which)?;
        Ok(CudaDevice::over(Arc::new(driver::Driver::open(info)?)))
    }

    pub(crate) fn find(which: &str) -> Result<CudaInfo> {
        probe::find(which, probe::list()?)
    }

    /// A device over anything that launches kernels.
    pub fn over(launcher: Arc<dyn Launcher>) -> CudaDevice {
        CudaDevice { launcher, wanted: None }
    }

    /// The same device, on which programs run the variant of a name wherever an op has it for the call at hand.
    pub fn with_variant(self, name: &str) -> CudaDevice {
        CudaDevice { wanted: Some(name.into()), ..self }
    }

    /// The variant that calls should run.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// What launches kernels on it.
    pub fn launcher(&self) -> &dyn Launcher {
        &*self.launcher
    }

    /// The device.
    pub fn info(&self) -> &CudaInfo {
        self.launcher.info()
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDevice({})", self.info().name)
    }
}
