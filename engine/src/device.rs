//! Devices: opened by name, absent ones are errors.

use crate::error::{Error, Result};
use kernels::{Crossover, Isa, Pool};
use std::borrow::Cow;
use std::sync::Arc;

/// Where programs run.
#[derive(Clone, Debug)]
pub enum Device {
    /// The host's cores.
    Cpu(Cpu),
}

/// The host's cores.
#[derive(Clone, Debug)]
pub struct Cpu {
    pub(crate) pool: Arc<Pool>,
    pub(crate) isa: Isa,
    pub(crate) crossover: Cow<'static, Crossover>,
}

impl Device {
    /// Opens `cpu` (one worker per core), `cuda[:n]` or `wgpu[:n]`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for an unknown name, [`Error::NotBuilt`] for a backend that this build lacks.
    pub fn open(name: &str) -> Result<Device> {
        match name.split(':').next() {
            Some("cpu") if name == "cpu" => Ok(Device::cpu(0)),
            Some("cuda") => Err(Error::NotBuilt { device: "cuda", feature: "cuda" }),
            Some("wgpu") => Err(Error::NotBuilt { device: "wgpu", feature: "wgpu" }),
            _ => Err(Error::NoDevice { name: name.to_owned() }),
        }
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
    pub fn with_crossover(self, table: Crossover) -> Device {
        let Device::Cpu(cpu) = self;
        Device::Cpu(Cpu { crossover: Cow::Owned(table), ..cpu })
    }

    /// Short description for run records.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => format!("cpu, {}, {} workers", cpu.isa.name(), cpu.pool.workers()),
        }
    }
}
