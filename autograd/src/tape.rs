//! Recording: tensors as handles, calls with inferred shapes, and notes for the reverse walk.

use crate::param::{Handles, Param};
use engine::kernels::ops;
use engine::{Builder, Contract, DType, Error, Life, Plan, Result, Slice};
use std::panic::Location;

/// A matrix on a tape. Valid only for the tape that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor(u32);

/// Records one step: forward, backward, update.
///
/// Every recording method checks shapes at once; its errors name the op, the dimension letter, both arguments and the
/// line that called the method. Gradient calls carry the line of their forward call.
pub struct Tape {
    builder: Builder,
    tensors: Vec<Info>,
    pub(crate) params: Vec<Handles>,
    pub(crate) nodes: Vec<Node>,
    /// The line that errors name.
    pub(crate) line: &'static Location<'static>,
    rng: Option<Tensor>,
    dropouts: u32,
    pub(crate) differentiated: bool,
    /// First error of a method that cannot return one; [`Tape::finish`] does.
    defect: Option<Error>,
}

struct Info {
    slice: Slice,
    life: Life,
    /// A gradient is wanted: a trainable parameter, a watched input, or made from one.
    wanted: bool,
    grad: Option<Tensor>,
}

/// What a backward function is given: the tape and the gradient of the node's tensor.
pub(crate) type Rule = Box<dyn FnOnce(&mut Tape, Tensor) -> Result<()> + Send>;

/// How to pass the gradient of `y` on to what `y` was made from.
pub(crate) struct Node {
    pub(crate) y: Tensor,
    pub(crate) line: &'static Location<'static>,
    pub(crate) rule: Rule,
}

impl Default for Tape {
    #[track_caller]
    fn default() -> Tape {
        Tape::new()
    }
}

impl Tape {
    /// An empty tape.
    #[track_caller]
    pub fn new() -> Tape {
        Tape {
            builder: Builder::new(),
            tensors: Vec::new(),
            params: Vec::new(),
            nodes: Vec::new(),
            line: Location::caller(),
            rng: None,
            dropouts: 0,
            differentiated: false,
            defect: None,
        }
    }

    /// A buffer `[rows, cols]` that the host writes before every run. No gradient.
    pub fn input(&mut self, name: &str, dtype: DType, rows: u32, cols: u32) -> Tensor {
        self.buffer(name, dtype, [rows, cols], Life::Input, false)
    }

    /// A buffer `[rows, cols]` that is kept from run to run, zero at first. No gradient.
    pub fn state(&mut self, name: &str, dtype: DType, rows: u32, cols: u32) -> Tensor {
        self.buffer(name, dtype, [rows, cols], Life::State, false)
    }

    /// An F32 input whose gradient is wanted: after [`Tape::backward`], [`Tape::grad_of`] gives it.
    pub fn watched(&mut self, name: &str, rows: u32, cols: u32) -> Tensor {
        self.buffer(name, DType::F32, [rows, cols], Life::Input, true)
    }

    /// An unwritten buffer `[rows, cols]` for an output of [`Tape::call`]. No gradient.
    pub fn temp(&mut self, dtype: DType, rows: u32, cols: u32) -> Tensor {
        self.buffer("temp", dtype, [rows, cols], Life::Temp, false)
    }

    /// Records a call of any contract, a user's own included. No gradient passes through it.
    ///
    /// # Errors
    /// [`Error::Call`] if arguments do not fit the contract, [`Error::Unwritten`] if one was never written.
    #[track_caller]
    pub fn call(&mut self, op: &'static Contract, args: &[Option<Tensor>], scalars: &[u32]) -> Result<()> {
        self.line = Location::caller();
        self.record(op, args, scalars)
    }

    /// The same elements as `[rows, cols]`: same storage, no call.
    ///
    /// # Errors
    /// [`Error::Call`] if the number of elements differs, or if rows of bits would be cut.
    #[track_caller]
    pub fn reshape(&mut self, x: Tensor, rows: u32, cols: u32) -> Result<Tensor> {
        self.line = Location::caller();
        let [from_rows, from_cols] = self.shape(x);
        let count = |rows: u32, cols: u32| u64::from(rows) * u64::from(cols);
        if count(rows, cols) != count(from_rows, from_cols) {
            let name = self.name(x);
            let what = format!("\"{name}\" is {from_rows} x {from_cols}, which is not {rows} x {cols}");
            return Err(self.error("reshape", what));
        }
        let slice = self.slice(x);
        let dtype = self.builder.dtype(slice.buffer);
        if dtype == DType::Bits && cols != from_cols {
            let what = format!("rows of bits in \"{}\" start on whole words and cannot be cut", self.name(x));
            return Err(self.error("reshape", what));
        }
        let slice = Slice { rows, cols, ld: dtype.row_units(cols), ..slice };
        let (life, wanted) = (self.tensors[x.0 as usize].life, self.wants(x));
        let y = self.tensor(slice, life, wanted);
        self.derive(y, &[x], move |tape, dy| {
            let slice = Slice { rows: from_rows, cols: from_cols, ld: from_cols, ..tape.slice(dy) };
            let dx = tape.tensor(slice, Life::Temp, false);
            tape.accumulate(x, dx)
        });
        Ok(y)
    }

    /// Makes `t` readable by the host after a run, under `name`.
    ///
    /// A tensor whose storage already has a name for the host (an input, a state, an earlier output) is copied as it is
    /// at this point of the recording; only F32 can be. If it cannot, [`Tape::finish`] gives the error.
    #[track_caller]
    pub fn output(&mut self, t: Tensor, name: &str) {
        self.line = Location::caller();
        let slice = self.slice(t);
        if self.tensors.iter().all(|info| info.slice.buffer != slice.buffer || info.life == Life::Temp) {
            self.builder.output(slice.buffer, name);
            for info in self.tensors.iter_mut().filter(|info| info.slice.buffer == slice.buffer) {
                info.life = Life::Output;
            }
            return;
        }
        let copy = self.buffer(name, DType::F32, self.shape(t), Life::Output, false);
        if let Err(error) = self.record(&ops::tokens::SELECT, &[Some(t), Some(copy)], &[1, 0]) {
            self.defect.get_or_insert(error);
        }
    }

    /// Rows and columns.
    pub fn shape(&self, t: Tensor) -> [u32; 2] {
        let slice = self.slice(t);
        [slice.rows, slice.cols]
    }

    /// The parameters, in the order of declaration.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.params.iter().map(|p| &p.param)
    }

    /// Ends recording.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two buffers of the host have one name, and what [`Tape::output`] could not do.
    pub fn finish(self) -> Result<Plan> {
        match self.defect {
            Some(error) => Err(error),
            None => self.builder.finish(),
        }
    }

    /// Records a call that names [`Tape::line`] in errors.
    pub(crate) fn record(&mut self, op: &'static Contract, args: &[Option<Tensor>], scalars: &[u32]) -> Result<()> {
        let slices: Vec<_> = args.iter().map(|arg| arg.map(|t| self.slice(t))).collect();
        self.builder.call_at(op, &slices, scalars, self.line)
    }

    /// A temporary for an F32 output of `op`.
    pub(crate) fn make(&mut self, op: &'static Contract, [rows, cols]: [u32; 2]) -> Tensor {
        self.buffer(op.name, DType::F32, [rows, cols], Life::Temp, false)
    }

    pub(crate) fn buffer(
        &mut self,
        name: &str,
        dtype: DType,
        [rows, cols]: [u32; 2],
        life: Life,
        wanted: bool,
    ) -> Tensor {
        let buffer = self.builder.buffer(name, dtype, rows, cols, life);
        let slice = self.builder.whole(buffer);
        self.tensor(slice, life, wanted)
    }

    /// A handle for part of a buffer.
    pub(crate) fn tensor(&mut self, slice: Slice, life: Life, wanted: bool) -> Tensor {
        self.tensors.push(Info { slice, life, wanted, grad: None });
        Tensor(self.tensors.len() as u32 - 1)
    }

    /// Notes how to pass the gradient of `y` on, if anything it was made from wants one.
    pub(crate) fn derive(
        &mut self,
        y: Tensor,
        from: &[Tensor],
        rule: impl FnOnce(&mut Tape, Tensor) -> Result<()> + Send + 'static,
    ) {
        if from.iter().any(|&t| self.wants(t)) {
            self.tensors[y.0 as usize].wanted = true;
            self.nodes.push(Node { y, line: self.line, rule: Box::new(rule) });
        }
    }

    pub(crate) fn slice(&self, t: Tensor) -> Slice {
        self.tensors[t.0 as usize].slice
    }

    pub(crate) fn name(&self, t: Tensor) -> &str {
        self.builder.name(self.slice(t).buffer)
    }

    pub(crate) fn wants(&self, t: Tensor) -> bool {
        // A constant in a small build: rules, and the kernels that they alone call, are then left out by the linker.
        cfg!(not(tsn_small)) && self.tensors[t.0 as usize].wanted
    }

    pub(crate) fn grad_mut(&mut self, t: Tensor) -> &mut Option<Tensor> {
        &mut self.tensors[t.0 as usize].grad
    }

    pub(crate) fn grad_ref(&self, t: Tensor) -> Option<Tensor> {
        self.tensors[t.0 as usize].grad
    }

    pub(crate) fn error(&self, op: &'static str, what: String) -> Error {
        Error::Call { op, what, at: self.line }
    }

    /// The random state and the number of one more dropout use; nothing if `drop` is 0.
    pub(crate) fn dropout_use(&mut self, op: &'static str, drop: f32) -> Result<Option<(Tensor, u32)>> {
        if !(0.0..1.0).contains(&drop) {
            return Err(self.error(op, format!("drop {drop} is outside 0..1")));
        }
        if drop == 0.0 {
            return Ok(None);
        }
        let rng = match self.rng {
            Some(rng) => rng,
            None => self.input("rng", DType::U32, 1, 4),
        };
        self.rng = Some(rng);
        self.dropouts += 1;
        Ok(Some((rng, self.dropouts - 1)))
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({} tensors, {} params)", self.tensors.len(), self.params.len())
    }
}
