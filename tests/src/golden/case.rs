//! One case: its tensors, what was read of them, and what was found wrong.

use super::{Outcome, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Why a case cannot be run or does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(text)
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        Failure(error.to_string())
    }
}

impl From<dt::Error> for Failure {
    fn from(error: dt::Error) -> Failure {
        Failure(error.to_string())
    }
}

/// Tolerance of an output that states none: this part of its largest value, and at least [`FLOOR`].
const RELATIVE: f64 = 1e-5;
const FLOOR: f64 = 1e-7;

/// A case in memory.
pub struct Case {
    /// File name without its ending.
    pub name: String,
    /// Parameters.
    pub meta: Value,
    tensors: BTreeMap<String, Entry>,
    seen: RefCell<Seen>,
}

struct Entry {
    shape: Vec<usize>,
    data: Data,
    /// From the index; absent for a file that the index does not list.
    role: Option<Role>,
    atol: Option<f64>,
}

enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Int(Vec<i64>),
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    In,
    Out,
}

#[derive(Default)]
struct Seen {
    read: BTreeSet<String>,
    compared: BTreeSet<String>,
    worst: f64,
    tensor: String,
    failures: Vec<String>,
}

/// A name and its case, or why there is none.
type Opened = (String, Result<Case>);

/// Every case of a directory: those of the index by name, then files that it does not list.
pub(super) fn open_all(dir: &Path) -> Result<Vec<Opened>> {
    let at = dir.join("index.json");
    let text = std::fs::read_to_string(&at).map_err(|e| format!("{}: {e}", at.display()))?;
    let index = parse(&text).map_err(|e| format!("{}: {e}", at.display()))?;
    let Value::Object(index) = index else {
        return Err(format!("{} is not an object of cases", at.display()).into());
    };
    let mut unlisted = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|e| e == "safetensors") && !index.contains_key(&stem) {
            unlisted.insert(stem);
        }
    }
    let listed = index.iter().map(|(name, entry)| (name.clone(), Case::open(dir, name, Some(entry))));
    let unlisted = unlisted.iter().map(|name| (name.clone(), Case::open(dir, name, None)));
    Ok(listed.chain(unlisted).collect())
}

/// JSON as Python writes it: a bare `NaN` or infinity is read as null.
fn parse(text: &str) -> serde_json::Result<Value> {
    let mut plain = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let step = match (word, first) {
            (Some(word), _) => {
                plain.push_str("null");
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, other) => {
                quoted ^= other == '"';
                other.len_utf8()
            }
        };
        plain.push_str(&rest[..step]);
        rest = &rest[step..];
    }
    serde_json::from_str(&plain)
}

impl Case {
    fn open(dir: &Path, name: &str, listed: Option<&Value>) -> Result<Case> {
        let path = dir.join(format!("{name}.safetensors"));
        let shown = path.display();
        let bytes = std::fs::read(&path).map_err(|e| format!("{shown}: {e}"))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| format!("{shown}: {e}"))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format!("{shown}: {e}"))?;
        let own = header.metadata().as_ref().and_then(|m| m.get("case"));
        let own = own.ok_or_else(|| format!("{shown}: no metadata key `case`"))?;
        let own = parse(own).map_err(|e| format!("{shown}: metadata key `case`: {e}"))?;
        let mut tensors = BTreeMap::new();
        for (tensor, view) in file.tensors() {
            let data = data(view.dtype(), view.data())
                .ok_or_else(|| format!("tensor `{tensor}` is {:?}, a type no case has", view.dtype()))?;
            let entry = Entry { shape: view.shape().to_vec(), data, role: None, atol: None };
            tensors.insert(tensor, entry);
        }
        let case = Case { name: name.to_owned(), meta: own, tensors, seen: RefCell::default() };
        match listed {
            Some(listed) => case.with_index(listed),
            None => Ok(case),
        }
    }

    /// Takes roles and tolerances from the index, which must agree with the file.
    fn with_index(mut self, listed: &Value) -> Result<Case> {
        if listed.get("meta") != Some(&self.meta) {
            return Err("the parameters in index.json and in the file differ".to_owned().into());
        }
        let Some(Value::Object(specs)) = listed.get("tensors") else {
            return Err("index.json lists no tensors".to_owned().into());
        };
        if let Some(extra) = self.tensors.keys().find(|name| !specs.contains_key(*name)) {
            return Err(format!("tensor `{extra}` is in the file but not in index.json").into());
        }
        for (name, spec) in specs {
            let entry =
                self.tensors.get_mut(name).ok_or_else(|| format!("tensor `{name}` is missing from the file"))?;
            let shape: Option<Vec<usize>> = spec.get("shape").and_then(|s| serde_json::from_value(s.clone()).ok());
            if shape.as_ref() != Some(&entry.shape) {
                return Err(format!("tensor `{name}` is {:?}, index.json says {shape:?}", entry.shape).into());
            }
            entry.role = match spec.get("role").and_then(Value::as_str) {
                Some("in") => Some(Role::In),
                Some("out") => Some(Role::Out),
                other => return Err(format!("tensor `{name}` has the unknown role {other:?}").into()),
            };
            entry.atol = spec.get("atol").and_then(Value::as_f64);
        }
        Ok(self)
    }

    /// A parameter that is a number.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.meta.get(key).and_then(Value::as_f64).ok_or_else(|| format!("parameter `{key}` is no number").into())
    }

    /// A parameter that is a size.
    pub fn size(&self, key: &str) -> Result<usize> {
        let size = self.meta.get(key).and_then(Value::as_u64);
        size.map(|n| n as usize).ok_or_else(|| format!("parameter `{key}` is no size").into())
    }

    /// Fails if a parameter is present and is a size other than `found`.
    pub fn agree(&self, key: &str, found: usize) -> Result<()> {
        match self.meta.get(key).and_then(Value::as_u64) {
            Some(stated) if stated != found as u64 => {
                Err(format!("parameter `{key}` is {stated} but the tensors say {found}").into())
            }
            _ => Ok(()),
        }
    }

    /// True if the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names of all tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.entry(name)?.shape)
    }

    /// Shape of a tensor that must have `N` axes.
    pub fn axes<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let shape = self.shape(name)?;
        shape.try_into().map_err(|_| format!("tensor `{name}` is {shape:?}, expected {N} axes").into())
    }

    /// Rows and columns of a tensor seen as a matrix: the last axis is the columns.
    pub fn rows(&self, name: &str) -> Result<[u32; 2]> {
        let (cols, rows) = self.shape(name)?.split_last().map_or((1, 1), |(c, r)| (*c, r.iter().product()));
        Ok([rows, cols].map(|n| n as u32))
    }

    /// Rows and columns of a weight: the first axis is the rows; a vector is one row.
    pub fn weight(&self, name: &str) -> Result<[u32; 2]> {
        let shape = match self.shape(name)? {
            [] => [1, 1],
            [n] => [1, *n],
            [rows, rest @ ..] => [*rows, rest.iter().product()],
        };
        Ok(shape.map(|n| n as u32))
    }

    /// Reads f32 values.
    pub fn f32s(&self, name: &str) -> Result<&[f32]> {
        match &self.read(name)?.data {
            Data::F32(values) => Ok(values),
            _ => Err(format!("tensor `{name}` is not float32").into()),
        }
    }

    /// Reads f64 values.
    pub fn f64s(&self, name: &str) -> Result<&[f64]> {
        match &self.read(name)?.data {
            Data::F64(values) => Ok(values),
            _ => Err(format!("tensor `{name}` is not float64").into()),
        }
    }

    /// Reads integers of any width.
    pub fn ints(&self, name: &str) -> Result<&[i64]> {
        match &self.read(name)?.data {
            Data::Int(values) => Ok(values),
            _ => Err(format!("tensor `{name}` is not made of integers").into()),
        }
    }

    /// Reads booleans: 0 and 1.
    pub fn flags(&self, name: &str) -> Result<Vec<bool>> {
        let flag = |&v: &i64| match v {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(format!("tensor `{name}` holds {v}, which is no boolean").into()),
        };
        self.ints(name)?.iter().map(flag).collect()
    }

    /// Reads bytes.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let byte =
            |&v: &i64| u8::try_from(v).map_err(|_| format!("tensor `{name}` holds {v}, which is no byte").into());
        self.ints(name)?.iter().map(byte).collect()
    }

    /// Compares an output with what was expected, within its tolerance.
    pub fn check(&self, name: &str, got: &[f32]) -> Result<()> {
        self.check_where(name, got, |_| true)
    }

    /// Compares an output at the places where `defined` holds.
    pub fn check_where(&self, name: &str, got: &[f32], defined: impl Fn(usize) -> bool) -> Result<()> {
        let got: Vec<f64> = got.iter().map(|v| f64::from(*v)).collect();
        let entry = self.entry(name)?;
        let expected: Vec<f64> = match &entry.data {
            Data::F32(values) => values.iter().map(|v| f64::from(*v)).collect(),
            Data::F64(values) => values.clone(),
            Data::Int(_) => return Err(format!("tensor `{name}` holds integers, the result does not").into()),
        };
        let finite = expected.iter().filter(|v| v.is_finite());
        let derived = finite.fold(FLOOR, |most, v| most.max(RELATIVE * v.abs()));
        self.compare(name, &got, &expected, entry.atol.unwrap_or(derived), defined);
        Ok(())
    }

    /// Compares with another tolerance than the index's.
    pub fn check_f64(&self, name: &str, got: &[f64], atol: f64) -> Result<()> {
        let expected = self.f64s(name)?;
        self.compare(name, got, expected, atol, |_| true);
        Ok(())
    }

    /// Compares integers, which must be equal.
    pub fn check_ints(&self, name: &str, got: impl IntoIterator<Item = i64>) -> Result<()> {
        let got: Vec<f64> = got.into_iter().map(|v| v as f64).collect();
        let expected: Vec<f64> = self.ints(name)?.iter().map(|v| *v as f64).collect();
        self.compare(name, &got, &expected, 0.0, |_| true);
        Ok(())
    }

    /// Checks that a result is at most `factor` times an output.
    pub fn check_at_most(&self, name: &str, got: f32, factor: f64) -> Result<()> {
        let [limit] = *self.f32s(name)? else {
            return Err(format!("tensor `{name}` is not one number").into());
        };
        self.seen.borrow_mut().compared.insert(name.to_owned());
        // False for NaN.
        let within = f64::from(got) <= factor * f64::from(limit) + FLOOR;
        if !within {
            self.fail(format!("{got:e} is over {factor} times `{name}`, {limit:e}"));
        }
        Ok(())
    }

    /// Notes a failure that is not the difference of one output.
    pub fn fail(&self, what: String) {
        self.seen.borrow_mut().failures.push(what);
    }

    fn compare(&self, name: &str, got: &[f64], expected: &[f64], atol: f64, defined: impl Fn(usize) -> bool) {
        let mut seen = self.seen.borrow_mut();
        seen.compared.insert(name.to_owned());
        if self.tensors.get(name).is_some_and(|e| e.role == Some(Role::In)) {
            seen.failures.push(format!("tensor `{name}` is a result but index.json calls it an input"));
        }
        if got.len() != expected.len() {
            seen.failures.push(format!("output `{name}` has {} values, expected {}", got.len(), expected.len()));
            return;
        }
        let mut worst = (0.0, 0);
        for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let error = match got == expected {
                _ if !defined(at) => continue,
                true => 0.0,
                false if atol > 0.0 => (got - expected).abs() / atol,
                false => f64::INFINITY,
            };
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error > worst.0 {
                worst = (error, at);
            }
        }
        if worst.0 > 1.0 {
            let (ratio, at) = worst;
            let (got, expected) = (got[at], expected[at]);
            seen.failures.push(format!("output `{name}`[{at}] is {got:e}, expected {expected:e}: {ratio:.2} atol"));
        }
        if worst.0 > seen.worst {
            (seen.worst, seen.tensor) = (worst.0, name.to_owned());
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| format!("tensor `{name}` is missing").into())
    }

    fn read(&self, name: &str) -> Result<&Entry> {
        self.seen.borrow_mut().read.insert(name.to_owned());
        self.entry(name)
    }

    /// What was found, and every tensor that nothing looked at; the case can then be run again.
    pub(super) fn outcome(&self, stopped: Option<Failure>) -> Outcome {
        let Seen { read, compared, worst, tensor, mut failures } = self.seen.take();
        // A case that stopped early has read little; what stopped it is the news.
        match stopped {
            Some(stopped) => failures.push(stopped.to_string()),
            None => failures.extend(self.tensors.iter().filter_map(|(name, entry)| match entry.role {
                Some(Role::Out) if !compared.contains(name) => {
                    Some(format!("output `{name}` is compared with nothing"))
                }
                _ if compared.contains(name) || read.contains(name) => None,
                _ => Some(format!("tensor `{name}` is not read")),
            })),
        }
        Outcome { case: self.name.clone(), worst, tensor, failures }
    }
}

/// Values of a little-endian tensor; nothing for a type that cases do not have.
fn data(dtype: Dtype, bytes: &[u8]) -> Option<Data> {
    fn all<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::F32 => Data::F32(all(bytes, f32::from_le_bytes)),
        Dtype::F64 => Data::F64(all(bytes, f64::from_le_bytes)),
        Dtype::I64 => Data::Int(all(bytes, i64::from_le_bytes)),
        Dtype::I32 => Data::Int(all(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        Dtype::U8 | Dtype::BOOL => Data::Int(all(bytes, |[b]: [u8; 1]| i64::from(b))),
        _ => return None,
    })
}

#[cfg(test)]
#[test]
fn bare_words_of_python_are_null() {
    let value = parse(r#"{"a": NaN, "b": [-Infinity, 1], "c": "NaN \" Infinity"}"#).expect("valid");
    assert_eq!(value.to_string(), r#"{"a":null,"b":[null,1],"c":"NaN \" Infinity"}"#);
    assert!(parse("{").is_err());
}
