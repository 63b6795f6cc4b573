//! One dataset of an HDF5 file: what it says of itself, held against the file, and its rows in pieces.

use std::ops::Range;

use hdf5_pure::{DType, Dataset, Error, Layout};

use crate::error::Kind;

/// Bytes read at a time; more only if one row or one chunk has more.
const PIECE: u64 = 1 << 20;
/// Bytes of a chunk after unpacking; h5py's own choice is at most 1 MiB.
const MOST_CHUNK: u64 = 16 << 20;
/// Deflate cannot grow data by more: 258 bytes from 2 bits.
const MOST_GROWTH: u64 = 1032;
/// Values in a row.
const MOST_WIDTH: u64 = 1 << 22;

/// Deflate, shuffle, fletcher32.
const FILTERS: [u16; 3] = [1, 2, 3];

/// What the elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// f32 or f64.
    Float,
    /// Bytes: pixels, or flags.
    Byte,
    /// Other integers, signed or not.
    Int,
    /// Booleans as h5py writes them: an enumeration of one byte.
    Flag,
}

/// A dataset whose claims agree with the file.
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) shape: Vec<u64>,
    dataset: Dataset,
    /// The type in words.
    dtype: String,
    row_bytes: u64,
    /// Rows of a chunk; 1 without chunks.
    step: u64,
}

/// What the library reports is about the file.
pub(crate) fn broken(error: Error) -> Kind {
    Kind::Hdf5(error.to_string())
}

impl Array {
    /// Checks type, shape and storage against a file of `length` bytes.
    pub(crate) fn new(name: String, dataset: Dataset, length: u64) -> Result<Array, (String, Kind)> {
        match Array::check(&dataset, length) {
            Ok((element, dtype, shape, row_bytes, step)) => {
                Ok(Array { name, element, shape, dataset, dtype, row_bytes, step })
            }
            Err(kind) => Err((name, kind)),
        }
    }

    fn check(dataset: &Dataset, length: u64) -> Result<(Element, String, Vec<u64>, u64, u64), Kind> {
        let dtype = dataset.dtype().map_err(broken)?;
        let size = dataset.element_size().map_err(broken)?;
        let element = match &dtype {
            DType::F32 | DType::F64 => Element::Float,
            DType::U8 => Element::Byte,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U16 | DType::U32 | DType::U64 => Element::Int,
            DType::Enum(_) if size == 1 => Element::Flag,
            other => {
                let found = other.to_string();
                return Err(Kind::DType { expected: "f32, f64, integers or booleans", found });
            }
        };
        let shape = dataset.shape().map_err(broken)?;
        let width = shape.iter().skip(1).try_fold(1u64, |n, &m| n.checked_mul(m)).filter(|&n| n <= MOST_WIDTH);
        let width = width.ok_or(Kind::TooLarge { what: "values in a row", claimed: u64::MAX, limit: MOST_WIDTH })?;
        let row_bytes = width * size;
        let rows = shape.first().copied().unwrap_or(1);
        let claimed = rows.saturating_mul(row_bytes);
        let too_large = |limit| Kind::TooLarge { what: "bytes of values by dtype and shape", claimed, limit };
        let step = match dataset.layout().map_err(broken)? {
            _ if claimed == 0 => 1,
            Layout::Compact { size } | Layout::Contiguous { size, .. } if claimed > size.min(length) => {
                return Err(too_large(size.min(length)));
            }
            Layout::Compact { .. } | Layout::Contiguous { address: Some(_), .. } => 1,
            Layout::Contiguous { .. } => return Err(Kind::Damaged("the values were never written")),
            Layout::Chunked { chunk_shape, .. } => check_chunks(dataset, &shape, &chunk_shape, size, length)?,
            _ => return Err(Kind::Unsupported { expected: "values in this file", found: "a virtual dataset".into() }),
        };
        Ok((element, dtype.to_string(), shape, row_bytes, step))
    }

    /// Rows; 1 for a scalar.
    pub(crate) fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values in a row.
    pub(crate) fn width(&self) -> usize {
        self.shape.iter().skip(1).product::<u64>() as usize
    }

    pub(crate) fn wrong_dtype(&self, expected: &'static str) -> Kind {
        Kind::DType { expected, found: self.dtype.clone() }
    }

    pub(crate) fn wrong_shape(&self, expected: impl Into<String>) -> Kind {
        Kind::Shape { expected: expected.into(), found: self.shape.clone() }
    }

    /// Rows as f32, in pieces of whole rows.
    pub(crate) fn each_f32(
        &self,
        rows: Range<u64>,
        mut give: impl FnMut(&[f32]) -> Result<(), Kind>,
    ) -> Result<(), Kind> {
        self.pieces(rows, |start, n| {
            let values = self.dataset.read_f32_rows(start, n).map_err(broken)?;
            self.complete(values.len(), n)?;
            give(&values)
        })
    }

    /// Rows of bytes, in pieces of whole rows.
    pub(crate) fn each_byte(
        &self,
        rows: Range<u64>,
        mut give: impl FnMut(&[u8]) -> Result<(), Kind>,
    ) -> Result<(), Kind> {
        if !matches!(self.element, Element::Byte | Element::Flag) {
            return Err(self.wrong_dtype("u8 or booleans"));
        }
        self.pieces(rows, |start, n| {
            let values = self.dataset.read_raw_rows(start, n).map_err(broken)?;
            self.complete(values.len(), n)?;
            give(&values)
        })
    }

    /// Rows of integers, each turned into an u32 or refused with its row.
    pub(crate) fn each_id(&self, mut give: impl FnMut(usize, i64) -> Result<(), Kind>) -> Result<(), Kind> {
        if !matches!(self.element, Element::Byte | Element::Int) {
            return Err(self.wrong_dtype("integers"));
        }
        self.pieces(0..self.rows(), |start, n| {
            let values = self.dataset.read_i64_rows(start, n).map_err(broken)?;
            self.complete(values.len(), n)?;
            values.iter().enumerate().try_for_each(|(i, &value)| give(start as usize + i, value))
        })
    }

    fn complete(&self, found: usize, rows: u64) -> Result<(), Kind> {
        if found as u64 != rows * self.width() as u64 {
            return Err(Kind::Damaged("the data end too early: the file is truncated"));
        }
        Ok(())
    }

    fn pieces(&self, rows: Range<u64>, mut read: impl FnMut(u64, u64) -> Result<(), Kind>) -> Result<(), Kind> {
        // Whole chunks, so that none is unpacked twice, unless their rows are wider than a piece.
        let fitting = (PIECE / self.row_bytes.max(1)).max(1);
        let some = if fitting >= self.step { fitting - fitting % self.step } else { fitting.max(self.step.min(64)) };
        let mut start = rows.start;
        while start < rows.end {
            let n = some.min(rows.end - start);
            read(start, n)?;
            start += n;
        }
        Ok(())
    }
}

/// All chunks are there, none is larger than its bytes can hold, and together they lie in the file. Gives the rows of one.
fn check_chunks(dataset: &Dataset, shape: &[u64], chunk: &[u64], size: u64, length: u64) -> Result<u64, Kind> {
    let filters = dataset.filters();
    if let Some(other) = filters.iter().find(|id| !FILTERS.contains(id)) {
        let expected = "values without filters, or deflate, shuffle and fletcher32";
        return Err(Kind::Unsupported { expected, found: format!("filter {other}") });
    }
    let broken_chunks = || Kind::Damaged("the chunks do not have the dimensions of the values");
    if chunk.len() != shape.len() || chunk.contains(&0) {
        return Err(broken_chunks());
    }
    let bytes = chunk.iter().try_fold(size, |n, &m| n.checked_mul(m)).unwrap_or(u64::MAX);
    if bytes > MOST_CHUNK {
        return Err(Kind::TooLarge { what: "bytes of a chunk", claimed: bytes, limit: MOST_CHUNK });
    }
    let expected = shape.iter().zip(chunk).try_fold(1u64, |n, (&s, &c)| n.checked_mul(s.div_ceil(c)));
    let chunks = dataset.chunks().map_err(broken)?;
    if expected != Some(chunks.len() as u64) {
        let claimed = expected.unwrap_or(u64::MAX);
        return Err(Kind::TooLarge { what: "chunks by shape", claimed, limit: chunks.len() as u64 });
    }
    let growth = if filters.contains(&1) { MOST_GROWTH } else { 1 };
    let mut held = 0u64;
    for one in &chunks {
        held = held.saturating_add(one.storage_size);
        if bytes > one.storage_size.saturating_mul(growth) {
            return Err(Kind::TooLarge { what: "bytes of a chunk", claimed: bytes, limit: one.storage_size });
        }
    }
    if held > length {
        return Err(Kind::TooLarge { what: "bytes of all chunks", claimed: held, limit: length });
    }
    Ok(chunk.first().copied().unwrap_or(1))
}
