//! The contract: an op as a value, and the one place where shapes are checked.

pub mod cuda;
mod variant;
pub mod wgsl;

use crate::reference::Reference;
use crate::simd::Isa;

pub(crate) use cuda::cuda_variants;
#[cfg(feature = "launches")]
pub(crate) use cuda::module;
pub use cuda::{Cuda, Launch};
pub use variant::{Prepare, Scratch, Stage, Variant};
pub use wgsl::{Dispatch, GpuFeature, Wgsl};

/// Most arguments of one op: WebGPU's default number of storage buffers per stage.
pub const MAX_ARGS: usize = 8;
/// Most scalars of one op.
pub const MAX_SCALARS: usize = 8;

/// Element type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision, storage only: maths and accumulation are f32.
    F16,
    /// The upper half of IEEE single precision, storage only: sums are f32.
    Bf16,
    /// Unsigned 32-bit integers: ids, counters, random state.
    U32,
    /// Unsigned 16-bit integers: column indices of packed rows.
    U16,
    /// Bytes: image frames, validity flags, codes.
    U8,
    /// One bit per element; rows padded to whole 32-bit words, column `j` is bit `j % 32` of word `j / 32`, pad bits 0.
    Bits,
}

impl DType {
    /// Storage units of one row of `cols` elements: 32-bit words for [`DType::Bits`], elements otherwise.
    pub const fn row_units(self, cols: u32) -> u32 {
        match self {
            DType::Bits => cols.div_ceil(32),
            _ => cols,
        }
    }

    /// Bytes of one storage unit.
    pub const fn unit_bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::Bits => 4,
            DType::F16 | DType::Bf16 | DType::U16 => 2,
            DType::U8 => 1,
        }
    }

    /// Bytes of a matrix without gaps.
    pub const fn bytes(self, rows: u32, cols: u32) -> usize {
        rows as usize * self.row_units(cols) as usize * self.unit_bytes()
    }
}

/// What an op does with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is written; what was there before has no influence.
    Write,
    /// Read and written: optimiser state.
    Update,
}

/// One argument: name, element types it may have, dimensions as letters.
///
/// If several arguments have a choice of types, one of them decides ([`Arg::dtype_beside`]).
///
/// One letter is a row vector `[1, n]`, two are a matrix; a digit is a fixed size. The same letter means the same
/// size in all arguments of a call. An optional argument may be absent; an absent output is not computed.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Name in errors and docs, as in `method.md`.
    pub name: &'static str,
    /// Allowed element types.
    pub dtypes: &'static [DType],
    /// One or two dimension letters.
    pub dims: &'static [char],
    /// Direction.
    pub access: Access,
    /// May be absent.
    pub optional: bool,
}

/// An argument that is only read.
pub const fn read(name: &'static str, dtypes: &'static [DType], dims: &'static [char]) -> Arg {
    Arg { name, dtypes, dims, access: Access::Read, optional: false }
}

/// An argument that is written whole.
pub const fn write(name: &'static str, dtypes: &'static [DType], dims: &'static [char]) -> Arg {
    Arg { name, dtypes, dims, access: Access::Write, optional: false }
}

/// An argument that is read and written in place.
pub const fn update(name: &'static str, dtypes: &'static [DType], dims: &'static [char]) -> Arg {
    Arg { name, dtypes, dims, access: Access::Update, optional: false }
}

impl Arg {
    /// Element type in calls whose [`Contract::typed_arg`] has type `typed`: the same if it may be that, else its first.
    pub fn dtype_beside(&self, typed: DType) -> DType {
        if self.dtypes.contains(&typed) { typed } else { self.dtypes[0] }
    }

    /// The same argument, allowed to be absent.
    pub const fn optional(self) -> Arg {
        Arg { optional: true, ..self }
    }
}

/// Shorthand for argument lists.
pub const F32: &[DType] = &[DType::F32];
/// Shorthand for argument lists.
pub const F16: &[DType] = &[DType::F16];
/// Shorthand for argument lists: f32 or f16, see [`Arg::dtype_beside`].
pub const F32_F16: &[DType] = &[DType::F32, DType::F16];
/// Shorthand for argument lists: f32, bf16 or f16, see [`Arg::dtype_beside`].
pub const REAL: &[DType] = &[DType::F32, DType::Bf16, DType::F16];
/// Shorthand for argument lists.
pub const U32: &[DType] = &[DType::U32];
/// Shorthand for argument lists.
pub const U16: &[DType] = &[DType::U16];
/// Shorthand for argument lists.
pub const U8: &[DType] = &[DType::U8];
/// Shorthand for argument lists.
pub const BITS: &[DType] = &[DType::Bits];

/// Sizes bound to letters, and the scalars of one call.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    letters: [(char, u32); 16],
    len: usize,
    scalars: [u32; MAX_SCALARS],
}

impl Dims {
    /// Binds nothing yet.
    pub fn new(scalars: &[u32]) -> Dims {
        let mut all = [0; MAX_SCALARS];
        all[..scalars.len()].copy_from_slice(scalars);
        Dims { letters: [(' ', 0); 16], len: 0, scalars: all }
    }

    /// Size bound to a letter, if an argument that has it is present.
    pub fn get(&self, letter: char) -> Option<u32> {
        self.letters[..self.len].iter().find(|(l, _)| *l == letter).map(|(_, n)| *n)
    }

    /// Size bound to a letter.
    ///
    /// # Panics
    /// If no present argument has the letter: a broken contract, not bad input.
    pub fn size(&self, letter: char) -> usize {
        self.get(letter).unwrap_or_else(|| panic!("dim `{letter}` is not bound by any argument")) as usize
    }

    /// Scalar `at` as an integer.
    pub fn scalar(&self, at: usize) -> u32 {
        self.scalars[at]
    }

    /// Scalar `at` as a float (scalars are 32 raw bits).
    pub fn scalar_f32(&self, at: usize) -> f32 {
        f32::from_bits(self.scalars[at])
    }

    /// Checks that a letter equals a product of others, for [`Contract::check`].
    ///
    /// # Errors
    /// A sentence with the letter, the product and both values.
    pub fn product_is(&self, letter: char, product: &str, value: usize) -> Result<(), String> {
        match self.size(letter) == value {
            true => Ok(()),
            false => Err(format!("dim `{letter}` is {} but {product} is {value}", self.size(letter))),
        }
    }

    fn bind(&mut self, letter: char, size: u32) -> Result<(), u32> {
        if let Some(fixed) = letter.to_digit(10) {
            return if fixed == size { Ok(()) } else { Err(fixed) };
        }
        match self.get(letter) {
            Some(bound) if bound == size => Ok(()),
            Some(bound) => Err(bound),
            None => {
                self.letters[self.len] = (letter, size);
                self.len += 1;
                Ok(())
            }
        }
    }
}

/// Shape and element type of one present argument, as a caller states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgShape {
    /// Element type.
    pub dtype: DType,
    /// Rows; 1 for a vector.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
}

/// Why arguments do not fit a contract. The caller adds labels and the recording line.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// More or fewer arguments than the contract has.
    Count {
        /// Arguments of the contract.
        expected: usize,
        /// Arguments given.
        found: usize,
    },
    /// More or fewer scalars than the contract has.
    Scalars {
        /// Scalars of the contract.
        expected: usize,
        /// Scalars given.
        found: usize,
    },
    /// A required argument is absent.
    Missing {
        /// Index into [`Contract::args`].
        arg: usize,
    },
    /// Element type not allowed.
    Type {
        /// Index into [`Contract::args`].
        arg: usize,
        /// What was given.
        found: DType,
    },
    /// A letter has two sizes.
    Dim {
        /// The letter; a digit if the contract fixes the size.
        letter: char,
        /// Size bound before.
        expected: u32,
        /// Index of the argument that bound it (the same as `arg` for a fixed size).
        first: usize,
        /// Size found.
        found: u32,
        /// Index of the argument that disagrees.
        arg: usize,
    },
    /// A vector was given with more than one row.
    NotVector {
        /// Index into [`Contract::args`].
        arg: usize,
        /// Rows given.
        rows: u32,
    },
    /// The contract's own relation between sizes and scalars does not hold.
    Relation(String),
}

/// How far a kernel may be from the f64 reference.
///
/// The error of a variant, `max |got - reference|` per output, may be at most `times` that of the contract's first
/// (plain) variant on the same data, or `floor * max |reference|` if that is larger. The plain variant itself must
/// stay below `plain * max |reference|`. Integer and bit outputs must be equal.
#[derive(Clone, Copy, Debug)]
pub struct Tol {
    /// Factor on the plain variant's error.
    pub times: f32,
    /// Floor relative to the largest reference value.
    pub floor: f32,
    /// Bound of the plain variant relative to the largest reference value.
    pub plain: f32,
    /// What counts instead for calls whose first argument is bf16; the reference gets the rounded values. Those on f16 are
    /// held to the tolerance of f32, which holds a product of two of them exactly.
    pub bf16: Option<&'static Tol>,
}

impl Tol {
    /// Twice the plain f32 loop's error, with a floor (the rule Dao-AILab/flash-attention tests by).
    pub const fn times_plain(times: f32, floor: f32) -> Tol {
        Tol { times, floor, plain: 1e-5, bf16: None }
    }

    /// The same, with a tolerance of its own for bf16.
    pub const fn with_bf16(self, bf16: &'static Tol) -> Tol {
        Tol { bf16: Some(bf16), ..self }
    }

    /// What counts for calls whose first argument has this element type.
    pub fn of(&self, dtype: DType) -> Tol {
        self.bf16.filter(|_| dtype == DType::Bf16).copied().unwrap_or(*self)
    }

    /// Bit for bit.
    pub const fn exact() -> Tol {
        Tol { times: 0.0, floor: 0.0, plain: 0.0, bf16: None }
    }
}

/// An op as a value.
pub struct Contract {
    /// Unique name; the id used by benches and the profiler.
    pub name: &'static str,
    /// What it computes, in one line.
    pub formula: &'static str,
    /// Arguments in the order of every backend.
    pub args: &'static [Arg],
    /// Names of the scalars (32 raw bits each).
    pub scalars: &'static [&'static str],
    /// Accuracy.
    pub tol: Tol,
    /// Relations between sizes and scalars that letters cannot state.
    pub check: fn(&Dims) -> Result<(), String>,
    /// Floating point operations.
    pub flops: fn(&Dims) -> u64,
    /// The meaning, in f64, obviously right and never optimised.
    pub reference: fn(&mut Reference),
    /// CPU variants, plain first, best last.
    pub cpu: &'static [Variant],
    /// CUDA variants, plain first, best last; empty without the feature `launches`.
    pub cuda: &'static [Cuda],
    /// WGSL sources, plain first, best last; empty without the feature `wgsl`.
    pub wgsl: &'static [Wgsl],
}

/// A list of WGSL sources, empty in builds without them.
#[cfg(feature = "wgsl")]
macro_rules! wgsl_sources {
    ($($source:expr),* $(,)?) => { &[$($source),*] };
}
/// A list of WGSL sources, empty in builds without them.
#[cfg(not(feature = "wgsl"))]
macro_rules! wgsl_sources {
    ($($source:expr),* $(,)?) => {
        &[]
    };
}
pub(crate) use wgsl_sources;

/// A file that calls the type of its elements `Real`, for f32.
#[cfg(feature = "wgsl")]
macro_rules! wgsl_of_f32 {
    ($file:literal) => {
        concat!("alias Real = f32;\n", include_str!($file))
    };
}
/// The same file for f16.
#[cfg(feature = "wgsl")]
macro_rules! wgsl_of_f16 {
    ($file:literal) => {
        concat!("enable f16;\nalias Real = f16;\n", include_str!($file))
    };
}
#[cfg(feature = "wgsl")]
pub(crate) use {wgsl_of_f16, wgsl_of_f32};

/// No relation beyond the letters.
pub fn no_check(_: &Dims) -> Result<(), String> {
    Ok(())
}

impl Contract {
    /// Binds letters to sizes, or says which argument disagrees. Optional arguments at the end may be left out.
    ///
    /// # Errors
    /// The first [`Mismatch`] in argument order.
    pub fn unify(&self, args: &[Option<ArgShape>], scalars: &[u32]) -> Result<Dims, Mismatch> {
        if args.len() > self.args.len() || self.args[args.len()..].iter().any(|arg| !arg.optional) {
            return Err(Mismatch::Count { expected: self.args.len(), found: args.len() });
        }
        if scalars.len() != self.scalars.len() {
            return Err(Mismatch::Scalars { expected: self.scalars.len(), found: scalars.len() });
        }
        let typed = self.typed_arg();
        let decides = args.get(typed).copied().flatten().map(|given| given.dtype);
        let mut dims = Dims::new(scalars);
        for (at, (arg, given)) in self.args.iter().zip(args).enumerate() {
            let Some(given) = given else {
                if arg.optional {
                    continue;
                }
                return Err(Mismatch::Missing { arg: at });
            };
            if !arg.dtypes.contains(&given.dtype) {
                return Err(Mismatch::Type { arg: at, found: given.dtype });
            }
            if let Some(other) = decides.filter(|other| arg.dtype_beside(*other) != given.dtype) {
                let (name, dtype, first) = (arg.name, given.dtype, self.args[typed].name);
                return Err(Mismatch::Relation(format!("{name} is {dtype:?} but {first} is {other:?}")));
            }
            let sizes: &[u32] = match arg.dims {
                [_] if given.rows != 1 => return Err(Mismatch::NotVector { arg: at, rows: given.rows }),
                [_] => &[given.cols],
                _ => &[given.rows, given.cols],
            };
            for (&letter, &size) in arg.dims.iter().zip(sizes) {
                dims.bind(letter, size).map_err(|expected| Mismatch::Dim {
                    letter,
                    expected,
                    first: self.first_with(letter, args, at),
                    found: size,
                    arg: at,
                })?;
            }
        }
        (self.check)(&dims).map_err(Mismatch::Relation)?;
        Ok(dims)
    }

    /// The argument whose element type decides between variants: the first of those with the most choices.
    pub fn typed_arg(&self) -> usize {
        let most = self.args.iter().map(|arg| arg.dtypes.len()).max();
        self.args.iter().position(|arg| Some(arg.dtypes.len()) == most).unwrap_or(0)
    }

    fn first_with(&self, letter: char, args: &[Option<ArgShape>], at: usize) -> usize {
        let bound = |i: &usize| args[*i].is_some() && self.args[*i].dims.contains(&letter);
        (0..at).find(bound).unwrap_or(at)
    }

    /// Least traffic of a call: every present argument once, updates twice.
    pub fn bytes(&self, args: &[Option<ArgShape>]) -> u64 {
        let one = |(arg, given): (&Arg, &Option<ArgShape>)| {
            let times = if arg.access == Access::Update { 2 } else { 1 };
            given.map_or(0, |s| times * s.dtype.bytes(s.rows, s.cols) as u64)
        };
        self.args.iter().zip(args).map(one).sum()
    }

    /// The variants that this CPU supports for calls whose first argument has this element type, plain first.
    pub fn variants(&self, isa: Isa, dtype: DType) -> impl DoubleEndedIterator<Item = &'static Variant> + use<> {
        let own = Some(dtype).filter(|_| self.cpu.iter().any(|v| v.only == Some(dtype)));
        self.cpu.iter().filter(move |v| v.only == own && isa.has(v.needs))
    }

    /// The variant to run on this CPU for the first argument's usual element type.
    pub fn best(&self, isa: Isa) -> &'static Variant {
        self.best_for(isa, self.args[0].dtypes[0])
    }

    /// The variant to run on this CPU if the first argument has this element type: the last one it supports.
    pub fn best_for(&self, isa: Isa, dtype: DType) -> &'static Variant {
        self.variants(isa, dtype).next_back().unwrap_or(&self.cpu[0])
    }
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
