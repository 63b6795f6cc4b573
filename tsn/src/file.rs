//! The container of everything on disk: safetensors, with a checksum over the whole file.
//!
//! Layout: `u64` header length, a JSON header padded with spaces to a multiple of 8, then the tensors without gaps, each
//! aligned to its element size. All numbers are little endian. [`TensorFile::open`] reads files written here and refuses
//! any changed bit; [`TensorFile::open_foreign`] reads what others wrote, for imports. Both treat the bytes as hostile.
//!
//! The checksum is the metadata entry `sha256`: SHA-256 over the file with the 64 digits of that entry set to `0`.
//!
//! Stricter than the format: duplicate and unknown keys, tensors written as JSON lists, and more than the limits below
//! are refused.
//!
//! Source: the format description of huggingface/safetensors.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;

use crate::error::Error;
use crate::sha256::Sha256;
use element::half_to_f32;
use header::{Header, read_header};

mod element;
mod fault;
mod header;
mod replace;

pub use element::{Dtype, Element};
pub use fault::FileError;
pub use replace::{Step, replace_file, replace_file_with};

/// Longest header, in bytes.
pub const HEADER_LIMIT: usize = 16 << 20;
/// Most tensors in a file.
pub const TENSOR_LIMIT: usize = 1 << 16;
/// Most metadata entries in a file.
pub const METADATA_LIMIT: usize = 1 << 16;
/// Most dimensions of a tensor.
pub const DIM_LIMIT: usize = 8;

const CHECKSUM: &str = "sha256";
const LENGTH_BYTES: usize = 8;

/// A readable file of named tensors and string metadata.
#[derive(Clone, Debug)]
pub struct TensorFile {
    bytes: Vec<u8>,
    payload: usize,
    header: Header,
}

impl TensorFile {
    /// Opens a file written by [`TensorWriter`] and verifies its checksum.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::File`] if it is malformed, has no checksum or was changed.
    pub fn open(path: &Path) -> Result<TensorFile, Error> {
        TensorFile::parse(read(path)?).map_err(|source| Error::File { path: Some(path.to_path_buf()), source })
    }

    /// Opens any safetensors file. A checksum is neither needed nor looked at.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::File`] if it is malformed.
    pub fn open_foreign(path: &Path) -> Result<TensorFile, Error> {
        TensorFile::parse_foreign(read(path)?).map_err(|source| Error::File { path: Some(path.to_path_buf()), source })
    }

    /// As [`TensorFile::open`], from memory.
    ///
    /// # Errors
    /// [`FileError`] if the bytes are malformed, carry no checksum or were changed.
    pub fn parse(bytes: Vec<u8>) -> Result<TensorFile, FileError> {
        let file = TensorFile::parse_foreign(bytes)?;
        let digits = file.header.checksum_at.ok_or(FileError::NoChecksum)?;
        let computed = checksum(&file.bytes, digits);
        if file.bytes[digits..digits + 64] == *computed.as_bytes() {
            return Ok(file);
        }
        Err(FileError::Checksum { stored: file.checksum().unwrap_or_default().to_owned(), computed })
    }

    /// As [`TensorFile::open_foreign`], from memory.
    ///
    /// # Errors
    /// [`FileError`] if the bytes are malformed.
    pub fn parse_foreign(bytes: Vec<u8>) -> Result<TensorFile, FileError> {
        let (header, payload) = read_header(&bytes)?;
        Ok(TensorFile { bytes, payload, header })
    }

    /// A metadata value.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.get(key)
    }

    /// All metadata, by ascending key.
    pub fn metadata_entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header.metadata.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Metadata whose keys begin with `prefix`, by ascending key; the prefix is left out.
    pub fn metadata_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let entries = &self.header.metadata;
        let first = entries.partition_point(|(key, _)| **key < *prefix);
        entries[first..].iter().map_while(move |(key, value)| Some((key.strip_prefix(prefix)?, &**value)))
    }

    /// The stored checksum, if there is one.
    pub fn checksum(&self) -> Option<&str> {
        self.metadata(CHECKSUM)
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// [`FileError::Missing`] if there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, FileError> {
        let by_name = &self.header.by_name;
        let at = by_name.binary_search_by(|at| (*self.header.tensors[*at as usize].name).cmp(name));
        match at {
            Ok(at) => Ok(&self.header.tensors[by_name[at] as usize]),
            Err(_) => Err(FileError::Missing { tensor: short(name) }),
        }
    }

    /// The bytes of a tensor of this file.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        // Empty for a tensor of another, longer file.
        self.bytes.get(self.payload + tensor.range.start..self.payload + tensor.range.end).unwrap_or_default()
    }

    /// The values of a tensor of this file.
    ///
    /// # Errors
    /// [`FileError::WrongDtype`] if the elements are of another type.
    pub fn values<T: Element>(&self, tensor: &Tensor) -> Result<Vec<T>, FileError> {
        if tensor.dtype != T::DTYPE {
            let (name, expected, found) = (short(&tensor.name), T::DTYPE, tensor.dtype);
            return Err(FileError::WrongDtype { tensor: name, expected, found });
        }
        Ok(self.bytes(tensor).chunks_exact(size_of::<T>()).map(T::from_le).collect())
    }

    /// The values of a floating-point tensor as f32: F32, F16 and BF16 exactly, F64 rounded.
    ///
    /// # Errors
    /// [`FileError::WrongDtype`] for other types.
    pub fn floats(&self, tensor: &Tensor) -> Result<Vec<f32>, FileError> {
        let halves = || self.bytes(tensor).as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        match tensor.dtype {
            Dtype::F64 => Ok(self.values::<f64>(tensor)?.iter().map(|v| *v as f32).collect()),
            Dtype::F16 => Ok(halves().map(half_to_f32).collect()),
            Dtype::BF16 => Ok(halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()),
            _ => self.values::<f32>(tensor),
        }
    }
}

/// One tensor of a [`TensorFile`]: everything but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    name: Box<str>,
    dtype: Dtype,
    shape: Vec<u64>,
    range: Range<usize>,
}

impl Tensor {
    /// Name, unique in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Sizes, outermost first; empty for a single value.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }
}

/// A file being put together.
#[derive(Clone, Debug, Default)]
pub struct TensorWriter {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Dtype, Vec<u64>, Vec<u8>)>,
}

impl TensorWriter {
    /// No tensors, no metadata.
    pub fn new() -> TensorWriter {
        TensorWriter::default()
    }

    /// Sets a metadata entry. The key `sha256` is overwritten by the checksum.
    pub fn meta(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.insert(key.into(), value.into());
    }

    /// Adds a tensor, row major. The order of tensors with elements of one size is kept in the file.
    pub fn add<T: Element>(&mut self, name: impl Into<String>, shape: &[u64], values: &[T]) {
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.put_le(&mut bytes));
        self.add_bytes(name, T::DTYPE, shape, bytes);
    }

    /// Adds a tensor of any type from its little-endian bytes.
    pub fn add_bytes(&mut self, name: impl Into<String>, dtype: Dtype, shape: &[u64], bytes: Vec<u8>) {
        self.tensors.push((name.into(), dtype, shape.to_vec(), bytes));
    }

    /// The file in memory.
    ///
    /// # Errors
    /// [`FileError`] if a name occurs twice, a shape does not fit its values or a limit is exceeded: whatever the reader
    /// would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        let mut order: Vec<_> = self.tensors.iter().collect();
        // Larger elements first: every tensor then starts at a multiple of its element size, without gaps.
        order.sort_by_key(|(_, dtype, ..)| std::cmp::Reverse(dtype.bits()));
        let payload: usize = order.iter().map(|(.., bytes)| bytes.len()).sum();

        let mut bytes = vec![0; LENGTH_BYTES];
        bytes.extend_from_slice(b"{\"__metadata__\":{");
        let mut metadata = self.metadata.clone();
        metadata.insert(CHECKSUM.to_owned(), "0".repeat(64));
        for (at, (key, value)) in metadata.iter().enumerate() {
            bytes.extend_from_slice(if at == 0 { b"" } else { b"," });
            put_string(&mut bytes, key);
            bytes.push(b':');
            put_string(&mut bytes, value);
        }
        bytes.push(b'}');
        let mut start = 0;
        for (name, dtype, shape, data) in &order {
            bytes.push(b',');
            put_string(&mut bytes, name);
            let end = start + data.len();
            let sizes: Vec<String> = shape.iter().map(u64::to_string).collect();
            let (dtype, sizes) = (dtype.name(), sizes.join(","));
            let entry = format!(":{{\"dtype\":\"{dtype}\",\"shape\":[{sizes}],\"data_offsets\":[{start},{end}]}}");
            bytes.extend_from_slice(entry.as_bytes());
            start = end;
        }
        bytes.push(b'}');
        bytes.resize(bytes.len().next_multiple_of(8), b' ');
        let header = (bytes.len() - LENGTH_BYTES) as u64;
        bytes[..LENGTH_BYTES].copy_from_slice(&header.to_le_bytes());

        bytes.reserve_exact(payload);
        order.iter().for_each(|(.., data)| bytes.extend_from_slice(data));
        // The reader checks the writer: nothing leaves that cannot be read back.
        let (header, _) = read_header(&bytes)?;
        let digits = header.checksum_at.ok_or(FileError::NoChecksum)?;
        let sum = checksum(&bytes, digits);
        bytes[digits..digits + 64].copy_from_slice(sum.as_bytes());
        Ok(bytes)
    }

    /// Writes the file, replacing an old one in one step, and returns its checksum.
    ///
    /// # Errors
    /// [`Error::File`] as [`TensorWriter::encode`]; [`Error::Io`] as [`replace_file`].
    pub fn save(&self, path: &Path) -> Result<String, Error> {
        let bytes = self.encode().map_err(|source| Error::File { path: Some(path.to_path_buf()), source })?;
        replace_file(path, &bytes)?;
        let (header, _) = read_header(&bytes)?;
        Ok(header.get(CHECKSUM).unwrap_or_default().to_owned())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |e| Error::io("read", path, e);
    // Asked before opening: opening a pipe would wait for its writer.
    let about = fs::metadata(path).map_err(fail)?;
    if !about.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    let length = usize::try_from(about.len()).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(length).map_err(|_| fail(io::ErrorKind::OutOfMemory.into()))?;
    fs::File::open(path).and_then(|file| file.take(about.len()).read_to_end(&mut bytes)).map_err(fail)?;
    Ok(bytes)
}

/// SHA-256 of the file with the 64 digits at `digits` taken as zeros.
fn checksum(bytes: &[u8], digits: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(&bytes[..digits]);
    hash.update(&[b'0'; 64]);
    hash.update(&bytes[digits + 64..]);
    hash.finish_hex()
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..b' ' => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A name short enough for a message.
pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}
