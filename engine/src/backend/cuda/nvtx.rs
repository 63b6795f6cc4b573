//! Names for what NVIDIA's profilers record.
#![expect(unsafe_code, reason = "opens a library of the toolkit")]

use cudarc::nvtx::{result, sys};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// As long as it lives, Nsight shows what this thread submits under its name (NVTX).
///
/// Without `libnvToolsExt` nothing happens. Ranges of one thread end in the opposite order of their beginnings, as scopes do.
#[derive(Debug)]
pub struct CudaRange(PhantomData<*const ()>);

impl CudaRange {
    /// Begins a range; `None` without the library.
    pub fn begin(name: &str) -> Option<CudaRange> {
        static PRESENT: OnceLock<bool> = OnceLock::new();
        PRESENT.get_or_init(present).then(|| {
            result::range_push(name.replace('\0', " "));
            CudaRange(PhantomData)
        })
    }
}

impl Drop for CudaRange {
    fn drop(&mut self) {
        result::range_pop();
    }
}

/// Whether the library has what is called above.
fn present() -> bool {
    // SAFETY: opens a library whose constructors are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return false;
    }
    // SAFETY: the library is there, by the line above.
    let library = unsafe { sys::culib() };
    // SAFETY: only asks whether there is such a symbol; nothing is called.
    ["nvtxRangePushA", "nvtxRangePop"]
        .iter()
        .all(|name| unsafe { library.get::<*const c_void>(name.as_bytes()) }.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_there_if_and_only_if_the_library_is() {
        let outer = CudaRange::begin("outer");
        let inner = CudaRange::begin("a name\0with a zero");
        assert_eq!([outer.is_some(), inner.is_some()], [present(); 2]);
    }
}
