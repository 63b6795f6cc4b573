//! One call of an op outside a program: its workspace is allocated once, then it runs any number of times.

use crate::error::{Error, Result};
use engine::kernels::contract::{ArgShape, MAX_ARGS};
use engine::kernels::ops::cosine::{COSINE, COSINE_TOPK};
use engine::kernels::{Call, Contract, DType, Dims, Isa, Mat, MatMut, Operand, Pool, Variant};

/// A call of fixed sizes.
pub(crate) struct Single {
    dims: Dims,
    variant: &'static Variant,
    pool: Pool,
    shared: Vec<f32>,
    workers: Vec<f32>,
    queries: usize,
    rows: usize,
    width: usize,
    best: usize,
}

impl Single {
    /// `cosine` of `queries` rows with `rows` rows of `width` numbers.
    ///
    /// # Errors
    /// [`Error::Size`] for sizes no kernel takes.
    pub(crate) fn cosine(queries: usize, rows: usize, width: usize) -> Result<Single> {
        let shapes = [(queries, width, DType::F32), (rows, width, DType::F32), (queries, rows, DType::F32)];
        Single::new(&COSINE, &shapes, [queries, rows, width, 0])
    }

    /// `cosine_topk`: the `best` largest of every query.
    ///
    /// # Errors
    /// As [`Single::cosine`], and if there are fewer than `best` rows.
    pub(crate) fn topk(queries: usize, rows: usize, width: usize, best: usize) -> Result<Single> {
        let (q, p) = ((queries, width, DType::F32), (rows, width, DType::F32));
        let shapes = [q, p, (queries, best, DType::F32), (queries, best, DType::U32)];
        Single::new(&COSINE_TOPK, &shapes, [queries, rows, width, best])
    }

    fn new(op: &'static Contract, shapes: &[(usize, usize, DType)], sizes: [usize; 4]) -> Result<Single> {
        let shape = |(rows, cols, dtype): &(usize, usize, DType)| -> Option<ArgShape> {
            Some(ArgShape { dtype: *dtype, rows: u32::try_from(*rows).ok()?, cols: u32::try_from(*cols).ok()? })
        };
        let shapes: Vec<Option<ArgShape>> = shapes.iter().map(shape).collect();
        let bad = |why: String| Error::Size { what: op.name, why };
        if shapes.iter().any(Option::is_none) {
            return Err(bad(format!("{sizes:?} does not fit 32 bits")));
        }
        let dims = op.unify(&shapes, &[]).map_err(|e| bad(format!("{e:?}")))?;
        let (variant, pool) = (op.best_for(Isa::detect(), DType::F32), Pool::serial());
        let scratch = (variant.scratch)(&dims);
        let [queries, rows, width, best] = sizes;
        let (shared, workers) = (vec![0.0; scratch.shared], vec![0.0; scratch.of_workers(pool.workers())]);
        Ok(Single { dims, variant, pool, shared, workers, queries, rows, width, best })
    }

    /// Writes `y[queries, rows]`; lengths were given to [`Single::cosine`].
    pub(crate) fn scores(&mut self, q: &[f32], p: &[f32], y: &mut [f32]) {
        let (n, m, d) = (self.queries, self.rows, self.width);
        let mut args: [Operand<'_>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
        args[0] = Operand::F32(Mat::dense(q, n, d));
        args[1] = Operand::F32(Mat::dense(p, m, d));
        args[2] = Operand::F32Mut(MatMut::dense(y, n, m));
        self.run(args);
    }

    /// Writes `score[queries, best]` and `index[queries, best]`; lengths were given to [`Single::topk`].
    pub(crate) fn select(&mut self, q: &[f32], p: &[f32], score: &mut [f32], index: &mut [u32]) {
        let (n, m, d, k) = (self.queries, self.rows, self.width, self.best);
        let mut args: [Operand<'_>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
        args[0] = Operand::F32(Mat::dense(q, n, d));
        args[1] = Operand::F32(Mat::dense(p, m, d));
        args[2] = Operand::F32Mut(MatMut::dense(score, n, k));
        args[3] = Operand::U32Mut(MatMut::dense(index, n, k));
        self.run(args);
    }

    fn run(&mut self, args: [Operand<'_>; MAX_ARGS]) {
        let (shared, workers) = (&mut self.shared[..], &mut self.workers[..]);
        self.variant.stage().run(&mut Call { shared, workers, ..Call::new(&self.dims, &self.pool, args) });
    }
}
