//! The devices that there are, and how a call runs on all of one kind.

use engine::Device;
use kernels::trial::same_bits;
use kernels::{Contract, Trial};
use tsn_tests::on_device::{self, Layout};

/// What may be there beside the CPU.
pub(crate) const GPUS: [&str; 3] = ["emulator", "cuda", "wgpu"];

/// Devices of one kind, all of which must give the same bits.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    devices: Vec<Device>,
}

/// What ops run on.
#[derive(Default)]
pub(crate) struct Devices {
    /// All variants for this CPU.
    pub(crate) cpu: bool,
    /// The others.
    pub(crate) columns: Vec<Column>,
    /// Names that are none.
    pub(crate) unknown: Vec<String>,
}

impl Devices {
    /// Those that are there, and that `DEVICES` names if it is set. A GPU runs everything twice.
    pub(crate) fn named() -> Devices {
        let all = std::env::var("DEVICES").unwrap_or_default();
        let names: Vec<&str> = all.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let wanted = |name: &str| names.is_empty() || names.contains(&name);
        let open = |name| {
            #[cfg(feature = "cuda")]
            if name == "emulator" {
                return Some(emulator());
            }
            Some(Column { name, devices: vec![Device::open(name).ok()?; 2] })
        };
        let columns = GPUS.into_iter().filter(|name| wanted(name)).filter_map(open).collect();
        let unknown = names.iter().filter(|name| **name != "cpu" && !GPUS.contains(name));
        Devices { cpu: wanted("cpu"), columns, unknown: unknown.map(|name| (*name).to_owned()).collect() }
    }
}

/// One for every order of threads.
#[cfg(feature = "cuda")]
pub(crate) fn emulator() -> Column {
    let device = |order| Device::cuda_over(std::sync::Arc::new(tsn_emulator::Emulator::new(order)));
    Column { name: "emulator", devices: tsn_emulator::Order::ALL.map(device).to_vec() }
}

impl Column {
    pub(crate) fn covers(&self, op: &Contract) -> bool {
        match self.devices[0] {
            Device::Cpu(_) => !op.cpu.is_empty(),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => !op.cuda.is_empty(),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(_) => !op.wgsl.is_empty(),
        }
    }

    /// Variants that a call may run here, plain first, each on all devices.
    fn variants(&self, trial: &Trial) -> Vec<(&'static str, Vec<Device>)> {
        let names: Vec<&'static str> = match &self.devices[0] {
            Device::Cpu(_) => {
                let _ = trial;
                Vec::new()
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                let all = trial.op.cuda_for(&trial.dims, trial.dtype(), gpu.info().capability);
                all.map(|variant| variant.name).collect()
            }
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => {
                let has = |feature| gpu.has(feature);
                trial.op.wgsl_for(&trial.dims, trial.dtype(), &has).map(|source| source.name).collect()
            }
        };
        let with = |device: &Device, name: &str| match device.clone() {
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => Device::Cuda(gpu.with_variant(name)),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => Device::Wgpu(gpu.with_variant(name)),
            cpu => {
                let _ = name;
                cpu
            }
        };
        names.into_iter().map(|name| (name, self.devices.iter().map(|device| with(device, name)).collect())).collect()
    }

    /// Every variant of the op that runs here, against f64 and with the same bits on every device.
    pub(crate) fn run(&self, trial: &Trial) -> Result<(), String> {
        let expected = trial.reference();
        let mut plain = None;
        for (variant, devices) in self.variants(trial) {
            let name = format!("{} {variant}", self.name);
            let run = |device, layout| {
                on_device::run(trial, device, layout).map_err(|why| format!("{} {name}: {why}", trial.op.name))
            };
            // Neither may bits depend on where arguments lie.
            let got = run(&devices[0], Layout::Odd)?;
            for device in &devices[1..] {
                if !same_bits(&got, &run(device, Layout::Aligned)?) {
                    let (op, [first, other]) = (trial.op.name, [&devices[0], device].map(Device::describe));
                    return Err(format!("{op} {name}: bits differ between {first} and {other}"));
                }
            }
            let errors = trial.judge(&name, &got, &expected, plain.as_deref())?;
            plain.get_or_insert(errors);
        }
        Ok(())
    }
}

/// Complaints about devices that `REQUIRE` names and that cannot be opened.
pub(crate) fn missing_devices(required: &str) -> Vec<String> {
    // `tint` is a program that another test asks for.
    let names = required.split(',').map(str::trim).filter(|name| !["", "tint"].contains(name));
    let missing = |name: &str| match name {
        "emulator" if cfg!(feature = "cuda") => None,
        "emulator" => Some("REQUIRE names the emulator, which needs the feature `cuda`".to_owned()),
        name => engine::Device::open(name).err().map(|e| format!("REQUIRE names {name}: {e}")),
    };
    names.filter_map(missing).collect()
}
#[test]
fn a_required_device_that_is_missing_is_a_failure() {
    assert!(missing_devices("").is_empty() && missing_devices("cpu").is_empty());
    let missing = missing_devices("cpu, cuda,abacus");
    assert!(missing.iter().any(|m| m.contains("abacus")), "{missing:?}");
}
