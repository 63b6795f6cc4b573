//! One call on owned arrays: what tests and benchmarks use to run a variant alone and to hold it against f64.

use crate::Crossover;
use crate::bits::BitMask;
use crate::contract::{Access, ArgShape, Contract, DType, Dims, MAX_ARGS, Mismatch, Variant};
use crate::operand::{BitMat, BitMatMut, Call, Mat, MatMut, Operand};
use crate::par::Pool;
use crate::reference::{Reference, Value};
use crate::simd::Isa;
use half::{bf16, f16};
use std::borrow::Cow;

/// Elements before and after every output that must not change.
const GUARD: usize = 16;

/// An owned argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Left out.
    Absent,
    /// Rows, columns, elements.
    F32(usize, usize, Vec<f32>),
    /// Rows, columns, elements.
    F16(usize, usize, Vec<f16>),
    /// Rows, columns, elements.
    Bf16(usize, usize, Vec<bf16>),
    /// Rows, columns, elements.
    U32(usize, usize, Vec<u32>),
    /// Rows, columns, elements.
    U16(usize, usize, Vec<u16>),
    /// Rows, columns, elements.
    U8(usize, usize, Vec<u8>),
    /// Packed bits.
    Bits(BitMask),
}

impl Array {
    /// An output of a type and size, filled with garbage that a kernel must overwrite (NaN for floats).
    pub fn output(dtype: DType, rows: usize, cols: usize) -> Array {
        let n = rows * cols;
        match dtype {
            DType::F32 => Array::F32(rows, cols, vec![f32::NAN; n]),
            DType::F16 => Array::F16(rows, cols, vec![f16::NAN; n]),
            DType::Bf16 => Array::Bf16(rows, cols, vec![bf16::NAN; n]),
            DType::U32 => Array::U32(rows, cols, vec![0xDEAD_BEEF; n]),
            DType::U16 => Array::U16(rows, cols, vec![0xDEAD; n]),
            DType::U8 => Array::U8(rows, cols, vec![0xDE; n]),
            DType::Bits => Array::Bits(BitMask::ones(rows as u32, cols as u32)),
        }
    }

    /// Type and size; `None` if absent.
    pub fn shape(&self) -> Option<ArgShape> {
        let (dtype, rows, cols) = match self {
            Array::Absent => return None,
            Array::F32(r, c, _) => (DType::F32, *r, *c),
            Array::F16(r, c, _) => (DType::F16, *r, *c),
            Array::Bf16(r, c, _) => (DType::Bf16, *r, *c),
            Array::U32(r, c, _) => (DType::U32, *r, *c),
            Array::U16(r, c, _) => (DType::U16, *r, *c),
            Array::U8(r, c, _) => (DType::U8, *r, *c),
            Array::Bits(m) => (DType::Bits, m.rows() as usize, m.cols() as usize),
        };
        Some(ArgShape { dtype, rows: rows as u32, cols: cols as u32 })
    }

    /// The elements in f64, or as integers.
    pub fn value(&self) -> Value {
        match self {
            Array::Absent => Value::Absent,
            Array::F32(_, _, v) => Value::F(v.iter().map(|x| f64::from(*x)).collect()),
            Array::F16(_, _, v) => Value::F(v.iter().map(|x| f64::from(x.to_f32())).collect()),
            Array::Bf16(_, _, v) => Value::F(v.iter().map(|x| f64::from(x.to_f32())).collect()),
            Array::U32(_, _, v) => Value::U(v.clone()),
            Array::U16(_, _, v) => Value::U(v.iter().map(|x| u32::from(*x)).collect()),
            Array::U8(_, _, v) => Value::U(v.iter().map(|x| u32::from(*x)).collect()),
            Array::Bits(m) => Value::U(m.flags().map(u32::from).collect()),
        }
    }

    /// The same values rounded to bf16, if they are f32.
    pub fn rounded(self) -> Array {
        match self {
            Array::F32(r, c, v) => Array::Bf16(r, c, v.into_iter().map(bf16::from_f32).collect()),
            other => other,
        }
    }

    /// The f32 elements.
    ///
    /// # Panics
    /// If the array holds another type.
    pub fn f32(&self) -> &[f32] {
        match self {
            Array::F32(_, _, v) => v,
            other => panic!("not f32: {:?}", other.shape()),
        }
    }
}

/// A call on owned arrays.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The op.
    pub op: &'static Contract,
    /// Sizes and scalars.
    pub dims: Dims,
    /// Arguments in contract order.
    pub args: Vec<Array>,
    /// Where one way to compute overtakes another; the shipped table unless it is replaced.
    pub crossover: Cow<'static, Crossover>,
}

impl Trial {
    /// Checks the arguments against the contract.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn new(op: &'static Contract, mut args: Vec<Array>, scalars: &[u32]) -> Result<Trial, Mismatch> {
        let shapes: Vec<_> = args.iter().map(Array::shape).collect();
        let dims = op.unify(&shapes, scalars)?;
        args.resize_with(op.args.len(), || Array::Absent);
        Ok(Trial { op, dims, args, crossover: Cow::Borrowed(Crossover::SHIPPED) })
    }

    /// Element type of [`Contract::typed_arg`], which decides between variants.
    pub fn dtype(&self) -> DType {
        self.args.get(self.op.typed_arg()).and_then(Array::shape).map_or(DType::F32, |s| s.dtype)
    }

    /// The variants that run this call on this CPU, plain first.
    pub fn variants(&self) -> impl DoubleEndedIterator<Item = &'static Variant> + use<> {
        self.op.variants(Isa::detect(), self.dtype())
    }

    /// Runs a variant; outputs and updates in `args` change.
    ///
    /// # Errors
    /// If a word outside an output changed.
    pub fn run(&mut self, variant: &Variant, pool: &Pool) -> Result<(), String> {
        let scratch = (variant.scratch)(&self.dims);
        // NaN: a kernel that reads its workspace before writing it is found out.
        let mut shared = vec![f32::NAN; scratch.shared];
        let mut workers = vec![f32::NAN; scratch.of_workers(pool.workers())];
        let mut prepared = vec![f32::NAN; variant.prepared_len(&self.dims)];
        let mut guarded: Vec<Guarded> = self.args.iter().map(Guarded::new).collect();
        for stage in variant.stages() {
            let mut args: [Operand<'_>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
            for ((operand, arg), held) in args.iter_mut().zip(self.op.args).zip(&mut guarded) {
                *operand = held.operand(arg.access != Access::Read);
            }
            let (shared, workers, prepared) = (&mut shared[..], &mut workers[..], &mut prepared[..]);
            let crossover = &*self.crossover;
            stage.run(&mut Call { shared, prepared, workers, crossover, ..Call::new(&self.dims, pool, args) });
        }
        for ((array, held), arg) in self.args.iter_mut().zip(guarded).zip(self.op.args) {
            *array = held.finish().ok_or_else(|| format!("{}: wrote outside {}", self.op.name, arg.name))?;
        }
        Ok(())
    }

    /// The same call in f64.
    pub fn reference(&self) -> Reference {
        let dtypes = self.args.iter().map(|a| a.shape().map_or(DType::F32, |s| s.dtype)).collect();
        let mut r = Reference { dims: self.dims, dtypes, args: self.args.iter().map(Array::value).collect() };
        (self.op.reference)(&mut r);
        r
    }

    /// Runs every variant this CPU supports and holds it against f64 by the contract's tolerance; each variant must
    /// also give the same bits twice and for 1, 2 and 3 workers.
    ///
    /// # Errors
    /// A sentence with op, variant, output, error and bound.
    pub fn verify(&self) -> Result<(), String> {
        let expected = self.reference();
        let pools = [Pool::serial(), Pool::new(2), Pool::new(3)];
        let mut plain_errors = None;
        for variant in self.variants() {
            let mut got = self.clone();
            got.run(variant, &pools[0])?;
            for pool in &pools[1..] {
                let mut again = self.clone();
                again.run(variant, pool)?;
                if !same_bits(&again.args, &got.args) {
                    return Err(format!("{} {}: bits depend on {pool:?}", self.op.name, variant.name));
                }
            }
            let errors = self.judge(variant.name, &got.args, &expected, plain_errors.as_deref())?;
            plain_errors.get_or_insert(errors);
        }
        Ok(())
    }

    /// Holds the outputs that a variant gave against f64; returns the error of every argument. `plain` are the errors of
    /// the plain variant on the same data, `None` if this is that variant.
    ///
    /// # Errors
    /// A sentence with op, variant, output, error and bound.
    pub fn judge(
        &self,
        variant: &str,
        got: &[Array],
        expected: &Reference,
        plain: Option<&[f64]>,
    ) -> Result<Vec<f64>, String> {
        let tol = self.op.tol.of(self.dtype());
        let mut errors = vec![0.0; got.len()];
        for (at, arg) in self.op.args.iter().enumerate().filter(|(_, a)| a.access != Access::Read) {
            let what = || format!("{} {variant}, output {}, {:?}", self.op.name, arg.name, self.dims);
            let (error, scale) = distance(&got[at].value(), &expected.args[at]).map_err(|e| what() + ": " + &e)?;
            let bound = match plain {
                None => f64::from(tol.plain) * scale,
                Some(plain) => (f64::from(tol.times) * plain[at]).max(f64::from(tol.floor) * scale),
            };
            if error > bound {
                return Err(format!("{}: error {error:e} is over {bound:e} (largest value {scale:e})", what()));
            }
            errors[at] = error;
        }
        Ok(errors)
    }
}

/// Largest absolute difference, and the largest finite expected magnitude. NaN must meet NaN, infinity the same.
fn distance(got: &Value, expected: &Value) -> Result<(f64, f64), String> {
    match (got, expected) {
        (Value::Absent, Value::Absent) => Ok((0.0, 0.0)),
        (Value::U(a), Value::U(b)) => match a.iter().zip(b).position(|(x, y)| x != y) {
            None if a.len() == b.len() => Ok((0.0, 0.0)),
            at => Err(format!(
                "differs at {at:?} of {}: {:?}, expected {:?}",
                b.len(),
                at.map(|i| a[i]),
                at.map(|i| b[i])
            )),
        },
        (Value::F(a), Value::F(b)) if a.len() == b.len() => {
            let (mut error, mut scale) = (0.0f64, 0.0f64);
            for (at, (x, y)) in a.iter().zip(b).enumerate() {
                if x.is_finite() && y.is_finite() {
                    error = error.max((x - y).abs());
                    scale = scale.max(y.abs());
                } else if !(x.is_nan() && y.is_nan()) && x != y {
                    return Err(format!("element {at} is {x}, expected {y}"));
                }
            }
            Ok((error, scale))
        }
        _ => Err("reference has another type or size".into()),
    }
}

/// True if all arrays are equal bit for bit: equal NaNs are equal, 0 and -0 are not.
pub fn same_bits(a: &[Array], b: &[Array]) -> bool {
    a.iter().zip(b).all(|(a, b)| match (a, b) {
        (Array::F32(_, _, x), Array::F32(_, _, y)) => x.iter().map(|v| v.to_bits()).eq(y.iter().map(|v| v.to_bits())),
        (Array::Bf16(_, _, x), Array::Bf16(_, _, y)) => x.iter().map(|v| v.to_bits()).eq(y.iter().map(|v| v.to_bits())),
        (Array::F16(_, _, x), Array::F16(_, _, y)) => x.iter().map(|v| v.to_bits()).eq(y.iter().map(|v| v.to_bits())),
        _ => a == b,
    })
}

/// An array between guard elements.
enum Guarded {
    Absent,
    F32(usize, usize, Vec<f32>),
    F16(usize, usize, Vec<f16>),
    Bf16(usize, usize, Vec<bf16>),
    U32(usize, usize, Vec<u32>),
    U16(usize, usize, Vec<u16>),
    U8(usize, usize, Vec<u8>),
    Bits(u32, u32, Vec<u32>),
}

fn wrap<T: Copy>(data: &[T], guard: T) -> Vec<T> {
    let mut all = vec![guard; data.len() + 2 * GUARD];
    all[GUARD..GUARD + data.len()].copy_from_slice(data);
    all
}

fn unwrap<T: Copy>(all: &[T], intact: impl Fn(T) -> bool) -> Option<Vec<T>> {
    let (front, rest) = all.split_at(GUARD);
    let (data, back) = rest.split_at(rest.len() - GUARD);
    front.iter().chain(back).all(|v| intact(*v)).then(|| data.to_vec())
}

impl Guarded {
    fn new(array: &Array) -> Guarded {
        match array {
            Array::Absent => Guarded::Absent,
            Array::F32(r, c, v) => Guarded::F32(*r, *c, wrap(v, f32::from_bits(0x7FC0_1234))),
            Array::F16(r, c, v) => Guarded::F16(*r, *c, wrap(v, f16::from_bits(0x7E12))),
            Array::Bf16(r, c, v) => Guarded::Bf16(*r, *c, wrap(v, bf16::from_bits(0x7FE1))),
            Array::U32(r, c, v) => Guarded::U32(*r, *c, wrap(v, 0xA5A5_A5A5)),
            Array::U16(r, c, v) => Guarded::U16(*r, *c, wrap(v, 0xA5A5)),
            Array::U8(r, c, v) => Guarded::U8(*r, *c, wrap(v, 0xA5)),
            Array::Bits(m) => Guarded::Bits(m.rows(), m.cols(), wrap(m.words(), 0xA5A5_A5A5)),
        }
    }

    fn operand(&mut self, written: bool) -> Operand<'_> {
        fn inner<T>(all: &mut [T]) -> &mut [T] {
            let len = all.len();
            &mut all[GUARD..len - GUARD]
        }
        macro_rules! matrix {
            ($v:expr, $r:expr, $c:expr, $Read:ident, $Write:ident) => {
                if written {
                    Operand::$Write(MatMut { data: inner($v), rows: *$r, cols: *$c, ld: *$c })
                } else {
                    Operand::$Read(Mat { data: inner($v), rows: *$r, cols: *$c, ld: *$c })
                }
            };
        }
        match self {
            Guarded::Absent => Operand::Absent,
            Guarded::F32(r, c, v) => matrix!(v, r, c, F32, F32Mut),
            Guarded::F16(r, c, v) => matrix!(v, r, c, F16, F16Mut),
            Guarded::Bf16(r, c, v) => matrix!(v, r, c, Bf16, Bf16Mut),
            Guarded::U32(r, c, v) => matrix!(v, r, c, U32, U32Mut),
            Guarded::U16(r, c, v) => matrix!(v, r, c, U16, U16Mut),
            Guarded::U8(r, c, v) => matrix!(v, r, c, U8, U8Mut),
            Guarded::Bits(r, c, v) => {
                let (rows, cols, ld) = (*r as usize, *c as usize, c.div_ceil(32) as usize);
                match written {
                    true => Operand::BitsMut(BitMatMut { words: inner(v), rows, cols, ld }),
                    false => Operand::Bits(BitMat { words: inner(v), rows, cols, ld }),
                }
            }
        }
    }

    fn finish(self) -> Option<Array> {
        Some(match self {
            Guarded::Absent => Array::Absent,
            Guarded::F32(r, c, v) => Array::F32(r, c, unwrap(&v, |x| x.to_bits() == 0x7FC0_1234)?),
            Guarded::F16(r, c, v) => Array::F16(r, c, unwrap(&v, |x| x.to_bits() == 0x7E12)?),
            Guarded::Bf16(r, c, v) => Array::Bf16(r, c, unwrap(&v, |x| x.to_bits() == 0x7FE1)?),
            Guarded::U32(r, c, v) => Array::U32(r, c, unwrap(&v, |x| x == 0xA5A5_A5A5)?),
            Guarded::U16(r, c, v) => Array::U16(r, c, unwrap(&v, |x| x == 0xA5A5)?),
            Guarded::U8(r, c, v) => Array::U8(r, c, unwrap(&v, |x| x == 0xA5)?),
            // A pad bit that a kernel sets is refused here.
            Guarded::Bits(r, c, v) => Array::Bits(BitMask::from_words(r, c, unwrap(&v, |x| x == 0xA5A5_A5A5)?)?),
        })
    }
}
