//! One call of one variant, run again and again without an allocation: what benchmarks and the profiler time.

use crate::contract::{Access, Stage, Variant};
use crate::operand::{BitMat, BitMatMut, Call, Mat, MatMut, Operand};
use crate::pages;
use crate::par::Pool;
use crate::trial::{Array, Trial};

/// A call with its workspace and workers. What the variant prepares from its weights is made once, as in a program whose
/// weights do not change; [`Repeat::prepare`] makes it again.
pub struct Repeat {
    trial: Trial,
    variant: &'static Variant,
    pool: Pool,
    /// Shared workspace, that of the workers, and what the variant prepares; each with where it begins.
    rooms: [(Vec<f32>, usize); 3],
    /// Words of every argument of bits; empty for others.
    words: Vec<Vec<u32>>,
    /// Where the elements of every other argument begin.
    begins: Vec<usize>,
}

impl Repeat {
    /// A call on the arguments of a trial.
    pub fn new(mut trial: Trial, variant: &'static Variant, pool: Pool) -> Repeat {
        let need = (variant.scratch)(&trial.dims);
        // As in the arenas of a program, at cache lines.
        let lengths = [need.shared, need.of_workers(pool.workers()), variant.prepared_len(&trial.dims)];
        let rooms = lengths.map(|n| pages::copied(&vec![0.0; n]));
        let begins = trial.args.iter_mut().map(|array| match array {
            Array::F32(_, _, values) => at_line(values),
            Array::Bf16(_, _, values) => at_line(values),
            _ => 0,
        });
        let begins = begins.collect();
        let words = trial.args.iter().map(|array| match array {
            Array::Bits(mask) => mask.words().to_vec(),
            _ => Vec::new(),
        });
        let words = words.collect();
        let mut repeat = Repeat { trial, variant, pool, rooms, words, begins };
        repeat.prepare();
        repeat
    }

    /// Runs the variant's first stage; false if it has none.
    pub fn prepare(&mut self) -> bool {
        let stage = self.variant.first_stage();
        stage.into_iter().for_each(|stage| self.stage(stage));
        stage.is_some()
    }

    /// Runs it once.
    pub fn run(&mut self) {
        self.stage(self.variant.stage());
    }

    fn stage(&mut self, stage: Stage) {
        let mut args = std::array::from_fn(|_| Operand::Absent);
        let held = self.trial.args.iter_mut().zip(&mut self.words).zip(&self.begins).zip(self.trial.op.args);
        for (operand, (((array, words), begin), arg)) in args.iter_mut().zip(held) {
            *operand = operand_of(array, words, *begin, arg.access != Access::Read);
        }
        let [shared, workers, prepared] = self.rooms.each_mut().map(|(room, begin)| &mut room[*begin..]);
        let crossover = &*self.trial.crossover;
        stage.run(&mut Call { shared, prepared, workers, crossover, ..Call::new(&self.trial.dims, &self.pool, args) });
    }

    /// What the last run wrote to the first output; empty if that is not f32.
    pub fn output(&self) -> &[f32] {
        let first = self.trial.op.args.iter().position(|arg| arg.access == Access::Write);
        match first.map(|at| (&self.trial.args[at], self.begins[at])) {
            Some((Array::F32(rows, cols, values), begin)) => &values[begin..][..rows * cols],
            _ => &[],
        }
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

/// Moves values to a cache line, and says where that is.
fn at_line<T: Copy>(values: &mut Vec<T>) -> usize {
    let (copy, begin) = pages::copied(values);
    *values = copy;
    begin
}

fn operand_of<'a>(array: &'a mut Array, words: &'a mut [u32], begin: usize, written: bool) -> Operand<'a> {
    macro_rules! matrix {
        ($v:expr, $r:expr, $c:expr, $Read:ident, $Write:ident) => {{
            let v = &mut $v[begin..][..*$r * *$c];
            match written {
                true => Operand::$Write(MatMut::dense(v, *$r, *$c)),
                false => Operand::$Read(Mat::dense(v, *$r, *$c)),
            }
        }};
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
                false => Operand::Bits(BitMat { words, rows, cols, ld }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::DType;
    use crate::crossover::{Crossover, Entry};
    use crate::{BitMask, Isa, ops};

    #[test]
    fn runs_what_the_trial_runs() {
        let op = ops::find("masked_gemm").expect("in the list");
        let floats = |rows: usize, cols: usize| Array::F32(rows, cols, (0..rows * cols).map(|i| i as f32).collect());
        let mask = Array::Bits(BitMask::from_flags(3, 40, (0..120).map(|i| i % 3 == 0)));
        let args =
            vec![floats(5, 40), floats(3, 40), mask, Array::Absent, Array::Absent, Array::output(DType::F32, 5, 3)];
        let trial = Trial::new(op, args, &[]).expect("shapes agree");
        for variant in trial.variants() {
            let mut once = trial.clone();
            once.run(variant, &Pool::serial()).expect("stays inside its outputs");
            let mut repeat = Repeat::new(trial.clone(), variant, Pool::serial());
            (0..3).for_each(|_| repeat.run());
            assert_eq!(repeat.prepare(), variant.first_stage().is_some());
            repeat.run();
            assert_eq!(repeat.output(), once.args[5].f32(), "{}", variant.name);
        }
        let repeat = Repeat::new(trial.clone(), &op.cpu[0], Pool::serial());
        assert_eq!((repeat.flops(), repeat.bytes()), (2 * 5 * 3 * 40, 4 * (200 + 120 + 6 + 15)));
    }

    #[test]
    fn the_table_of_the_trial_chooses() {
        let op = ops::find("masked_gemm").expect("in the list");
        let floats = |rows: usize, cols: usize| Array::F32(rows, cols, (0..rows * cols).map(|i| i as f32).collect());
        let mask = Array::Bits(BitMask::from_flags(3, 40, (0..120).map(|i| i % 3 == 0)));
        let args =
            vec![floats(5, 40), floats(3, 40), mask, Array::Absent, Array::Absent, Array::output(DType::F32, 5, 3)];
        let variant = op.cpu.iter().find(|v| v.name == "by_density").expect("everywhere");
        let prepared = |lists_below_keep| {
            let mut trial = Trial::new(op, args.clone(), &[]).expect("shapes agree");
            let (rows_up_to, width_up_to) = (usize::MAX, usize::MAX);
            let entry = Entry { op: op.name, isa: Isa::Scalar, rows_up_to, width_up_to, lists_below_keep };
            trial.crossover = std::borrow::Cow::Owned(Crossover::new(vec![entry]));
            let [_, _, (prepared, begin)] = Repeat::new(trial, variant, Pool::serial()).rooms;
            prepared[begin]
        };
        assert_ne!(prepared(0.0), prepared(1.0), "the first element notes the choice");
    }
}
