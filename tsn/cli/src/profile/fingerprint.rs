//! What a measurement depends on besides the code: machine, build and time. Unknown things are `unknown` or 0.

use super::ceilings::Ceilings;
use crate::commands::doctor;
use crate::files::stamp;
use crate::tune::kernel_hash;
use serde::Serialize;
use std::fs::read_to_string;
use std::path::Path;
use tsn::dt::autograd::engine::Device;
use tsn::dt::autograd::engine::kernels::Isa;

const UNKNOWN: &str = "unknown";

/// Bytes of the caches that one core sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Caches {
    pub l1d: u64,
    pub l2: u64,
    pub l3: u64,
}

/// The first line of every JSON file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fingerprint {
    schema: u32,
    reason: &'static str,
    pub date: String,
    pub cpu_model: String,
    pub cpu_features: Vec<&'static str>,
    pub isa: &'static str,
    pub governor: String,
    pub cores: usize,
    pub caches: Caches,
    pub memory_bytes: u64,
    os: &'static str,
    arch: &'static str,
    gpu: Option<String>,
    driver: Option<String>,
    program_version: &'static str,
    pub compiler: &'static str,
    build_profile: &'static str,
    features: &'static str,
    pub revision: &'static str,
    /// `None` if the revision is unknown.
    pub dirty: Option<bool>,
    /// Of the kernels that a crossover table is measured with.
    kernel_hash: String,
    /// `shipped`, or the file of the crossover table.
    crossover: String,
    pub sweep_bytes: u64,
    pub ceilings: Vec<Ceilings>,
}

impl Fingerprint {
    /// Looks around.
    pub(crate) fn new(
        caches: Caches,
        sweep_bytes: u64,
        ceilings: Vec<Ceilings>,
        table: Option<&Path>,
        device: &Device,
    ) -> Fingerprint {
        let (gpu, driver) = adapter(device);
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
        let governor = read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let kib = field(&meminfo, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
        Fingerprint {
            schema: super::SCHEMA,
            reason: "fingerprint",
            date: stamp(true),
            cpu_model: field(&cpuinfo, "model name").unwrap_or(UNKNOWN).to_owned(),
            cpu_features: doctor::features(),
            isa: Isa::detect().name(),
            governor: governor.map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned()),
            cores: cores(&cpuinfo),
            caches,
            memory_bytes: kib.unwrap_or(0) << 10,
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            gpu,
            driver,
            program_version: env!("CARGO_PKG_VERSION"),
            compiler: env!("TSN_COMPILER"),
            build_profile: env!("TSN_BUILD_PROFILE"),
            features: match (cfg!(feature = "cuda"), cfg!(feature = "wgpu")) {
                (false, false) => "parallel",
                (false, true) => "parallel,wgpu",
                (true, false) => "parallel,cuda",
                (true, true) => "parallel,cuda,wgpu",
            },
            revision: env!("TSN_REVISION"),
            dirty: match env!("TSN_DIRTY") {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
            kernel_hash: kernel_hash(),
            crossover: table.map_or_else(|| "shipped".to_owned(), |path| path.display().to_string()),
            sweep_bytes,
            ceilings,
        }
    }

    /// Two lines for people, three with a GPU.
    pub(crate) fn text(&self) -> String {
        let caches = [self.caches.l1d >> 10, self.caches.l2 >> 10, self.caches.l3 >> 10];
        let gpu = match (&self.gpu, &self.driver) {
            (Some(gpu), Some(driver)) => format!("{gpu}, {driver}\n"),
            _ => String::new(),
        };
        let dirty = if self.dirty == Some(true) { " with changes" } else { "" };
        format!(
            "{}, {} core{}, {}, L1d {} KiB, L2 {} KiB, L3 {} KiB\n{gpu}{}, {}, revision {}{dirty}, {}\n",
            self.cpu_model,
            self.cores,
            if self.cores == 1 { "" } else { "s" },
            self.isa,
            caches[0],
            caches[1],
            caches[2],
            self.compiler,
            self.build_profile,
            self.revision.get(..12).unwrap_or(self.revision),
            self.date,
        )
    }
}

/// Cores of this machine, also those that this program may not use.
pub(crate) fn machine_cores() -> usize {
    cores(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// Cores of the machine; where the system does not list them, those that this program may use.
fn cores(cpuinfo: &str) -> usize {
    match cpuinfo.lines().filter(|line| value(line, "processor").is_some()).count() {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}

/// Name and driver of a GPU.
fn adapter(device: &Device) -> (Option<String>, Option<String>) {
    match device {
        Device::Cpu(_) => (None, None),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let (major, minor) = gpu.info().driver;
            (Some(gpu.info().name.clone()), Some(format!("CUDA {major}.{minor}")))
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu(gpu) => {
            let info = gpu.info();
            (Some(info.name.clone()), Some(format!("{} {}", info.backend, info.driver)))
        }
    }
}

/// The caches of core 0, or sizes that most cores have.
pub(crate) fn caches() -> Caches {
    let mut found = Caches { l1d: 0, l2: 0, l3: 0 };
    for index in 0..8 {
        let read = |name: &str| read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}"));
        let (Ok(level), Ok(kind), Ok(size)) = (read("level"), read("type"), read("size")) else { continue };
        let bytes = bytes(size.trim());
        match (level.trim(), kind.trim()) {
            ("1", "Data" | "Unified") => found.l1d = bytes,
            ("2", _) => found.l2 = bytes,
            ("3", _) => found.l3 = bytes,
            _ => {}
        }
    }
    match found.l1d {
        0 => Caches { l1d: 32 << 10, l2: 1 << 20, l3: 32 << 20 },
        _ => found,
    }
}

/// Bytes that a program may still take, where the system tells.
pub(crate) fn free_bytes() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    field(&text, "MemAvailable")?.trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// `48K` or `4M`.
fn bytes(text: &str) -> u64 {
    let number = |digits: &str, shift: u32| digits.parse::<u64>().map_or(0, |n| n << shift);
    match (text.strip_suffix('K'), text.strip_suffix('M')) {
        (Some(digits), _) => number(digits, 10),
        (_, Some(digits)) => number(digits, 20),
        _ => number(text, 0),
    }
}

/// Mean clock of all cores, where the system tells.
pub(crate) fn clock_mhz() -> Option<f64> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let clocks: Vec<f64> = text.lines().filter_map(|line| value(line, "cpu MHz")?.parse().ok()).collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| value(line, name))
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once(':')?;
    (key.trim() == name).then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!([bytes("48K"), bytes("2M"), bytes("77"), bytes("x")], [49152, 2 << 20, 77, 0]);
        assert_eq!(field("a : 1\nmodel name\t: Best CPU: 9\n", "model name"), Some("Best CPU: 9"));
        assert_eq!(field("", "model name"), None);
        assert_eq!(cores("processor : 0\nflags : fpu\n\nprocessor : 1\n"), 2);
        assert!(cores("") >= 1);
        assert!(caches().l1d >= 4096);
    }
}
