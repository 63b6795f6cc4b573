//! Replays a step call by call, each held against its f64 reference on the very operands it got.

use crate::backend::cpu::View;
use crate::error::{Error, Result};
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
        for call in 0..self.calls.len() {
            let recorded = &self.plan.calls[call];
            let views = self.calls[call].views.clone();
            let mut reference = Reference {
                dims: recorded.dims,
                dtypes: views.iter().map(|v| v.map_or(DType::F32, |v| v.dtype)).collect(),
                args: views.iter().map(|v| self.value(v.as_ref())).collect(),
            };
            (recorded.op.reference)(&mut reference);
            self.run_call(call);
            let recorded = &self.plan.calls[call];
            let tol = recorded.op.tol.of(self.plan.first_dtype(recorded));
            for (at, arg) in recorded.op.args.iter().enumerate().filter(|(_, a)| a.access != Access::Read) {
                let got = self.value(views[at].as_ref());
                if let Err(error) = close(&got, &reference.args[at], f64::from(tol.plain)) {
                    let op = format!("{} ({}), output {}", recorded.op.name, self.calls[call].variant.name, arg.name);
                    return Err(Error::Diverged { call, op, error, at: recorded.at });
                }
            }
        }
        Ok(())
    }

    fn value(&self, view: Option<&View>) -> Value {
        let Some(view) = view else { return Value::Absent };
        let bytes = &self.arenas.of(view.space).bytes()[view.at..view.at + view.units * view.dtype.unit_bytes()];
        let places = || (0..view.rows).flat_map(|r| (0..view.cols).map(move |c| (r, c)));
        let at = |(r, c): (usize, usize)| r * view.ld + c;
        match view.dtype {
            DType::F32 => {
                let data: &[f32] = bytemuck::cast_slice(bytes);
                Value::F(places().map(|p| f64::from(data[at(p)])).collect())
            }
            DType::F16 => {
                let data: &[u16] = bytemuck::cast_slice(bytes);
                Value::F(places().map(|p| f64::from(f16::from_bits(data[at(p)]).to_f32())).collect())
            }
            DType::Bf16 => {
                let data: &[u16] = bytemuck::cast_slice(bytes);
                Value::F(places().map(|p| f64::from(bf16::from_bits(data[at(p)]).to_f32())).collect())
            }
            DType::U32 => {
                let data: &[u32] = bytemuck::cast_slice(bytes);
                Value::U(places().map(|p| data[at(p)]).collect())
            }
            DType::U16 => {
                let data: &[u16] = bytemuck::cast_slice(bytes);
                Value::U(places().map(|p| u32::from(data[at(p)])).collect())
            }
            DType::U8 => Value::U(places().map(|p| u32::from(bytes[at(p)])).collect()),
            DType::Bits => {
                let words: &[u32] = bytemuck::cast_slice(bytes);
                Value::U(places().map(|(r, c)| words[r * view.ld + c / 32] >> (c % 32) & 1).collect())
            }
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
