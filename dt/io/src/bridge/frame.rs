//! Messages of the bridge on a stream: magic, two lengths, a JSON header, the arrays that it lists.
//!
//! The other side is not trusted: lengths are held against limits before anything is read, memory grows with the bytes that
//! really come, and the arrays must fill the body exactly.

use serde_json::{Map, Value, json};
use std::fmt;
use std::io::Read;

const MAGIC: [u8; 4] = *b"TSNB";
const MOST_HEADER: u32 = 1 << 20;
/// Bytes of all arrays of a message.
pub(super) const MOST_BODY: u32 = 64 << 20;

/// One request or answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Header without the list of arrays.
    pub fields: Map<String, Value>,
    arrays: Vec<Listed>,
    body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
struct Listed {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    at: usize,
}

/// Why bytes are no message, or not the one expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stream ended inside a message.
    Cut,
    /// Something else than a message begins here.
    Magic(String),
    /// A length above its limit.
    Long {
        /// What has the length.
        what: &'static str,
        /// The length claimed.
        bytes: u32,
        /// The limit.
        limit: u32,
    },
    /// The header is no JSON object, or lists arrays that are none.
    Header(String),
    /// An array that is missing or has another type or shape.
    Array {
        /// Its name.
        name: String,
        /// Type and shape expected.
        expected: String,
        /// What there is.
        found: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Cut => write!(f, "its output ends inside a message"),
            Fault::Magic(found) => write!(f, "expected a message, found \"{found}\""),
            Fault::Long { what, bytes, limit } => {
                write!(f, "a message claims {bytes} bytes of {what}, the limit is {limit}")
            }
            Fault::Header(why) => write!(f, "the header of a message: {why}"),
            Fault::Array { name, expected, found } => write!(f, "array {name}: expected {expected}, found {found}"),
        }
    }
}

/// A number that arrays are made of.
pub trait Element: Copy {
    /// Its type as numpy writes it.
    const DTYPE: &'static str;
    /// Appends its bytes.
    fn put(self, to: &mut Vec<u8>);
    /// Reads it from bytes of its size.
    fn get(from: &[u8]) -> Self;
}

macro_rules! elements {
    ($($name:ty = $dtype:literal),*) => {$(
        impl Element for $name {
            const DTYPE: &'static str = $dtype;
            fn put(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &[u8]) -> Self {
                let mut bytes = [0; size_of::<$name>()];
                bytes.copy_from_slice(from);
                <$name>::from_le_bytes(bytes)
            }
        }
    )*};
}
elements!(u8 = "|u1", i8 = "|i1", u32 = "<u4", i32 = "<i4", u64 = "<u8", f32 = "<f4");

impl Message {
    /// A message without arrays; `fields` must be an object.
    pub fn new(fields: Value) -> Message {
        let Value::Object(fields) = fields else { return Message::default() };
        Message { fields, ..Message::default() }
    }

    /// Adds an array.
    pub fn with<T: Element>(mut self, name: &str, shape: &[usize], values: &[T]) -> Message {
        let at = self.body.len();
        values.iter().for_each(|value| value.put(&mut self.body));
        self.arrays.push(Listed { name: name.into(), dtype: T::DTYPE.into(), shape: shape.to_vec(), at });
        self
    }

    /// The bytes of the message, or nothing if it is longer than a message may be.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut fields = self.fields.clone();
        let list = self.arrays.iter().map(|a| json!([a.name, a.dtype, a.shape])).collect();
        fields.insert("arrays".into(), Value::Array(list));
        let header = Value::Object(fields).to_string();
        let lengths = [u32::try_from(header.len()).ok()?, u32::try_from(self.body.len()).ok()?];
        if lengths[0] > MOST_HEADER || lengths[1] > MOST_BODY {
            return None;
        }
        let lengths = lengths.map(u32::to_le_bytes).concat();
        Some([&MAGIC, &lengths[..], header.as_bytes(), &self.body].concat())
    }

    /// Reads one message; nothing at the end of the stream.
    ///
    /// # Errors
    /// [`Fault`] for bytes that are no message.
    pub fn decode(from: &mut impl Read) -> Result<Option<Message>, Fault> {
        let start = take(from, 12)?;
        if start.is_empty() {
            return Ok(None);
        }
        let magic = start.len().min(4);
        if start[..magic] != MAGIC[..magic] {
            return Err(Fault::Magic(start.escape_ascii().to_string()));
        }
        if start.len() < 12 {
            return Err(Fault::Cut);
        }
        let (header, body) = (u32::get(&start[4..8]), u32::get(&start[8..12]));
        for (what, bytes, limit) in [("header", header, MOST_HEADER), ("arrays", body, MOST_BODY)] {
            if bytes > limit {
                return Err(Fault::Long { what, bytes, limit });
            }
        }
        let (text, data) = (take(from, header)?, take(from, body)?);
        if text.len() < header as usize || data.len() < body as usize {
            return Err(Fault::Cut);
        }
        let mut fields = match serde_json::from_slice(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Fault::Header("expected a JSON object".into())),
            Err(error) => return Err(Fault::Header(error.to_string())),
        };
        let arrays = listed(fields.remove("arrays"), data.len())?;
        Ok(Some(Message { fields, arrays, body: data }))
    }

    /// Values of an array of a given shape.
    ///
    /// # Errors
    /// [`Fault::Array`].
    pub fn array<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Vec<T>, Fault> {
        let fault = |found: String| {
            let expected = format!("{}{shape:?}", T::DTYPE);
            Err(Fault::Array { name: name.to_owned(), expected, found })
        };
        let Some(array) = self.arrays.iter().find(|a| a.name == name) else { return fault("none".into()) };
        if array.dtype != T::DTYPE || array.shape != shape {
            return fault(format!("{}{:?}", array.dtype, array.shape));
        }
        let bytes = shape.iter().product::<usize>() * size_of::<T>();
        Ok(self.body[array.at..array.at + bytes].chunks_exact(size_of::<T>()).map(T::get).collect())
    }
}

/// The arrays that a header lists; together they are the body.
fn listed(list: Option<Value>, body: usize) -> Result<Vec<Listed>, Fault> {
    let list = list.unwrap_or(Value::Array(Vec::new()));
    let list: Vec<(String, String, Vec<usize>)> =
        serde_json::from_value(list).map_err(|error| Fault::Header(format!("arrays: {error}")))?;
    let (mut arrays, mut at) = (Vec::new(), 0usize);
    for (name, dtype, shape) in list {
        let width = match &*dtype {
            "|u1" | "|i1" => 1usize,
            "<u4" | "<i4" | "<f4" => 4,
            "<u8" => 8,
            other => return Err(Fault::Header(format!("array {name} has the unknown type {other}"))),
        };
        let bytes = shape.iter().try_fold(width, |bytes, size| bytes.checked_mul(*size));
        let end = bytes.and_then(|bytes| at.checked_add(bytes)).filter(|end| *end <= body);
        let Some(end) = end else {
            return Err(Fault::Header(format!("array {name}{shape:?} is larger than the {body} bytes of arrays")));
        };
        arrays.push(Listed { name, dtype, shape, at });
        at = end;
    }
    match at == body {
        true => Ok(arrays),
        false => Err(Fault::Header(format!("its arrays need {at} bytes, but {body} came"))),
    }
}

/// Up to `count` bytes; fewer only where the stream ends or breaks.
fn take(from: &mut impl Read, count: u32) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    // A broken pipe is an end: what matters is that nothing more comes.
    _ = from.take(u64::from(count)).read_to_end(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Message {
        let message = Message::new(json!({"op": "step", "n": 7, "text": "höhe"}));
        message.with("slots", &[2], &[3u32, 4]).with("obs", &[2, 3], &[1.5f32, -0.0, f32::MIN, 4.0, 5.0, 6.0])
    }

    #[test]
    fn a_message_comes_back() {
        let (first, second) = (sample(), Message::new(json!({})).with("empty", &[0, 5], &[] as &[u8]));
        let bytes = [first.encode().unwrap(), second.encode().unwrap()].concat();
        let mut stream = &bytes[..];
        assert_eq!(Message::decode(&mut stream), Ok(Some(first.clone())));
        assert_eq!(Message::decode(&mut stream), Ok(Some(second)));
        assert_eq!(Message::decode(&mut stream), Ok(None));
        assert_eq!(first.array::<u32>("slots", &[2]).unwrap(), [3, 4]);
        let wrong = |name, shape: &[usize]| first.array::<f32>(name, shape).map(|_| ()).unwrap_err().to_string();
        assert_eq!(wrong("obs", &[3, 2]), "array obs: expected <f4[3, 2], found <f4[2, 3]");
        assert_eq!(wrong("slots", &[2]), "array slots: expected <f4[2], found <u4[2]");
        assert_eq!(wrong("rewards", &[2]), "array rewards: expected <f4[2], found none");
    }

    #[test]
    fn hostile_bytes_are_named() {
        let text = |bytes: &[u8]| Message::decode(&mut &bytes[..]).unwrap_err().to_string();
        assert_eq!(text(b"Hello, world"), "expected a message, found \"Hello, world\"");
        assert_eq!(text(b"A\n"), "expected a message, found \"A\\n\"");
        assert_eq!(text(b"TSNB\x02"), "its output ends inside a message");
        let framed = |header: &str, body: u32| {
            [b"TSNB", &(header.len() as u32).to_le_bytes()[..], &body.to_le_bytes(), header.as_bytes()].concat()
        };
        assert!(text(&[b"TSNB", &[255u8; 8][..]].concat()).starts_with("a message claims 4294967295 bytes of header"));
        assert!(text(&framed("{}", u32::MAX)).starts_with("a message claims 4294967295 bytes of arrays"));
        // A length within the limit costs nothing until the bytes come.
        assert_eq!(text(&framed("{}", MOST_BODY)), "its output ends inside a message");
        assert_eq!(text(&framed("[]", 0)), "the header of a message: expected a JSON object");
        let huge = format!(r#"{{"arrays": [["a", "<u8", [{m}, {m}]]]}}"#, m = u64::MAX / 2);
        for (header, found) in [
            (r#"{"arrays": 3}"#, "arrays: "),
            (r#"{"arrays": [["a", "<O8", [1]]]}"#, "array a has the unknown type <O8"),
            (r#"{"arrays": [["a", "|u1", [1]]]}"#, "array a[1] is larger than the 0 bytes"),
            (r#"{"arrays": [["a", "|u1", [-1]]]}"#, "arrays: "),
            (huge.as_str(), "array a["),
        ] {
            let error = text(&framed(header, 0));
            assert!(error.contains(found), "{error}");
        }
        let long = Message::new(json!({"text": "x".repeat(MOST_HEADER as usize)}));
        assert_eq!(long.encode(), None);
    }

    proptest! {
        #[test]
        fn any_message_comes_back(
            text in ".{0,20}", numbers in prop::collection::vec(any::<u64>(), 0..20),
            floats in prop::collection::vec(any::<i32>(), 0..20),
        ) {
            let message = Message::new(json!({"text": text}))
                .with("a", &[numbers.len(), 1], &numbers).with("b", &[floats.len()], &floats);
            let bytes = message.encode().unwrap();
            prop_assert_eq!(Message::decode(&mut &bytes[..]), Ok(Some(message)));
        }

        #[test]
        fn any_damage_is_an_error_or_another_message(at in any::<usize>(), to in any::<u8>(), keep in any::<usize>()) {
            let mut bytes = sample().encode().unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            _ = Message::decode(&mut &bytes[..]);
            bytes.truncate(keep % bytes.len());
            prop_assert!(!matches!(Message::decode(&mut &bytes[..]), Ok(Some(_))));
        }
    }
}
