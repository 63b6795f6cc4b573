//! One kernel call on owned arrays, run again and again without an allocation.

use kernels::contract::{Contract, Variant};
use kernels::philox::{Rng, Stream};
use kernels::repeat::Repeat;
use kernels::{Array, BitMask, Isa, Pool, Trial};

/// A call of one variant on one thread: [`Repeat`] with what benchmarks of two libraries compare.
pub struct Work(Repeat);

impl Work {
    /// A call with its workspace.
    pub fn new(trial: Trial, variant: &'static Variant) -> Work {
        Work(Repeat::new(trial, variant, Pool::serial()))
    }

    /// Runs the variant's first stage, if it has one.
    pub fn prepare(&mut self) {
        self.0.prepare();
    }

    /// Runs it once.
    pub fn run(&mut self) {
        self.0.run();
    }

    /// What the last run wrote to the first output; empty if that is not f32.
    pub fn output(&self) -> &[f32] {
        self.0.output()
    }

    /// Arithmetic as if every weight were kept, from the contract.
    pub fn flops(&self) -> u64 {
        self.0.flops()
    }

    /// Least traffic, from the contract.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// The variants worth timing on this CPU: all that it supports but the plain loop, unless that is the only one.
pub fn variants(op: &'static Contract) -> impl Iterator<Item = &'static Variant> {
    let alone = op.cpu.len() == 1;
    op.variants(Isa::detect(), op.args[0].dtypes[0]).filter(move |v| alone || v.name != "plain")
}

/// A call; shapes of benchmarks are right by construction.
///
/// # Panics
/// If the arguments do not fit the contract: the benchmark is wrong.
pub fn trial(op: &'static Contract, args: Vec<Array>, scalars: &[u32]) -> Trial {
    Trial::new(op, args, scalars).unwrap_or_else(|mismatch| panic!("{op:?}: {mismatch:?}"))
}

/// Values in `-1..1`; `seed` tells the arguments of a call apart.
pub fn values(seed: u64, rows: usize, cols: usize) -> Array {
    let mut rng = Rng::new(seed, Stream::Data, [rows as u32, cols as u32]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.uniform(-1.0, 1.0) as f32).collect())
}

/// Bytes such as frames have.
pub fn bytes(seed: u64, rows: usize, cols: usize) -> Array {
    let mut rng = Rng::new(seed, Stream::Data, [rows as u32, cols as u32]);
    Array::U8(rows, cols, (0..rows * cols).map(|_| rng.u32() as u8).collect())
}

/// A random mask that keeps about `density` of its entries.
pub fn bits(seed: u64, rows: usize, cols: usize, density: f64) -> Array {
    let mut rng = Rng::new(seed, Stream::Data, [rows as u32, cols as u32]);
    let flags: Vec<bool> = (0..rows * cols).map(|_| rng.unit() < density).collect();
    Array::Bits(BitMask::from_flags(rows as u32, cols as u32, flags))
}

/// An F32 output.
pub fn output(rows: usize, cols: usize) -> Array {
    Array::output(kernels::DType::F32, rows, cols)
}
