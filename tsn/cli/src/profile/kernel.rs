//! What is profiled: a variant of an op on the device that runs it.

use super::case::{Case, Made};
use super::expand::variants;
#[cfg(feature = "gpu")]
use super::gpu::{self, Single};
use anyhow::Result;
use tsn::dt::autograd::engine::Device;
use tsn::dt::autograd::engine::kernels::contract::Variant;
use tsn::dt::autograd::engine::kernels::{Array, Pool, Trial};

/// A variant, and where it runs.
pub(crate) enum Kernel {
    Cpu(&'static Variant),
    #[cfg(feature = "gpu")]
    Gpu(Device, &'static str),
}

/// Name of a device's kind in ids and rows.
pub(crate) fn backend(device: &Device) -> &'static str {
    match device {
        Device::Cpu(_) => "cpu",
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => "cuda",
        #[cfg(feature = "wgpu")]
        Device::Wgpu(_) => "wgpu",
    }
}

/// Names of the variants that a case asks for, before it is made.
///
/// # Errors
/// A variant that the op does not have on this device.
pub(crate) fn names(case: &Case, device: &Device, wanted: Option<&str>) -> Result<Vec<&'static str>> {
    match device {
        Device::Cpu(_) => Ok(variants(case, wanted)?.iter().map(|variant| variant.name).collect()),
        #[cfg(feature = "gpu")]
        gpu => gpu::names(case, gpu, wanted),
    }
}

/// The variants that a case asks for.
///
/// # Errors
/// A sentence if the variant asked for cannot compute these sizes.
pub(crate) fn kernels(case: &Case, made: &Made, device: &Device, wanted: Option<&str>) -> Result<Vec<Kernel>, String> {
    match device {
        Device::Cpu(_) => {
            let _ = made;
            Ok(variants(case, wanted).map_err(|e| e.to_string())?.into_iter().map(Kernel::Cpu).collect())
        }
        #[cfg(feature = "gpu")]
        gpu => {
            let all = gpu::variants(&made.trial, gpu, wanted)?;
            Ok(all.into_iter().map(|variant| Kernel::Gpu(gpu.clone(), variant)).collect())
        }
    }
}

impl Kernel {
    /// Name of the variant.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kernel::Cpu(variant) => variant.name,
            #[cfg(feature = "gpu")]
            Kernel::Gpu(_, variant) => variant,
        }
    }

    /// The arguments of a trial after one call; workers are those of the pool if the CPU runs it.
    ///
    /// # Errors
    /// A sentence if something beside an output changed, or the device refuses.
    pub(crate) fn run(&self, trial: &Trial, pool: &Pool) -> Result<Vec<Array>, String> {
        match self {
            Kernel::Cpu(variant) => {
                let mut trial = trial.clone();
                trial.run(variant, pool)?;
                Ok(trial.args)
            }
            #[cfg(feature = "gpu")]
            Kernel::Gpu(gpu, variant) => Single::new(trial, gpu, variant)?.run_once(trial),
        }
    }

    /// The simplest variant of the same device for a call.
    pub(crate) fn plain(&self, trial: &Trial) -> Kernel {
        match self {
            Kernel::Cpu(_) => Kernel::Cpu(trial.variants().next().unwrap_or(&trial.op.cpu[0])),
            #[cfg(feature = "gpu")]
            Kernel::Gpu(gpu, variant) => {
                let first = gpu::variants(trial, gpu, Some("all")).ok().and_then(|all| all.into_iter().next());
                Kernel::Gpu(gpu.clone(), first.unwrap_or(variant))
            }
        }
    }
}
