//! One array of an npz: its header, and its values as a stream.
//!
//! The header is parsed by hand because it is short and hostile: a library that reads any Python literal takes as much
//! memory and stack as the header asks for, and multiplies the shape without looking.
//!
//! Source: NumPy Enhancement Proposal 1, format versions 1.0 to 3.0.

use std::io::Read;

use half::f16;

use crate::error::Kind;
use crate::zip::Member;

/// Headers numpy writes for plain arrays have 128 bytes.
const MOST_HEADER: u64 = 1 << 14;
/// Bytes read at a time; a multiple of every element size.
const CHUNK: usize = 1 << 16;

/// Element types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl DType {
    fn parse(descr: &str) -> Result<DType, Kind> {
        let unsupported =
            || Kind::DType { expected: "little-endian bool, int, uint or float", found: format!("'{descr}'") };
        if descr.contains('O') {
            return Err(Kind::Pickle);
        }
        let (order, name) = descr.split_at_checked(1).ok_or_else(unsupported)?;
        let dtype = match name {
            "b1" => DType::Bool,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u1" => DType::U8,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "f2" => DType::F16,
            "f4" => DType::F32,
            "f8" => DType::F64,
            _ => return Err(unsupported()),
        };
        match order {
            "<" => Ok(dtype),
            "|" | ">" if dtype.bytes() == 1 => Ok(dtype),
            _ => Err(unsupported()),
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            DType::Bool | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 | DType::F16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::F32 | DType::F64)
    }

    pub(crate) fn is_int(self) -> bool {
        !self.is_float() && self != DType::Bool
    }
}

/// What an array says about itself; the sizes agree with the archive.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) dtype: DType,
    /// The type as written in the file, for messages.
    pub(crate) descr: String,
    pub(crate) shape: Vec<u64>,
    /// Product of the shape.
    pub(crate) count: usize,
}

impl Header {
    /// Refuses the element type.
    pub(crate) fn wrong_dtype(&self, expected: &'static str) -> Kind {
        Kind::DType { expected, found: format!("'{}'", self.descr) }
    }

    /// Refuses the shape.
    pub(crate) fn wrong_shape(&self, expected: impl Into<String>) -> Kind {
        Kind::Shape { expected: expected.into(), found: self.shape.clone() }
    }
}

/// Reads the header from the start of a member of `size` bytes.
pub(crate) fn header<R: Read>(member: &mut Member<'_, R>, size: u64) -> Result<Header, Kind> {
    let mut magic = [0; 8];
    member.read_exact(&mut magic)?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err(Kind::Format { expected: "an npy array", found: "something else" });
    }
    let (length, before) = match magic[6] {
        1 => {
            let mut bytes = [0; 2];
            member.read_exact(&mut bytes)?;
            (u64::from(u16::from_le_bytes(bytes)), 10)
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            member.read_exact(&mut bytes)?;
            (u64::from(u32::from_le_bytes(bytes)), 12)
        }
        n => return Err(Kind::Unsupported { expected: "npy version 1, 2 or 3", found: format!("version {n}") }),
    };
    if length > MOST_HEADER {
        return Err(Kind::TooLarge { what: "bytes of the npy header", claimed: length, limit: MOST_HEADER });
    }
    let mut text = vec![0; length as usize];
    member.read_exact(&mut text)?;
    let text = std::str::from_utf8(&text).map_err(|_| Kind::Damaged("the npy header is not text"))?;
    let (descr, shape) = Literal(text).dict()?;
    let dtype = DType::parse(&descr)?;

    let count = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    let bytes = count.and_then(|n| n.checked_mul(dtype.bytes() as u64));
    let held = size.saturating_sub(before + length);
    if bytes != Some(held) {
        let claimed = bytes.unwrap_or(u64::MAX);
        return Err(Kind::TooLarge { what: "bytes of values by dtype and shape", claimed, limit: held });
    }
    let count = count.and_then(|n| usize::try_from(n).ok());
    // The product fits, because the values lie in the archive; only a 32-bit address space is smaller.
    let count = count.ok_or(Kind::TooLarge { what: "values", claimed: held, limit: usize::MAX as u64 })?;
    Ok(Header { dtype, descr, shape, count })
}

/// A reader of the one Python literal a header is: a dict with three known keys.
struct Literal<'a>(&'a str);

const BROKEN: Kind = Kind::Damaged("the npy header is no dict of descr, fortran_order and shape");

impl<'a> Literal<'a> {
    /// `descr` and `shape`; refuses Fortran order.
    fn dict(mut self) -> Result<(String, Vec<u64>), Kind> {
        let (mut descr, mut order, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.takes("}") {
            let key = self.string()?;
            self.expect(":")?;
            match key {
                "descr" if self.0.trim_start().starts_with('[') => {
                    let expected = "one number per element";
                    return Err(Kind::DType { expected, found: "a structured type".into() });
                }
                "descr" => descr = Some(self.string()?),
                "fortran_order" if self.takes("False") => order = Some(false),
                "fortran_order" if self.takes("True") => order = Some(true),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(BROKEN),
            }
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        let (Some(descr), Some(order), Some(shape)) = (descr, order, shape) else { return Err(BROKEN) };
        // One axis has one order.
        if order && shape.len() > 1 {
            return Err(Kind::Unsupported { expected: "C order", found: "Fortran order".into() });
        }
        if !self.0.trim().is_empty() {
            return Err(BROKEN);
        }
        Ok((descr.to_owned(), shape))
    }

    fn takes(&mut self, token: &str) -> bool {
        match self.0.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), Kind> {
        if self.takes(token) { Ok(()) } else { Err(BROKEN) }
    }

    fn string(&mut self) -> Result<&'a str, Kind> {
        let quote = if self.takes("'") { '\'' } else { '"' };
        if quote == '"' {
            self.expect("\"")?;
        }
        let (text, rest) = self.0.split_once(quote).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(text)
    }

    fn tuple(&mut self) -> Result<Vec<u64>, Kind> {
        let mut sizes = Vec::new();
        self.expect("(")?;
        while !self.takes(")") {
            let text = self.0.trim_start();
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            sizes.push(text[..digits].parse().map_err(|_| BROKEN)?);
            // Python 2 wrote long integers with an L.
            self.0 = text[digits..].strip_prefix('L').unwrap_or(&text[digits..]);
            if sizes.len() > 32 {
                return Err(BROKEN);
            }
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(sizes)
    }
}

/// How memory for the values may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// At once: the values lie in the file.
    AtOnce,
    /// As they arrive: only unpacking shows how many there are.
    AsTheyArrive,
}

/// Values as f32, from any number type.
pub(crate) fn read_f32<R: Read>(member: Member<'_, R>, header: &Header, memory: Memory) -> Result<Vec<f32>, Kind> {
    let n = header.count;
    match header.dtype {
        DType::Bool | DType::U8 => stream(member, n, memory, |_, [b]: [u8; 1]| Ok(f32::from(b))),
        DType::I8 => stream(member, n, memory, |_, b| Ok(f32::from(i8::from_le_bytes(b)))),
        DType::I16 => stream(member, n, memory, |_, b| Ok(f32::from(i16::from_le_bytes(b)))),
        DType::U16 => stream(member, n, memory, |_, b| Ok(f32::from(u16::from_le_bytes(b)))),
        DType::I32 => stream(member, n, memory, |_, b| Ok(i32::from_le_bytes(b) as f32)),
        DType::U32 => stream(member, n, memory, |_, b| Ok(u32::from_le_bytes(b) as f32)),
        DType::I64 => stream(member, n, memory, |_, b| Ok(i64::from_le_bytes(b) as f32)),
        DType::U64 => stream(member, n, memory, |_, b| Ok(u64::from_le_bytes(b) as f32)),
        DType::F16 => stream(member, n, memory, |_, b| Ok(f16::from_le_bytes(b).to_f32())),
        DType::F32 => stream(member, n, memory, |_, b| Ok(f32::from_le_bytes(b))),
        DType::F64 => stream(member, n, memory, |_, b| Ok(f64::from_le_bytes(b) as f32)),
    }
}

/// Integers, each turned into a u32 or refused with its row.
pub(crate) fn read_u32<R: Read>(
    member: Member<'_, R>,
    header: &Header,
    memory: Memory,
    accept: impl Fn(usize, i64) -> Result<u32, Kind>,
) -> Result<Vec<u32>, Kind> {
    let n = header.count;
    match header.dtype {
        DType::Bool | DType::U8 => stream(member, n, memory, |row, [b]: [u8; 1]| accept(row, i64::from(b))),
        DType::I8 => stream(member, n, memory, |row, b| accept(row, i64::from(i8::from_le_bytes(b)))),
        DType::I16 => stream(member, n, memory, |row, b| accept(row, i64::from(i16::from_le_bytes(b)))),
        DType::U16 => stream(member, n, memory, |row, b| accept(row, i64::from(u16::from_le_bytes(b)))),
        DType::I32 => stream(member, n, memory, |row, b| accept(row, i64::from(i32::from_le_bytes(b)))),
        DType::U32 => stream(member, n, memory, |row, b| accept(row, i64::from(u32::from_le_bytes(b)))),
        DType::I64 => stream(member, n, memory, |row, b| accept(row, i64::from_le_bytes(b))),
        // Above the range of i64 is above every range asked for.
        DType::U64 => {
            stream(member, n, memory, |row, b| accept(row, i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)))
        }
        DType::F16 | DType::F32 | DType::F64 => Err(header.wrong_dtype("integers")),
    }
}

/// Bytes as they are.
pub(crate) fn read_u8<R: Read>(member: Member<'_, R>, header: &Header, memory: Memory) -> Result<Vec<u8>, Kind> {
    stream(member, header.count, memory, |_, [b]: [u8; 1]| Ok(b))
}

/// The bytes of all values in pieces of whole values; the checksum is held against them at the end.
pub(crate) fn each_piece<R: Read>(
    mut member: Member<'_, R>,
    header: &Header,
    mut give: impl FnMut(&[u8]) -> Result<(), Kind>,
) -> Result<(), Kind> {
    let size = header.dtype.bytes();
    let mut chunk = vec![0; CHUNK.min(header.count.saturating_mul(size))];
    let mut left = header.count;
    while left > 0 {
        let some = left.min(CHUNK / size);
        let bytes = &mut chunk[..some * size];
        member.read_exact(bytes)?;
        give(bytes)?;
        left -= some;
    }
    member.finish()
}

/// Floats or bytes as f32; `bytes` are whole values.
pub(crate) fn to_f32(dtype: DType, bytes: &[u8], out: &mut Vec<f32>) {
    fn all<const S: usize>(bytes: &[u8], out: &mut Vec<f32>, convert: impl Fn([u8; S]) -> f32) {
        out.extend(bytes.as_chunks::<S>().0.iter().map(|&value| convert(value)));
    }
    out.clear();
    match dtype {
        DType::F16 => all(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::F32 => all(bytes, out, f32::from_le_bytes),
        DType::F64 => all(bytes, out, |b| f64::from_le_bytes(b) as f32),
        // Observations are floats or bytes; everything else was refused by its header.
        _ => out.extend(bytes.iter().map(|&b| f32::from(b))),
    }
}

fn stream<const S: usize, T, R: Read>(
    mut member: Member<'_, R>,
    count: usize,
    memory: Memory,
    convert: impl Fn(usize, [u8; S]) -> Result<T, Kind>,
) -> Result<Vec<T>, Kind> {
    let mut values: Vec<T> = Vec::new();
    let mut chunk = vec![0; CHUNK.min(count.saturating_mul(S))];
    while values.len() < count {
        let left = count - values.len();
        let some = left.min(CHUNK / S);
        let bytes = &mut chunk[..some * S];
        member.read_exact(bytes)?;
        if values.capacity() - values.len() < some {
            let more = match memory {
                Memory::AtOnce => left,
                Memory::AsTheyArrive => left.min(values.len().max(some)),
            };
            let full = |_| Kind::Io(std::io::ErrorKind::OutOfMemory.into());
            values.try_reserve_exact(more).map_err(full)?;
        }
        for item in bytes.chunks_exact(S) {
            let mut fixed = [0; S];
            fixed.copy_from_slice(item);
            values.push(convert(values.len(), fixed)?);
        }
    }
    member.finish()?;
    Ok(values)
}

/// The header of an array to be written: version 1.0, C order, padded to 64 bytes as numpy does.
pub(crate) fn header_bytes(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut sizes = String::new();
    for n in shape {
        sizes += &format!("{n}, ");
    }
    let sizes = if shape.len() > 1 { sizes.trim_end_matches(", ") } else { sizes.trim_end() };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<0$}\n", length - 1).bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, Vec<u64>), String> {
        Literal(text).dict().map_err(|kind| kind.to_string())
    }

    #[test]
    fn headers_of_numpy_are_read() {
        let ok = |text: &str, descr: &str, shape: &[u64]| assert_eq!(parse(text), Ok((descr.into(), shape.to_vec())));
        ok("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n", "<f4", &[3, 4]);
        ok("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "<f4", &[3]);
        ok("{\"shape\":(3L,4L),\"fortran_order\":False,\"descr\":\"|u1\"}", "|u1", &[3, 4]);
        ok("{'descr': '<f8', 'fortran_order': True, 'shape': (), }", "<f8", &[]);
        for shape in [&[][..], &[7], &[1, 2], &[9, 84, 84]] {
            let bytes = header_bytes("<f4", shape);
            assert_eq!(bytes.len() % 64, 0);
            let text = std::str::from_utf8(&bytes[10..]).expect("text");
            ok(text, "<f4", &shape.iter().map(|&n| n as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn other_headers_are_refused() {
        for text in [
            "",
            "{",
            "{}",
            "[]",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)} x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': 1}",
            "{'descr': '<f4, 'fortran_order': False, 'shape': (3,)}",
        ] {
            assert_eq!(parse(text), Err(BROKEN.to_string()), "{text}");
        }
        let fortran = parse("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4)}");
        assert_eq!(fortran, Err("expected C order, found Fortran order".into()));
        let record = parse("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}");
        assert_eq!(record, Err("expected dtype one number per element, found a structured type".into()));
        let deep = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {}", "(".repeat(10_000));
        assert_eq!(parse(&deep), Err(BROKEN.to_string()));
    }

    #[test]
    fn element_types() {
        assert_eq!(DType::parse("|b1").map_err(|k| k.to_string()), Ok(DType::Bool));
        assert_eq!(DType::parse("<f2").map_err(|k| k.to_string()), Ok(DType::F16));
        let refused = |descr| DType::parse(descr).expect_err("refused").to_string();
        assert!(refused("|O").contains("pickle is never read"));
        for descr in [">f4", ">i8", "<c8", "<U4", "|S3", "", "f4", "é", "<M8[ns]", "|f4"] {
            let want = format!("expected dtype little-endian bool, int, uint or float, found '{descr}'");
            assert_eq!(refused(descr), want);
        }
    }
}
