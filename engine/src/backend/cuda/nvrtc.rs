//! Kernels compiled when they are loaded, for whoever is changing one: edit the `.cu`, run again. The feature `nvrtc` and the
//! variable [`SOURCES`] turn it on; the checked-in PTX is what everybody else runs.
//!
//! NVIDIA's compiler library is opened at run time (`libnvrtc` of CUDA 12 on the library path, as in the wheel
//! `nvidia-cuda-nvrtc-cu12`); it needs no GPU.
#![expect(unsafe_code, reason = "calls the compiler library")]

use crate::error::{Error, Result};
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::sys;
use kernels::contract::cuda::Module;
use kernels::contract::cuda::manifest::OPTIONS;
use std::ffi::{CString, c_char};
use std::path::Path;

/// Names the folder of the sources, `kernels/src`.
pub(super) const SOURCES: &str = "TSN_CUDA_SOURCES";

/// Whether the library is there.
fn there() -> bool {
    // SAFETY: only opens the library, whose constructors are the vendor's.
    unsafe { sys::is_culib_present() }
}

/// The PTX of a module's source as it is now.
///
/// # Errors
/// [`Error::Gpu`]: no compiler, no source, or what the compiler says of it.
pub(super) fn compile(sources: &Path, module: &Module) -> Result<String> {
    let failed = |cause: String| Error::Gpu { what: format!("compiling {}", module.path), cause };
    if !there() {
        return Err(failed("the library libnvrtc is not there".to_owned()));
    }
    let zero = |_| failed("it contains a zero".to_owned());
    let text = std::fs::read(sources.join(module.path)).map_err(|error| failed(error.to_string()))?;
    let (text, name) = (CString::new(text).map_err(zero)?, CString::new(module.path).map_err(zero)?);
    let include = format!("--include-path={}", sources.join("cuda").display());
    let arch = format!("--gpu-architecture={}", module.target.arch());
    let options: Vec<&str> = OPTIONS.iter().copied().chain([&*arch, &*include]).collect();
    if options.iter().any(|option| option.contains('\0')) {
        return Err(failed(format!("{SOURCES} contains a zero")));
    }
    let program = nvrtc::create_program(&text, Some(&name)).map_err(|error| failed(format!("{error:?}")))?;
    // SAFETY: the program was created above and is destroyed once, at the end; options contain no zero.
    let (compiled, log, ptx) = unsafe {
        let compiled = nvrtc::compile_program(program, &options);
        let texts = (nvrtc::get_program_log(program), nvrtc::get_ptx(program));
        let _ = nvrtc::destroy_program(program);
        (compiled, texts.0, texts.1)
    };
    compiled.map_err(|error| failed(log.map_or_else(|_| format!("{error:?}"), string)))?;
    ptx.map(string).map_err(|error| failed(format!("{error:?}")))
}

/// Text before its closing zero.
fn string(text: Vec<c_char>) -> String {
    let bytes: Vec<u8> = text.into_iter().map(|byte| byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::contract::cuda::manifest::modules;

    /// With the library on the path the text is that of the checked-in PTX's kernels; without it, an error says so.
    #[test]
    fn a_source_is_compiled_or_the_compiler_is_missed() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src");
        let module = &modules()[0];
        match compile(&sources, module) {
            Ok(ptx) => {
                let kernels = |text: &str| text.matches(".entry ").count();
                assert!(there() && kernels(&ptx) > 0 && kernels(&ptx) == kernels(module.ptx));
                let error = compile(&sources, &Module { path: "cuda/device.cu", ..*module });
                assert!(matches!(error, Err(Error::Gpu { .. })), "{error:?}");
            }
            Err(error) => assert!(!there() && error.to_string().contains("libnvrtc"), "{error}"),
        }
    }
}
