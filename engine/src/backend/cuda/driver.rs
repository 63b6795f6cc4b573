//! The driver as a launcher: one context and one stream per device. Devices are those that `probe.rs` found, so every symbol that is
//! used here is there.
#![expect(unsafe_code, reason = "calls the driver")]

use super::launcher::{CudaInfo, CudaLaunch, CudaMatrix, Launcher};
use super::probe::{NEEDED, text};
use crate::error::{Error, Result};
use cudarc::driver::DriverError;
use cudarc::driver::result::{self as cuda, event, function, graph, module, stream};
use cudarc::driver::sys;
use kernels::contract::cuda::{MAP_BYTES, Module, PANEL};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Handles of the driver as numbers, which may be sent between threads.
pub(super) struct Driver {
    info: CudaInfo,
    device: sys::CUdevice,
    context: usize,
    /// Whoever uses the stream has it alone: what another thread submits must not get into a graph that is being captured.
    stream: Mutex<usize>,
    /// By the address of the PTX, which is a static, and the entry.
    loaded: Mutex<Loaded>,
    fault: Mutex<Option<Error>>,
}

#[derive(Default)]
struct Loaded {
    modules: BTreeMap<usize, usize>,
    functions: BTreeMap<(usize, String), u64>,
}

impl Driver {
    /// # Errors
    /// What the driver answers.
    pub(super) fn open(info: CudaInfo) -> Result<Driver> {
        let failed = |error| Error::Gpu { what: format!("opening {}", info.name), cause: text(error) };
        let device = cuda::device::get(info.index as c_int).map_err(failed)?;
        // SAFETY: the device is one that the driver listed; the context is released when this is dropped.
        let context = unsafe { cuda::primary_ctx::retain(device) }.map_err(failed)? as usize;
        let mut driver =
            Driver { info, device, context, stream: Mutex::new(0), loaded: Mutex::default(), fault: Mutex::default() };
        driver.enter()?;
        let created = stream::create(stream::StreamKind::NonBlocking);
        driver.stream = Mutex::new(driver.ok("opening a stream", created)? as usize);
        Ok(driver)
    }

    /// Makes the context that of this thread, unless the device is lost.
    fn enter(&self) -> Result<()> {
        if let Some(fault) = &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault.clone());
        }
        // SAFETY: the context is retained as long as this lives.
        let entered = unsafe { cuda::ctx::set_current(self.context as sys::CUcontext) };
        self.ok("entering the context", entered)
    }

    /// A result of the driver as one of the engine. What ends a context is kept: every later call fails with it.
    fn ok<T>(&self, what: &str, result: std::result::Result<T, DriverError>) -> Result<T> {
        use sys::CUresult as Code;
        result.map_err(|error| match error.0 {
            Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_SYSTEM_NOT_READY
            | Code::CUDA_ERROR_UNKNOWN => {
                let lost = Error::Lost { device: self.info.name.clone(), cause: format!("{what}: {}", text(error)) };
                self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(lost).clone()
            }
            Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | Code::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
                Error::OldDriver { what: format!("{what}: {}", text(error)), needed: NEEDED }
            }
            _ => Error::Gpu { what: what.to_owned(), cause: text(error) },
        })
    }

    /// The stream, for no other thread until this is dropped.
    fn stream(&self) -> Stream<'_> {
        Stream(self.stream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the driver may read memory of the host after it has returned.
    fn is_page_locked(bytes: &[u8]) -> bool {
        let mut kind = 0u32;
        let which = sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        // SAFETY: writes one integer, and refuses addresses that it does not know; no memory is read.
        let asked = unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), which, bytes.as_ptr() as u64) };
        asked.result().is_ok()
    }

    /// Submits a launch to the stream, or to the graph that the stream is being captured into.
    fn submit(&self, stream: &Stream<'_>, launch: &CudaLaunch) -> Result<()> {
        let CudaLaunch { function, grid: [x, y, z], threads, shared_bytes, argument, maps } = launch;
        let mut parameters = [argument, maps].map(|bytes| bytes.as_ptr().cast_mut().cast::<c_void>());
        // SAFETY: the function is one of `Launcher::function`, whose kernel takes one struct of these bytes, and maps if its
        // launch has any, which the driver copies before it returns; a test holds struct and bytes against each other for
        // every op.
        let launched = unsafe {
            cuda::launch_kernel(
                *function as sys::CUfunction,
                (*x, *y, *z),
                (*threads, 1, 1),
                *shared_bytes,
                stream.handle(),
                &mut parameters,
            )
        };
        self.ok("a launch", launched)
    }
}

impl Launcher for Driver {
    fn info(&self) -> &CudaInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // SAFETY: the context is entered; the range is filled before anything reads it.
        let allocated = unsafe { cuda::malloc_sync(bytes) };
        if allocated.is_err_and(|error| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) {
            let free = cuda::mem_get_info().map_or(0, |(free, _)| free as u64);
            return Err(Error::DeviceMemory { device: self.info.name.clone(), bytes: bytes as u64, free });
        }
        let address = self.ok("memory", allocated)?;
        // SAFETY: the range was allocated above.
        let zeroed = unsafe { cuda::memset_d8_async(address, 0, bytes, self.stream().handle()) };
        self.ok("zeroing memory", zeroed).map(|()| address).inspect_err(|_| self.free(address))
    }

    fn free(&self, address: u64) {
        if self.wait().is_ok() {
            // SAFETY: the address is one of `alloc`, and nothing submitted uses it any more.
            let _ = unsafe { cuda::free_sync(address) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the range lies in an allocation; what the driver has not read when it returns is waited for.
        let copied = unsafe { cuda::memcpy_htod_async(to, bytes, self.stream().handle()) };
        self.ok("writing", copied)?;
        if Driver::is_page_locked(bytes) { self.wait() } else { Ok(()) }
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the range lies in an allocation; `bytes` outlives the wait below.
        let copied = unsafe { cuda::memcpy_dtoh_async(bytes, from, self.stream().handle()) };
        self.ok("reading", copied)?;
        self.wait()
    }

    fn function(&self, from: &Module, entry: &str, shared_bytes: u32) -> Result<u64> {
        self.enter()?;
        let key = from.ptx.as_ptr() as usize;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = loaded.functions.get(&(key, entry.to_owned())).copied();
        let handle = match known {
            Some(handle) => handle,
            None => {
                let library = match loaded.modules.get(&key) {
                    Some(library) => *library,
                    None => {
                        let image = CString::new(&*text_of(from)?).map_err(|_| Error::Gpu {
                            what: format!("module {}", from.name),
                            cause: "its text contains a zero".to_owned(),
                        })?;
                        // SAFETY: the image is text that ends in a zero.
                        let library = unsafe { module::load_data(image.as_ptr().cast()) };
                        let library = self.ok(&format!("module {}", from.name), library)? as usize;
                        loaded.modules.insert(key, library);
                        library
                    }
                };
                let name = CString::new(entry).unwrap_or_default();
                // SAFETY: the module is loaded and stays so until this is dropped.
                let function = unsafe { module::get_function(library as sys::CUmodule, name) };
                let handle = self.ok(&format!("kernel {entry}"), function)? as u64;
                loaded.functions.insert((key, entry.to_owned()), handle);
                handle
            }
        };
        if shared_bytes > 0 {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is one of a loaded module.
            let allowed = unsafe {
                function::set_function_attribute(
                    handle as sys::CUfunction,
                    most,
                    shared_bytes.min(i32::MAX as u32) as i32,
                )
            };
            self.ok(&format!("{shared_bytes} bytes of shared memory of {entry}"), allowed)?;
        }
        Ok(handle)
    }

    fn tensor_map(&self, matrix: &CudaMatrix) -> Result<[u8; MAP_BYTES]> {
        self.enter()?;
        let CudaMatrix { address, rows, cols, pitch_bytes } = *matrix;
        let (sizes, pitches) = ([u64::from(cols), u64::from(rows)], [pitch_bytes]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: reads arrays of two dimensions and one pitch, writes the map; no memory of the device is touched.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address as *mut c_void,
                sizes.as_ptr(),
                pitches.as_ptr(),
                [PANEL; 2].as_ptr(),
                [1; 2].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.ok("a tensor map", encoded.result())?;
        Ok(bytemuck::cast(map.opaque))
    }

    fn launch(&self, launch: &CudaLaunch) -> Result<()> {
        self.enter()?;
        self.submit(&self.stream(), launch)
    }

    fn wait(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as this.
        let waited = unsafe { stream::synchronize(self.stream().handle()) };
        self.ok("running", waited)
    }

    fn capture(&self, launches: &[&CudaLaunch]) -> Result<u64> {
        self.enter()?;
        let stream = self.stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this.
        let begun = unsafe { stream::begin_capture(stream.handle(), mode) };
        self.ok("beginning a graph", begun)?;
        let submitted = launches.iter().try_for_each(|launch| self.submit(&stream, launch));
        // SAFETY: the capture was begun above; it ends also after a launch that was refused.
        let recorded = self.ok("ending a graph", unsafe { stream::end_capture(stream.handle()) });
        let made = submitted.and_then(|()| {
            // SAFETY: the graph was captured above.
            let made = unsafe { graph::instantiate(recorded.clone()?, sys::CUgraphInstantiate_flags(0)) };
            self.ok("a graph", made)
        });
        if let Ok(graph) = recorded {
            // SAFETY: the same; what was made of it does not need it.
            let _ = unsafe { graph::destroy(graph) };
        }
        Ok(made? as u64)
    }

    fn replay(&self, handle: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the graph is one of `capture`, and everything that its launches use lives as long as its owner.
        let launched = unsafe { graph::launch(handle as sys::CUgraphExec, self.stream().handle()) };
        self.ok("a graph", launched)
    }

    fn drop_graph(&self, handle: u64) {
        if self.wait().is_ok() {
            // SAFETY: the graph is one of `capture` and does not run any more.
            let _ = unsafe { graph::exec_destroy(handle as sys::CUgraphExec) };
        }
    }

    fn timed(&self, count: usize, submit: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        self.enter()?;
        let mut stamps = Stamps { all: Vec::new() };
        stamps.record(self)?;
        for part in 0..count {
            submit(part)?;
            stamps.record(self)?;
        }
        self.wait()?;
        stamps.all.windows(2).map(|two| self.ok("a clock", elapsed(two[0], two[1]))).collect()
    }
}

/// The stream of a driver, which nobody else uses meanwhile.
struct Stream<'a>(MutexGuard<'a, usize>);

impl Stream<'_> {
    fn handle(&self) -> sys::CUstream {
        *self.0 as sys::CUstream
    }
}

/// What a module is loaded from.
#[cfg(not(feature = "nvrtc"))]
fn text_of(module: &Module) -> Result<Cow<'static, str>> {
    Ok(module.ptx.into())
}

/// What a module is loaded from: its source, if the variable names a folder.
#[cfg(feature = "nvrtc")]
fn text_of(module: &Module) -> Result<Cow<'static, str>> {
    use super::nvrtc::{SOURCES, compile};
    match std::env::var_os(SOURCES) {
        Some(sources) => Ok(compile(sources.as_ref(), module)?.into()),
        None => Ok(module.ptx.into()),
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            // SAFETY: nothing is left that uses the stream or a module; a lost context is left as it is.
            unsafe {
                let _ = stream::destroy(self.stream().handle());
                let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
                for library in loaded.modules.values() {
                    let _ = module::unload(*library as sys::CUmodule);
                }
            }
        }
        // SAFETY: retained once, when it was opened.
        let _ = unsafe { cuda::primary_ctx::release(self.device) };
    }
}

/// Events between the parts of what is timed.
struct Stamps {
    all: Vec<sys::CUevent>,
}

impl Stamps {
    fn record(&mut self, driver: &Driver) -> Result<()> {
        let made = driver.ok("a clock", event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        self.all.push(made);
        // SAFETY: event and stream live.
        driver.ok("a clock", unsafe { event::record(made, driver.stream().handle()) })
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        for made in &self.all {
            // SAFETY: made by `record`; the driver keeps what still runs.
            let _ = unsafe { event::destroy(*made) };
        }
    }
}

/// Microseconds between two events that have happened.
fn elapsed(begin: sys::CUevent, end: sys::CUevent) -> std::result::Result<f64, DriverError> {
    // SAFETY: both events live.
    unsafe { event::elapsed(begin, end) }.map(|milliseconds| f64::from(milliseconds) * 1e3)
}
