//! One kernel call on owned arrays, run again and again without an allocation.

use kernels::contract::{Contract, Variant};
use kernels::operand::{Call, Mat, MatMut, Operand};
use kernels::philox::{Rng, Stream};
use kernels::{Access, Array, BitMask, Isa, Pool, Trial};
use kernels::{BitMat, BitMatMut};

/// A call of one variant, on one thread. What the variant prepares from its weights is made once, as in a program whose
/// weights do not change; [`Work::prepare`] makes it again.
pub struct Work {
    trial: Trial,
    variant: &'static Variant,
    pool: Pool,
    shared: Vec<f32>,
    workers: Vec<f32>,
    prepared: Vec<f32>,
    /// Words of every argument of written bits; empty for others.
    words: Vec<Vec<u32>>,
}

impl Work {
    /// A call with its workspace.
    pub fn new(trial: Trial, variant: &'static Variant) -> Work {
        let need = (variant.scratch)(&trial.dims);
        let [shared, workers, prepared] =
            [need.shared, need.worker, variant.prepared_len(&trial.dims)].map(|n| vec![0.0; n]);
        let words = trial.args.iter().map(|array| match array {
            Array::Bits(mask) => mask.words().to_vec(),
            _ => Vec::new(),
        });
        let words = words.collect();
        let mut work = Work { words, trial, variant, pool: Pool::serial(), shared, workers, prepared };
        work.prepare();
        work
    }

    /// Runs the variant's first stage, if it has one.
    pub fn prepare(&mut self) {
        if let Some(prepare) = self.variant.prepare {
            self.stage(prepare.run);
        }
    }

    /// Runs it once.
    pub fn run(&mut self) {
        self.stage(self.variant.run);
    }

    fn stage(&mut self, run: fn(&mut Call<'_>)) {
        let mut args = std::array::from_fn(|_| Operand::Absent);
        let held = self.trial.args.iter_mut().zip(&mut self.words).zip(self.trial.op.args);
        for (operand, ((array, words), arg)) in args.iter_mut().zip(held) {
            *operand = operand_of(array, words, arg.access != Access::Read);
        }
        let (shared, workers, prepared) = (&mut self.shared[..], &mut self.workers[..], &mut self.prepared[..]);
        run(&mut Call { shared, prepared, workers, ..Call::new(&self.trial.dims, &self.pool, args) });
    }

    /// The first output, if it is F32.
    ///
    /// # Panics
    /// If it is not.
    pub fn output(&self) -> &[f32] {
        let first = self.trial.op.args.iter().position(|arg| arg.access == Access::Write);
        first.map_or(&[][..], |at| self.trial.args[at].f32())
    }

    /// Arithmetic as if every weight were kept, from the contract.
    pub fn flops(&self) -> u64 {
        (self.trial.op.flops)(&self.trial.dims)
    }

    /// Least traffic, from the contract.
    pub fn bytes(&self) -> u64 {
        let shapes: Vec<_> = self.trial.args.iter().map(Array::shape).collect();
        self.trial.op.bytes(&shapes)
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

fn operand_of<'a>(array: &'a mut Array, words: &'a mut [u32], written: bool) -> Operand<'a> {
    macro_rules! matrix {
        ($v:expr, $r:expr, $c:expr, $Read:ident, $Write:ident) => {
            match written {
                true => Operand::$Write(MatMut::dense($v, *$r, *$c)),
                false => Operand::$Read(Mat::dense($v, *$r, *$c)),
            }
        };
    }
    match array {
        Array::Absent => Operand::Absent,
        Array::F32(r, c, v) => matrix!(v, r, c, F32, F32Mut),
        Array::F16(r, c, v) => matrix!(v, r, c, F16, F16Mut),
        Array::Bf16(r, c, v) => matrix!(v, r, c, Bf16, Bf16Mut),
        Array::U32(r, c, v) => matrix!(v, r, c, U32, U32Mut),
        Array::U16(r, c, v) => matrix!(v, r, c, U16, U16Mut),
        Array::U8(r, c, v) => matrix!(v, r, c, U8, U8Mut),
        Array::Bits(mask) => {
            let (rows, cols, ld) = (mask.rows() as usize, mask.cols() as usize, mask.words_per_row());
            match written {
                true => Operand::BitsMut(BitMatMut { words, rows, cols, ld }),
                false => Operand::Bits(BitMat { words: mask.words(), rows, cols, ld }),
            }
        }
    }
}
