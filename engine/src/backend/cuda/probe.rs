//! Looks for the driver and its devices.
//!
//! No call of the driver panics: its library is looked for once, and every symbol that is used is looked up before the first call.
#![expect(unsafe_code, reason = "calls the driver")]

use super::launcher::CudaInfo;
use crate::error::{Error, Result};
use cudarc::driver::DriverError;
use cudarc::driver::result as cuda;
use cudarc::driver::sys;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// The driver must offer this version of CUDA, whose PTX the kernels are: drivers from 525 on do.
pub(super) const NEEDED: (u32, u32) = (12, 0);

/// What is called here and in `driver.rs`. A library without one of them is too old, and asking for it would panic.
const SYMBOLS: [&str; 38] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuPointerGetAttribute",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuTensorMapEncodeTiled",
    "cuLaunchKernel",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
];

/// Looks for the driver, once.
///
/// # Errors
/// [`Error::NoDriver`] and [`Error::OldDriver`], with advice.
fn version() -> Result<(u32, u32)> {
    static FOUND: OnceLock<Result<(u32, u32)>> = OnceLock::new();
    FOUND.get_or_init(load).clone()
}

fn load() -> Result<(u32, u32)> {
    // SAFETY: opens the driver's library, whose constructors are the vendor's, if it is there.
    let library = unsafe { sys::is_culib_present().then(|| sys::culib()) };
    let Some(library) = library else {
        return Err(Error::NoDriver { cause: "the library libcuda is not there".to_owned() });
    };
    for symbol in SYMBOLS {
        // SAFETY: only asks whether there is such a symbol; nothing is called.
        if unsafe { library.get::<*const c_void>(symbol.as_bytes()) }.is_err() {
            return Err(Error::OldDriver { what: format!("it lacks {symbol}"), needed: NEEDED });
        }
    }
    // A driver without a device, or without the right to use one, fails here.
    cuda::init().map_err(|error| Error::NoDriver { cause: text(error) })?;
    let mut version: c_int = 0;
    // SAFETY: writes one integer.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) };
    asked.result().map_err(|error| Error::NoDriver { cause: text(error) })?;
    let version = (version as u32 / 1000, version as u32 % 1000 / 10);
    match version >= NEEDED {
        true => Ok(version),
        false => Err(Error::OldDriver { what: format!("it offers CUDA {}.{}", version.0, version.1), needed: NEEDED }),
    }
}

/// The driver's own words.
pub(super) fn text(error: DriverError) -> String {
    let known = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    known.unwrap_or_else(|| format!("{:?}", error.0))
}

/// Every GPU of this machine.
pub(super) fn list() -> Result<Vec<CudaInfo>> {
    let driver = version()?;
    let failed = |error| Error::Gpu { what: "listing devices".to_owned(), cause: text(error) };
    let count = cuda::device::get_count().map_err(failed)?;
    (0..count).map(|ordinal| describe(ordinal, driver).map_err(failed)).collect()
}

fn describe(ordinal: c_int, driver: (u32, u32)) -> std::result::Result<CudaInfo, DriverError> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = cuda::device::get(ordinal)?;
    // SAFETY: the device is one that the driver listed.
    let attribute = |which| unsafe { cuda::device::get_attribute(device, which) }.map(|value| value as u32);
    Ok(CudaInfo {
        index: ordinal as usize,
        name: cuda::device::get_name(device)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: the device is one that the driver listed.
        memory_bytes: unsafe { cuda::device::total_mem(device) }? as u64,
        processors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        driver,
    })
}

/// The GPU of an index, the first for an empty name.
pub(super) fn find(which: &str, mut all: Vec<CudaInfo>) -> Result<CudaInfo> {
    let at = if which.is_empty() { Some(0) } else { which.parse::<usize>().ok() };
    match at.filter(|at| *at < all.len()) {
        Some(at) => Ok(all.swap_remove(at)),
        None => {
            let found = all.iter().map(|info| format!("{}: {}", info.index, info.name)).collect();
            Err(Error::NoGpu { name: which.to_owned(), found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_their_index() {
        let info = |index| CudaInfo {
            index,
            name: format!("GPU {index}"),
            capability: (9, 0),
            memory_bytes: 1,
            processors: 1,
            driver: NEEDED,
        };
        let all = || vec![info(0), info(1)];
        assert_eq!(find("", all()), Ok(info(0)));
        assert_eq!(find("1", all()), Ok(info(1)));
        for name in ["2", "-1", "GPU"] {
            let found = vec!["0: GPU 0".to_owned(), "1: GPU 1".to_owned()];
            assert_eq!(find(name, all()), Err(Error::NoGpu { name: name.to_owned(), found }));
        }
    }
}
