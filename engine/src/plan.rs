//! Recorded calls on named buffers.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::program::Program;
use kernels::contract::{ArgShape, Mismatch};
use kernels::{Access, Contract, DType, Dims};
use std::collections::BTreeMap;
use std::panic::Location;

/// A buffer of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Buffer(pub(crate) u32);

/// How long a buffer's contents live, and who may touch them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Written by the host before a run, read by calls; keeps its contents.
    Input,
    /// Kept from run to run: weights, scores, masks, moments. Read and written by host and calls; zero after `bind`.
    State,
    /// Written by calls, readable by the host after a run.
    Output,
    /// Written and read by calls only; its memory is shared with others.
    Temp,
}

/// Part of a buffer seen as a matrix: row `r` starts at storage unit `at + r * ld`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The buffer.
    pub buffer: Buffer,
    /// First storage unit (a 32-bit word for bits, an element otherwise).
    pub at: u32,
    /// Rows.
    pub rows: u32,
    /// Columns, in elements.
    pub cols: u32,
    /// Storage units between rows.
    pub ld: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct BufferInfo {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    pub(crate) life: Life,
    /// When it is used, first and last: places of calls in the plan, unless a backend orders them anew.
    pub(crate) used: Option<(usize, usize)>,
    written: bool,
}

impl BufferInfo {
    /// Storage units; `usize::MAX` if no address space holds them, which `bind` refuses.
    pub(crate) fn units(&self) -> usize {
        let units = u64::from(self.rows) * u64::from(self.dtype.row_units(self.cols));
        usize::try_from(units).unwrap_or(usize::MAX)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.units().saturating_mul(self.dtype.unit_bytes())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct RecordedCall {
    pub(crate) op: &'static Contract,
    pub(crate) args: Vec<Option<Slice>>,
    pub(crate) dims: Dims,
    pub(crate) at: &'static Location<'static>,
}

/// Collects buffers and calls.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    buffers: Vec<BufferInfo>,
    calls: Vec<RecordedCall>,
}

/// A finished list of calls, not yet on a device.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) buffers: Vec<BufferInfo>,
    pub(crate) calls: Vec<RecordedCall>,
    pub(crate) names: BTreeMap<String, Buffer>,
}

impl Builder {
    /// An empty plan.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds a buffer of `rows x cols`. Names of inputs, states and outputs must differ; names of temporaries are
    /// labels for errors.
    pub fn buffer(&mut self, name: impl Into<String>, dtype: DType, rows: u32, cols: u32, life: Life) -> Buffer {
        let written = matches!(life, Life::Input | Life::State);
        self.buffers.push(BufferInfo { name: name.into(), dtype, rows, cols, life, used: None, written });
        Buffer(self.buffers.len() as u32 - 1)
    }

    /// The whole of a buffer.
    pub fn whole(&self, buffer: Buffer) -> Slice {
        let info = &self.buffers[buffer.0 as usize];
        Slice { buffer, at: 0, rows: info.rows, cols: info.cols, ld: info.dtype.row_units(info.cols) }
    }

    /// Element type of a buffer.
    pub fn dtype(&self, buffer: Buffer) -> DType {
        self.buffers[buffer.0 as usize].dtype
    }

    /// Name of a buffer.
    pub fn name(&self, buffer: Buffer) -> &str {
        &self.buffers[buffer.0 as usize].name
    }

    /// Makes a temporary readable by the host after a run, under a name.
    pub fn output(&mut self, buffer: Buffer, name: impl Into<String>) {
        let info = &mut self.buffers[buffer.0 as usize];
        if info.life == Life::Temp {
            info.life = Life::Output;
        }
        info.name = name.into();
    }

    /// Records a call. `args` are in contract order; `None` leaves an optional argument out.
    ///
    /// # Errors
    /// [`Error::Call`] for any disagreement with the contract, for slices outside their buffer and for outputs that
    /// overlap another argument; [`Error::Unwritten`] if an input was never written.
    #[track_caller]
    pub fn call(&mut self, op: &'static Contract, args: &[Option<Slice>], scalars: &[u32]) -> Result<()> {
        self.call_at(op, args, scalars, Location::caller())
    }

    /// The same, with the line to name in errors: backward calls name the line of their forward call.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn call_at(
        &mut self,
        op: &'static Contract,
        args: &[Option<Slice>],
        scalars: &[u32],
        at: &'static Location<'static>,
    ) -> Result<()> {
        let fail = |what: String| Error::Call { op: op.name, what, at };
        let foreign = |s: &Option<Slice>| s.is_some_and(|s| s.buffer.0 as usize >= self.buffers.len());
        if let Some(nth) = args.iter().position(foreign) {
            return Err(fail(format!("argument {nth} is a buffer of another plan")));
        }
        let shapes: Vec<Option<ArgShape>> = args
            .iter()
            .map(|s| s.map(|s| ArgShape { dtype: self.dtype(s.buffer), rows: s.rows, cols: s.cols }))
            .collect();
        let dims = op.unify(&shapes, scalars).map_err(|m| fail(self.explain(op, args, &m)))?;
        for (nth, (slice, arg)) in args.iter().zip(op.args).enumerate() {
            let Some(slice) = slice else { continue };
            let info = &self.buffers[slice.buffer.0 as usize];
            if span(slice, info.dtype).is_none_or(|(_, end)| end > info.units()) {
                return Err(fail(format!(
                    "{} lies outside \"{}\" of {} x {}",
                    arg.name, info.name, info.rows, info.cols
                )));
            }
            if arg.access != Access::Write && !info.written {
                return Err(Error::Unwritten { op: op.name, buffer: info.name.clone(), at });
            }
            if arg.access != Access::Read {
                if info.life == Life::Input {
                    return Err(fail(format!(
                        "{} is the input \"{}\", which only the host writes",
                        arg.name, info.name
                    )));
                }
                if let Some(other) = self.overlap(nth, args) {
                    return Err(fail(format!("{} overlaps {} in \"{}\"", arg.name, op.args[other].name, info.name)));
                }
            }
        }
        let index = self.calls.len();
        for (slice, arg) in args.iter().zip(op.args) {
            let Some(slice) = slice else { continue };
            let info = &mut self.buffers[slice.buffer.0 as usize];
            info.written |= arg.access != Access::Read;
            info.used = Some((info.used.map_or(index, |(first, _)| first), index));
        }
        let mut args = args.to_vec();
        args.resize(op.args.len(), None);
        self.calls.push(RecordedCall { op, args, dims, at });
        Ok(())
    }

    /// An argument other than `nth` whose storage meets that of `nth`.
    fn overlap(&self, nth: usize, args: &[Option<Slice>]) -> Option<usize> {
        let range = |s: &Slice| span(s, self.dtype(s.buffer)).unwrap_or((0, 0));
        let own = args[nth].as_ref()?;
        let (begin, end) = range(own);
        (0..args.len()).filter(|&i| i != nth).find(|&i| {
            args[i].as_ref().is_some_and(|other| {
                let (b, e) = range(other);
                other.buffer == own.buffer && b < end && begin < e
            })
        })
    }

    fn explain(&self, op: &Contract, args: &[Option<Slice>], mismatch: &Mismatch) -> String {
        let label = |arg: usize| {
            let name = args[arg].map_or("", |s| self.name(s.buffer));
            format!("{} \"{name}\"", op.args[arg].name)
        };
        match mismatch {
            Mismatch::Count { expected, found } => format!("takes {expected} arguments, found {found}"),
            Mismatch::Scalars { expected, found } => format!("takes {expected} scalars, found {found}"),
            Mismatch::Missing { arg } => format!("{} is missing", op.args[*arg].name),
            Mismatch::Type { arg, found } => {
                format!("{} is {found:?}, expected one of {:?}", label(*arg), op.args[*arg].dtypes)
            }
            Mismatch::Dim { letter, expected, first, found, arg } if letter.is_ascii_digit() || first == arg => {
                format!("dim `{letter}` of {} is {found}, expected {expected}", label(*arg))
            }
            Mismatch::Dim { letter, expected, first, found, arg } => {
                format!("dim `{letter}` is {expected} in {} but {found} in {}", label(*first), label(*arg))
            }
            Mismatch::NotVector { arg, rows } => format!("{} has {rows} rows, expected a vector (1 row)", label(*arg)),
            Mismatch::Relation(what) => what.clone(),
        }
    }

    /// Ends recording.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two buffers of the host have one name.
    pub fn finish(self) -> Result<Plan> {
        let mut names = BTreeMap::new();
        for (at, info) in self.buffers.iter().enumerate().filter(|(_, b)| b.life != Life::Temp) {
            if names.insert(info.name.clone(), Buffer(at as u32)).is_some() {
                return Err(Error::Duplicate { name: info.name.clone() });
            }
        }
        Ok(Plan { buffers: self.buffers, calls: self.calls, names })
    }
}

/// First and one past the last storage unit of a slice; `None` if that overflows.
pub(crate) fn span(slice: &Slice, dtype: DType) -> Option<(usize, usize)> {
    let row = dtype.row_units(slice.cols) as usize;
    let begin = slice.at as usize;
    if slice.rows == 0 || row == 0 {
        return Some((begin, begin));
    }
    let last = (slice.rows as usize - 1).checked_mul(slice.ld as usize)?;
    (slice.rows == 1 || slice.ld as usize >= row).then_some((begin, begin.checked_add(last)?.checked_add(row)?))
}

impl Plan {
    /// Places all buffers, picks kernels and allocates everything the plan will ever need.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has too little memory.
    pub fn bind(&self, device: &Device) -> Result<Program> {
        Program::new(self.clone(), device.clone())
    }

    /// Element type of the argument of a call that decides between variants.
    pub(crate) fn first_dtype(&self, call: &RecordedCall) -> DType {
        let typed = call.args.get(call.op.typed_arg()).copied().flatten();
        typed.map_or(DType::F32, |s| self.buffers[s.buffer.0 as usize].dtype)
    }

    /// What runs each call, by `best`.
    ///
    /// # Errors
    /// [`Error::NoKernel`] lists the calls for which `best` knows nothing.
    #[cfg(any(feature = "cuda", feature = "wgsl"))]
    pub(crate) fn choose<V>(
        &self,
        device: &'static str,
        best: impl Fn(&RecordedCall) -> Option<&'static V>,
    ) -> Result<Vec<&'static V>> {
        let (mut chosen, mut missing) = (Vec::new(), Vec::new());
        for call in &self.calls {
            match best(call) {
                Some(variant) => chosen.push(variant),
                None => missing.push(format!("{} of {:?}", call.op.name, self.first_dtype(call))),
            }
        }
        missing.sort();
        missing.dedup();
        match missing.is_empty() {
            true => Ok(chosen),
            false => Err(Error::NoKernel { device, ops: missing.join(", ") }),
        }
    }

    /// Number of calls in a run.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// True if nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Names, types and sizes of all state buffers, in name order.
    pub fn states(&self) -> impl Iterator<Item = (&str, DType, u32, u32)> {
        self.names
            .values()
            .map(|b| &self.buffers[b.0 as usize])
            .filter(|b| b.life == Life::State)
            .map(|b| (b.name.as_str(), b.dtype, b.rows, b.cols))
    }

    /// Ops in call order, for tests of what was recorded.
    pub fn ops(&self) -> impl Iterator<Item = &'static str> {
        self.calls.iter().map(|c| c.op.name)
    }
}
