//! What this machine can do at most, measured at the start of a run.

use super::fingerprint::Caches;
use serde::Serialize;
use std::time::Duration;
use tsn::dt::autograd::engine::kernels::{Isa, Pool, ceiling};

const MIB: u64 = 1 << 20;

/// One instruction set's multiply-add peak.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compute {
    pub isa: &'static str,
    /// Of the factors: an f32 on matrix tiles is three bf16.
    pub dtype: &'static str,
    pub gflops: f64,
}

/// Bandwidth of one level of memory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Level {
    pub name: &'static str,
    /// Largest working set that is held against this level; memory holds any.
    pub holds_bytes: Option<u64>,
    /// Working set that was measured.
    pub measured_bytes: u64,
    pub read_gbps: f64,
    /// One worker; bytes read and written both count.
    pub copy_gbps: f64,
}

/// The ceilings of some workers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ceilings {
    /// `cpu`, or the name of an adapter.
    pub device: String,
    pub threads: usize,
    /// The best set last.
    pub compute: Vec<Compute>,
    /// The nearest to the core first, memory last.
    pub levels: Vec<Level>,
}

impl Ceilings {
    /// Measures; `buffer` is the one that cold cases sweep through, and stands for memory.
    pub(crate) fn measure(threads: usize, caches: &Caches, buffer: &mut [f32], span: Duration) -> Ceilings {
        let pool = Pool::new(threads);
        let sets = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Amx];
        let compute = |isa: Isa| {
            let gflops = ceiling::multiply_add(isa, &pool, span)?;
            Some(Compute { isa: isa.name(), dtype: "f32", gflops })
        };
        let halves = ceiling::tiles(&pool, span);
        let halves = halves.map(|gflops| Compute { isa: Isa::Amx.name(), dtype: "bf16", gflops });
        let memory = size_of_val(buffer) as u64;
        let each = threads as u64;
        // Half of a cache, so that what else is in it does not matter; a shared last level by the half of what one
        // sweep displaces at most.
        let sizes = [
            ("L1", Some(caches.l1d * each), caches.l1d * each / 2),
            ("L2", Some(caches.l2 * each), caches.l2 * each / 2),
            ("L3", Some(caches.l3), (caches.l3 / 2).min(32 * MIB)),
            ("DRAM", None, memory),
        ];
        let levels = sizes.into_iter().filter(|(_, _, bytes)| *bytes > 0).map(|(name, holds_bytes, measured_bytes)| {
            let measured_bytes = measured_bytes.min(memory);
            let part = &mut buffer[..(measured_bytes / 4) as usize];
            // A pass through memory takes longer than a span, and the best of two is not yet the best.
            let span = if name == "DRAM" { 5 * span } else { span };
            let read_gbps = ceiling::read(part, &pool, span);
            Level { name, holds_bytes, measured_bytes, read_gbps, copy_gbps: ceiling::copy(part, span) }
        });
        Ceilings {
            device: "cpu".to_owned(),
            threads,
            levels: levels.collect(),
            compute: sets.into_iter().filter_map(compute).chain(halves).collect(),
        }
    }

    /// GFLOP/s of the best instruction set for factors of a type; what is measured for f32 holds for others, too.
    pub(crate) fn peak(&self, dtype: &str) -> f64 {
        let for_it = self.compute.iter().filter(|c| c.dtype == "f32" || c.dtype == dtype);
        for_it.map(|c| c.gflops).fold(0.0, f64::max)
    }

    /// GFLOP/s of the best vectors: goals were stated as shares of what those reach.
    pub(crate) fn vectors(&self) -> f64 {
        self.compute.iter().filter(|c| c.isa != Isa::Amx.name()).map(|c| c.gflops).fold(0.0, f64::max)
    }

    /// The level that a call of this many bytes is held against; memory if the caches are cold.
    pub(crate) fn level(&self, bytes: u64, cold: bool) -> Option<&Level> {
        match cold {
            true => self.levels.last(),
            false => self.levels.iter().find(|level| level.holds_bytes.is_none_or(|most| bytes <= most)),
        }
    }
}

/// Bytes of the buffer that cold cases sweep through: twice the last cache, 64 to 512 MiB.
pub(crate) fn sweep_bytes(caches: &Caches) -> u64 {
    (2 * caches.l3.max(caches.l2)).clamp(64 * MIB, 512 * MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_size() {
        let caches = Caches { l1d: 32 << 10, l2: MIB, l3: 0 };
        assert_eq!(sweep_bytes(&caches), 64 * MIB);
        let mut buffer = vec![1.0; 1 << 18];
        let ceilings = Ceilings::measure(1, &caches, &mut buffer, Duration::from_micros(200));
        let name = |bytes, cold| ceilings.level(bytes, cold).map(|l| l.name);
        assert_eq!(
            [name(1000, false), name(100_000, false), name(10_000_000, false)],
            [Some("L1"), Some("L2"), Some("DRAM")]
        );
        assert_eq!(name(1000, true), Some("DRAM"));
        assert!(ceilings.peak("f32") > 0.0 && ceilings.levels.iter().all(|l| l.read_gbps > 0.0 && l.copy_gbps > 0.0));
    }
}
