//! Replays a step call by call, each held against its f64 reference on the very operands it got.

use crate::error::{Error, Result};
use crate::layout::View;
use crate::program::Program;
use kernels::{Access, DType, Reference, Value, bf16, f16};

impl Program {
    /// Runs every call once and compares its outputs with the f64 reference of the same operands.
    ///
    /// An output may differ by the contract's bound for plain kernels, relative to its largest reference value. The
    /// program's buffers end as after [`Program::run`].
    ///
    /// # Errors
    /// [`Error::Diverged`] for the first call that is too far off or gives NaN where the reference does not.
    pub fn check(&mut self) -> Result<()> {
        for call in 0..self.plan.calls.len() {
            let recorded = &self.plan.calls[call];
            let dtype =
                |s: &Option<crate::Slice>| s.map_or(DType::F32, |s| self.plan.buffers[s.buffer.0 as usize].dtype);
            let count = recorded.op.args.len();
            let mut reference = Reference {
                dims: recorded.dims,
                dtypes: recorded.args.iter().map(dtype).collect(),
                args: (0..count).map(|arg| self.value(call, arg)).collect::<Result<_>>()?,
            };
            (recorded.op.reference)(&mut reference);
            self.run_call(call)?;
            let recorded = &self.plan.calls[call];
            let tol = recorded.op.tol.of(self.plan.first_dtype(recorded));
            for (at, arg) in recorded.op.args.iter().enumerate().filter(|(_, a)| a.access != Access::Read) {
                let got = self.value(call, at)?;
                if let Err(error) = close(&got, &reference.args[at], f64::from(tol.plain)) {
                    let op = format!("{} ({}), output {}", recorded.op.name, self.variant(call), arg.name);
                    return Err(Error::Diverged { call, op, error, at: recorded.at });
                }
            }
        }
        Ok(())
    }

    fn value(&self, call: usize, arg: usize) -> Result<Value> {
        Ok(self.argument(call, arg)?.map_or(Value::Absent, |(view, bytes)| value(&view, &bytes)))
    }
}

/// The elements of a placed argument.
fn value(view: &View, bytes: &[u8]) -> Value {
    let places = || (0..view.rows).flat_map(|r| (0..view.cols).map(move |c| (r, c)));
    let at = |(r, c): (usize, usize)| r * view.ld + c;
    // Bytes from a GPU are aligned to nothing.
    let halves = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_ne_bytes(*b)).collect::<Vec<_>>();
    let words = || bytes.as_chunks::<4>().0.iter().map(|b| u32::from_ne_bytes(*b)).collect::<Vec<_>>();
    match view.dtype {
        DType::F32 => {
            let data = words();
            Value::F(places().map(|p| f64::from(f32::from_bits(data[at(p)]))).collect())
        }
        DType::F16 => {
            let data = halves();
            Value::F(places().map(|p| f64::from(f16::from_bits(data[at(p)]).to_f32())).collect())
        }
        DType::Bf16 => {
            let data = halves();
            Value::F(places().map(|p| f64::from(bf16::from_bits(data[at(p)]).to_f32())).collect())
        }
        DType::U32 => {
            let data = words();
            Value::U(places().map(|p| data[at(p)]).collect())
        }
        DType::U16 => {
            let data = halves();
            Value::U(places().map(|p| u32::from(data[at(p)])).collect())
        }
        DType::U8 => Value::U(places().map(|p| u32::from(bytes[at(p)])).collect()),
        DType::Bits => {
            let words = words();
            Value::U(places().map(|(r, c)| words[r * view.ld + c / 32] >> (c % 32) & 1).collect())
        }
    }
}

fn close(got: &Value, expected: &Value, bound: f64) -> std::result::Result<(), String> {
    match (got, expected) {
        (Value::F(a), Value::F(b)) => {
            let scale = b.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
            let off = |(x, y): (&f64, &f64)| match x.is_finite() && y.is_finite() {
                true => (x - y).abs() > bound * scale,
                false => x != y && !(x.is_nan() && y.is_nan()),
            };
            match a.iter().zip(b).position(off) {
                Some(i) => {
                    Err(format!("element {i} is {:e}, the reference {:e} (bound {:e})", a[i], b[i], bound * scale))
                }
                None => Ok(()),
            }
        }
        (Value::U(a), Value::U(b)) => match a.iter().zip(b).position(|(x, y)| x != y) {
            Some(i) => Err(format!("element {i} is {}, the reference {}", a[i], b[i])),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}
