//! The header of a file: its JSON, and the proof that every range it names lies inside the file.

use super::element::DTYPES;
use super::{CHECKSUM, DIM_LIMIT, FileError, HEADER_LIMIT, LENGTH_BYTES, METADATA_LIMIT, TENSOR_LIMIT, Tensor, short};

const METADATA: &str = "__metadata__";

#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) metadata: Vec<(Box<str>, Box<str>)>, // by key
    pub(super) tensors: Vec<Tensor>,                // by offset
    pub(super) by_name: Vec<u32>,                   // positions in `tensors`
    pub(super) checksum_at: Option<usize>,          // first of the 64 digits, from the start of the file
}

impl Header {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.metadata.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.metadata[at].1)
    }
}

/// The header and the position of the payload, with every range proved to lie inside `bytes`.
pub(super) fn read_header(bytes: &[u8]) -> Result<(Header, usize), FileError> {
    let found = bytes.len() as u64;
    let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(FileError::Truncated { expected: LENGTH_BYTES as u64, found });
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT as u64 {
        return Err(FileError::HeaderTooLong { limit: HEADER_LIMIT as u64, found: length });
    }
    let payload = LENGTH_BYTES + length as usize;
    let Some(text) = bytes.get(LENGTH_BYTES..payload) else {
        return Err(FileError::Truncated { expected: payload as u64, found });
    };
    let text = std::str::from_utf8(text).map_err(|e| FileError::NotUtf8 { at: e.valid_up_to() })?;
    let mut header = Json { text, at: 0 }.header()?;

    header.metadata.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if let Some(pair) = header.metadata.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(FileError::Duplicate { key: short(&pair[0].0) });
    }
    // Stable: empty tensors share offsets and stay in the order of the header.
    header.tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    header.by_name = (0..header.tensors.len() as u32).collect();
    let Header { tensors, by_name, .. } = &mut header;
    by_name.sort_unstable_by(|a, b| tensors[*a as usize].name.cmp(&tensors[*b as usize].name));
    for pair in by_name.windows(2) {
        let name = &tensors[pair[0] as usize].name;
        if *name == tensors[pair[1] as usize].name {
            return Err(FileError::Duplicate { key: short(name) });
        }
    }

    let mut end = 0;
    for tensor in &*tensors {
        let name = || short(&tensor.name);
        if tensor.range.start != end {
            return Err(FileError::WrongStart {
                tensor: name(),
                expected: end as u64,
                found: tensor.range.start as u64,
            });
        }
        if tensor.range.end < tensor.range.start {
            let (start, end) = (tensor.range.start as u64, tensor.range.end as u64);
            return Err(FileError::Backwards { tensor: name(), start, end });
        }
        let elements = tensor.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let bits = elements.and_then(|n| n.checked_mul(tensor.dtype.bits()));
        let bits = bits.ok_or_else(|| FileError::Overflow { tensor: name() })?;
        let span = (tensor.range.end - tensor.range.start) as u64;
        // Sub-byte types whose bits fill no whole bytes round up here and so match no span below.
        if bits % 8 != 0 || bits / 8 != span {
            return Err(FileError::WrongSize { tensor: name(), expected: bits.div_ceil(8), found: span });
        }
        end = tensor.range.end;
    }
    match end.checked_add(payload) {
        Some(whole) if whole == bytes.len() => Ok((header, payload)),
        whole => Err(FileError::WrongLength { expected: whole.map_or(u64::MAX, |w| w as u64), found }),
    }
}

/// A reader of the one JSON shape a header has. It never recurses, so depth is no attack.
struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl Json<'_> {
    fn header(&mut self) -> Result<Header, FileError> {
        let mut header = Header { metadata: Vec::new(), tensors: Vec::new(), by_name: Vec::new(), checksum_at: None };
        let mut has_metadata = false;
        self.object("`{` of the header", |json, key| {
            if *key != *METADATA {
                if header.tensors.len() == TENSOR_LIMIT {
                    return Err(FileError::TooMany { what: "tensors", limit: TENSOR_LIMIT });
                }
                header.tensors.push(json.tensor(key)?);
                return Ok(());
            }
            if std::mem::replace(&mut has_metadata, true) {
                return Err(FileError::Duplicate { key: METADATA.to_owned() });
            }
            json.object("`{` of the metadata", |json, key| {
                if header.metadata.len() == METADATA_LIMIT {
                    return Err(FileError::TooMany { what: "metadata entries", limit: METADATA_LIMIT });
                }
                let value = json.string("a metadata string")?;
                // Written without escapes, the value ends right before its closing quote.
                let digits = json.at - 1 - value.len();
                if *key == *CHECKSUM && value.len() == 64 && json.text[digits..].starts_with(&*value) {
                    header.checksum_at = Some(LENGTH_BYTES + digits);
                }
                header.metadata.push((key, value));
                Ok(())
            })
        })?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.wrong("only spaces after the header"));
        }
        Ok(header)
    }

    fn tensor(&mut self, name: Box<str>) -> Result<Tensor, FileError> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        let twice = |field: &str| FileError::Duplicate { key: format!("{}: {field}", short(&name)) };
        self.object("`{` of a tensor", |json, field| match &*field {
            "dtype" => {
                let found = json.string("an element type")?;
                let known = DTYPES.iter().find(|(_, text, _)| **text == *found);
                let known =
                    known.ok_or_else(|| FileError::UnknownDtype { tensor: short(&name), found: short(&found) })?;
                dtype.replace(known.0).map_or(Ok(()), |_| Err(twice("dtype")))
            }
            "shape" => shape.replace(json.numbers(DIM_LIMIT)?).map_or(Ok(()), |_| Err(twice("shape"))),
            "data_offsets" => {
                let pair = json.numbers(2)?;
                let [start, end] = pair[..] else { return Err(json.wrong("two data_offsets")) };
                // On a 32-bit machine a larger offset cannot lie in a file that was read.
                let place = |v| usize::try_from(v).map_err(|_| FileError::Overflow { tensor: short(&name) });
                offsets.replace(place(start)?..place(end)?).map_or(Ok(()), |_| Err(twice("data_offsets")))
            }
            _ => Err(FileError::UnknownField { tensor: short(&name), found: short(&field) }),
        })?;
        let missing = |field| FileError::MissingField { tensor: short(&name), field };
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let range = offsets.ok_or_else(|| missing("data_offsets"))?;
        Ok(Tensor { name, dtype, shape, range })
    }

    /// `{ "key": value, ... }`; `value` is called at each value.
    fn object(
        &mut self,
        open: &'static str,
        mut value: impl FnMut(&mut Self, Box<str>) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        self.expect(b'{', open)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string("a key in quotes")?;
            self.expect(b':', "`:`")?;
            value(self, key)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    /// `[ n, ... ]` of at most `most` unsigned whole numbers.
    fn numbers(&mut self, most: usize) -> Result<Vec<u64>, FileError> {
        let mut numbers = Vec::new();
        self.expect(b'[', "`[`")?;
        if self.take(b']') {
            return Ok(numbers);
        }
        loop {
            if numbers.len() == most {
                return Err(FileError::TooMany { what: "numbers in a list", limit: most });
            }
            numbers.push(self.number()?);
            if self.take(b']') {
                return Ok(numbers);
            }
            self.expect(b',', "`,` or `]`")?;
        }
    }

    fn number(&mut self) -> Result<u64, FileError> {
        const WANTED: &str = "a whole number below 2^64 without leading zero";
        self.space();
        let rest = &self.text[self.at..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value = rest[..digits].parse();
        match value {
            Ok(value) if digits == 1 || !rest.starts_with('0') => {
                self.at += digits;
                Ok(value)
            }
            _ => Err(self.wrong(WANTED)),
        }
    }

    /// A string; on return `at` is right behind its closing quote.
    fn string(&mut self, what: &'static str) -> Result<Box<str>, FileError> {
        self.expect(b'"', what)?;
        // Room for the text as written, which unescaped is no longer: one allocation, whatever the escapes.
        let written = self.text.as_bytes()[self.at..].iter().scan(false, |escaped, byte| {
            let ends = *byte == b'"' && !*escaped;
            *escaped = *byte == b'\\' && !*escaped;
            (!ends).then_some(())
        });
        let mut out = String::with_capacity(written.count());
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().take_while(|b| *b >= b' ' && *b != b'"' && *b != b'\\').count();
            out.push_str(&rest[..plain]);
            self.at += plain;
            match rest.as_bytes().get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out.into_boxed_str());
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.wrong("a closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, FileError> {
        const WANTED: &str = "a JSON escape";
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match letter {
            Some(b'u') => {
                let high = self.hex_escape().ok_or_else(|| self.wrong(WANTED))?;
                // Characters above U+FFFF come as two escapes, a surrogate pair.
                let code = if (0xD800..0xDC00).contains(&high) {
                    let low = self.hex_escape().filter(|low| (0xDC00..0xE000).contains(low));
                    let low = low.ok_or_else(|| self.wrong("the second half of a surrogate pair"))?;
                    0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
                } else {
                    high
                };
                return char::from_u32(code).ok_or_else(|| self.wrong("a surrogate pair in order"));
            }
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return Err(self.wrong(WANTED)),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\uXXXX` at the cursor.
    fn hex_escape(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 6)?.strip_prefix("\\u")?;
        let valid = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| valid)?;
        self.at += 6;
        Some(code)
    }

    fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), FileError> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(what)) }
    }

    fn wrong(&self, expected: &'static str) -> FileError {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        FileError::Syntax { at: self.at, expected, found }
    }
}
