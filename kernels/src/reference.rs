//! What an f64 reference sees: whole matrices, no pitch, no packing.

use crate::contract::{DType, Dims};

/// One argument of a reference call.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An optional argument that was left out.
    Absent,
    /// Floats ([`DType::F32`], [`DType::F16`], [`DType::Bf16`]), row major without gaps.
    F(Vec<f64>),
    /// Integers, and bits as one 0 or 1 per element, row major without gaps.
    U(Vec<u32>),
}

/// A call in f64. Outputs hold zeros (or, for updates, the old values) until they are put.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Sizes and scalars.
    pub dims: Dims,
    /// Element types as stated by the caller; meaningless for absent arguments.
    pub dtypes: Vec<DType>,
    /// Arguments in contract order.
    pub args: Vec<Value>,
}

impl Reference {
    /// True if argument `at` is present.
    pub fn has(&self, at: usize) -> bool {
        self.args[at] != Value::Absent
    }

    /// A copy of float argument `at`; empty if absent.
    pub fn f(&self, at: usize) -> Vec<f64> {
        match &self.args[at] {
            Value::F(v) => v.clone(),
            Value::Absent => Vec::new(),
            Value::U(_) => panic!("argument {at} holds integers"),
        }
    }

    /// A copy of integer or bit argument `at`; empty if absent.
    pub fn u(&self, at: usize) -> Vec<u32> {
        match &self.args[at] {
            Value::U(v) => v.clone(),
            Value::Absent => Vec::new(),
            Value::F(_) => panic!("argument {at} holds floats"),
        }
    }

    /// Stores a float output; does nothing if the output is absent.
    pub fn put_f(&mut self, at: usize, values: Vec<f64>) {
        if self.has(at) {
            self.args[at] = Value::F(values);
        }
    }

    /// Stores an integer or bit output; does nothing if the output is absent.
    pub fn put_u(&mut self, at: usize, values: Vec<u32>) {
        if self.has(at) {
            self.args[at] = Value::U(values);
        }
    }
}
