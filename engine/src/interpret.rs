//! A plan in f64: the reference of every call, in order. For gradient checks and for finding where a device diverges.

use crate::error::{Error, Result};
use crate::plan::{Buffer, Plan, Slice};
use kernels::{Access, DType, Reference, Value};

/// Replays a plan on f64 values, one per buffer, without arenas.
#[derive(Debug)]
pub struct Interpreter<'p> {
    plan: &'p Plan,
    values: Vec<Value>,
}

impl Plan {
    /// A replay of this plan in f64; all buffers start at zero. For plans of test size: nothing is shared or checked.
    pub fn interpreter(&self) -> Interpreter<'_> {
        let values = self.buffers.iter().map(|b| zeros(b.dtype, b.rows as usize * b.cols as usize)).collect();
        Interpreter { plan: self, values }
    }
}

impl Interpreter<'_> {
    /// Sets an input or state; bits are one 0 or 1 per element.
    ///
    /// # Errors
    /// [`Error::NoBuffer`], or [`Error::Data`] if the length or the kind differs.
    pub fn set(&mut self, name: &str, value: Value) -> Result<()> {
        let at = self.find(name)?;
        let info = &self.plan.buffers[at];
        let fits = match (&self.values[at], &value) {
            (Value::F(old), Value::F(new)) => old.len() == new.len(),
            (Value::U(old), Value::U(new)) => old.len() == new.len(),
            _ => false,
        };
        if !fits {
            let found = match &value {
                Value::F(v) => (8, v.len()),
                Value::U(v) => (4, v.len()),
                Value::Absent => (0, 0),
            };
            return Err(Error::Data { name: name.to_owned(), expected: (info.dtype, info.units()), found });
        }
        self.values[at] = value;
        Ok(())
    }

    /// A buffer's values.
    ///
    /// # Errors
    /// [`Error::NoBuffer`].
    pub fn get(&self, name: &str) -> Result<&Value> {
        Ok(&self.values[self.find(name)?])
    }

    /// Replays every call.
    pub fn run(&mut self) {
        for call in &self.plan.calls {
            let mut reference = Reference {
                dims: call.dims,
                dtypes: call.args.iter().map(|s| s.map_or(DType::F32, |s| self.info(s.buffer).dtype)).collect(),
                args: call.args.iter().map(|s| s.map_or(Value::Absent, |s| self.gather(&s))).collect(),
            };
            (call.op.reference)(&mut reference);
            for ((slice, arg), value) in call.args.iter().zip(call.op.args).zip(reference.args) {
                if let (Some(slice), true) = (slice, arg.access != Access::Read) {
                    self.scatter(slice, value);
                }
            }
        }
    }

    fn find(&self, name: &str) -> Result<usize> {
        let Buffer(at) = self.plan.names.get(name).ok_or_else(|| Error::NoBuffer { name: name.to_owned() })?;
        Ok(*at as usize)
    }

    fn info(&self, buffer: Buffer) -> &crate::plan::BufferInfo {
        &self.plan.buffers[buffer.0 as usize]
    }

    fn gather(&self, slice: &Slice) -> Value {
        let places = self.places(slice);
        match &self.values[slice.buffer.0 as usize] {
            Value::F(v) => Value::F(places.map(|i| v[i]).collect()),
            Value::U(v) => Value::U(places.map(|i| v[i]).collect()),
            Value::Absent => Value::Absent,
        }
    }

    fn scatter(&mut self, slice: &Slice, value: Value) {
        let places = self.places(slice);
        match (&mut self.values[slice.buffer.0 as usize], value) {
            (Value::F(v), Value::F(new)) => places.zip(new).for_each(|(i, x)| v[i] = x),
            (Value::U(v), Value::U(new)) => places.zip(new).for_each(|(i, x)| v[i] = x),
            _ => unreachable!("a reference keeps the kind of its arguments"),
        }
    }

    /// Indices of a slice's elements in its buffer's values. Bits are unpacked here, so their pitch in words becomes
    /// the buffer's columns; a bit slice starts on a whole row.
    fn places(&self, slice: &Slice) -> impl Iterator<Item = usize> + use<> {
        let info = self.info(slice.buffer);
        let (at, ld, cols) = (slice.at as usize, slice.ld as usize, slice.cols as usize);
        let (at, ld) = match info.dtype {
            DType::Bits => (at / ld.max(1) * info.cols as usize, info.cols as usize),
            _ => (at, ld),
        };
        (0..slice.rows as usize).flat_map(move |r| (0..cols).map(move |c| at + r * ld + c))
    }
}

fn zeros(dtype: DType, len: usize) -> Value {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => Value::F(vec![0.0; len]),
        _ => Value::U(vec![0; len]),
    }
}
