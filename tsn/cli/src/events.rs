//! The event file of a run directory, for TensorBoard: `events.out.tfevents.tsn-affinity`.
//!
//! A file is a list of records: length (u64), its checksum, a message, its checksum; numbers are little endian, checksums
//! masked CRC-32C. A message is tensorflow's `Event` in protobuf: wall time (1), step (2), file version (3), summary (5) of
//! values (1), each with tag (1) and number (2). Steps count on over tasks; what is measured after task `i` lies at the
//! last step of task `i`.
//!
//! Source: tensorflow/tensorflow, core/lib/io/record_writer.h and core/util/event.proto, core/framework/summary.proto.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tsn::file::replace_file;

/// Name of the file; TensorBoard looks for `tfevents` in it.
pub(crate) const NAME: &str = "events.out.tfevents.tsn-affinity";
/// Points of a task's curve at most.
const POINTS: u64 = 1000;
const VERSION: &[u8] = b"brain.Event:2";

/// What a value is about: the part of its tag before the slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Steps of the sequence.
    Train,
    /// Steps of the models trained alone.
    Reference,
    /// Tasks after a task.
    After,
}

/// How far a run is: what the file may hold. Later events are of a process that was killed, and come again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Steps of the sequence.
    pub train: u64,
    /// Steps of the references.
    pub reference: u64,
    /// Steps of the tasks that were played.
    pub after: u64,
}

/// An open event file.
pub(crate) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Opens the file of a run, without what lies beyond its progress or is damaged; makes one if there is none.
    ///
    /// # Errors
    /// [`tsn::Error::Io`].
    pub(crate) fn open(dir: &Path, progress: Progress) -> Result<Events, tsn::Error> {
        let path = dir.join(NAME);
        let io = |doing: &'static str, source| tsn::Error::Io { doing, path: path.clone(), source };
        let old = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|source| io("read", source))?,
        };
        let mut kept = Vec::new();
        record(&mut kept, &version());
        let mut rest = &old[..];
        while let Some((message, whole, after)) = next_record(rest) {
            if stays(message, progress) {
                kept.extend_from_slice(whole);
            }
            rest = after;
        }
        if kept != old {
            replace_file(&path, &kept)?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| io("write", source))?;
        Ok(Events { file, path })
    }

    /// True if a step of a task of so many is drawn: the last one always is.
    pub(crate) fn is_due(step: u64, steps: u64) -> bool {
        step.is_multiple_of(steps.div_ceil(POINTS).max(1)) || step == steps
    }

    /// Adds values of one step, at once: a kill leaves all or none of them.
    ///
    /// # Errors
    /// [`tsn::Error::Io`].
    pub(crate) fn add(&mut self, about: About, step: u64, values: &[(&str, f64)]) -> Result<(), tsn::Error> {
        if values.is_empty() {
            return Ok(());
        }
        let mut summary = Vec::new();
        for (tag, number) in values {
            let mut value = Vec::new();
            text(&mut value, 1, format!("{}{tag}", about.prefix()).as_bytes());
            value.push(2 << 3 | 5);
            value.extend((*number as f32).to_le_bytes());
            text(&mut summary, 1, &value);
        }
        let mut message = wall_time();
        message.push(2 << 3);
        varint(&mut message, step);
        text(&mut message, 5, &summary);
        let mut bytes = Vec::new();
        record(&mut bytes, &message);
        self.file.write_all(&bytes).map_err(|source| tsn::Error::Io { doing: "write", path: self.path.clone(), source })
    }
}

impl About {
    fn prefix(self) -> &'static str {
        match self {
            About::Train => "train/",
            About::Reference => "reference/",
            About::After => "after/",
        }
    }
}

fn version() -> Vec<u8> {
    // Time 0, so that the same file begins with the same bytes whenever it is opened.
    let mut message = vec![1 << 3 | 1];
    message.extend(0f64.to_le_bytes());
    text(&mut message, 3, VERSION);
    message
}

fn wall_time() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let mut message = vec![1 << 3 | 1];
    message.extend(now.to_le_bytes());
    message
}

/// False for the version, which is written anew, and for what comes again.
fn stays(message: &[u8], progress: Progress) -> bool {
    let (mut step, mut tag) = (0, None);
    let mut rest = message;
    while let Some((number, field, after)) = next_field(rest) {
        match (number, field) {
            (2, Field::Number(value)) => step = value,
            (5, Field::Bytes(summary)) => tag = first(summary).and_then(first),
            _ => {}
        }
        rest = after;
    }
    let about = [About::Train, About::Reference, About::After];
    let found = tag.and_then(|tag| about.into_iter().find(|about| tag.starts_with(about.prefix().as_bytes())));
    match found {
        Some(About::Train) => step <= progress.train,
        Some(About::Reference) => step <= progress.reference,
        Some(About::After) => step <= progress.after,
        None => false,
    }
}

/// Bytes of the first field, if it is number 1.
fn first(message: &[u8]) -> Option<&[u8]> {
    match next_field(message)? {
        (1, Field::Bytes(bytes), _) => Some(bytes),
        _ => None,
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Number and content of the first field, and what follows it.
fn next_field(message: &[u8]) -> Option<(u64, Field<'_>, &[u8])> {
    let (key, rest) = read_varint(message)?;
    let (field, rest) = match key & 7 {
        0 => {
            let (value, rest) = read_varint(rest)?;
            (Field::Number(value), rest)
        }
        1 => (Field::Fixed, rest.get(8..)?),
        2 => {
            let (len, rest) = read_varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Field::Bytes(bytes), rest)
        }
        5 => (Field::Fixed, rest.get(4..)?),
        _ => return None,
    };
    Some((key >> 3, field, rest))
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 127).checked_shl(7 * at as u32)?;
        if byte & 128 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn record(out: &mut Vec<u8>, message: &[u8]) {
    let len = (message.len() as u64).to_le_bytes();
    out.extend(len);
    out.extend(masked_crc(&len).to_le_bytes());
    out.extend_from_slice(message);
    out.extend(masked_crc(message).to_le_bytes());
}

/// Message, whole record, and what follows it; `None` at the end or at damage.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != masked_crc(len) {
        return None;
    }
    let (message, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let whole = &bytes[..bytes.len() - rest.len()];
    (u32::from_le_bytes(*crc) == masked_crc(message)).then_some((message, whole, rest))
}

/// Checksums of checksums are weak, so records hold them rotated and moved.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, a byte at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!((crc32c(&[0; 32]), crc32c(&[255; 32])), (0x8a91_36aa, 0x62a8_ab43));
    }

    #[test]
    fn what_comes_again_and_what_is_damaged_goes() {
        let dir = std::env::temp_dir().join(format!("tsn-events-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(NAME);
        let all = Progress { train: 30, reference: 9, after: 20 };
        let mut events = Events::open(&dir, all).unwrap();
        let whole = |events: &mut Events| {
            for step in [10, 20, 30] {
                events.add(About::Train, step, &[("loss", 1.5), ("rate", step as f64)]).unwrap();
            }
            events.add(About::After, 20, &[("score/a \u{e4}", -2.0)]).unwrap();
            events.add(About::Reference, 300, &[("loss", 0.1)]).unwrap();
        };
        whole(&mut events);
        let messages = |bytes: &[u8]| {
            let (mut rest, mut count) = (bytes, 0);
            while let Some((.., after)) = next_record(rest) {
                (rest, count) = (after, count + 1);
            }
            (count, rest.len())
        };
        assert_eq!(messages(&fs::read(&path).unwrap()), (6, 0));
        drop(Events::open(&dir, all).unwrap());
        assert_eq!(messages(&fs::read(&path).unwrap()), (5, 0), "a reference beyond the progress");
        drop(Events::open(&dir, Progress { train: 29, reference: 0, after: 19 }).unwrap());
        assert_eq!(messages(&fs::read(&path).unwrap()), (3, 0), "version and two steps");
        let good = fs::read(&path).unwrap();
        for cut in [1, 9, 13, good.len() - 1] {
            fs::write(&path, &good[..cut]).unwrap();
            drop(Events::open(&dir, all).unwrap());
            let (count, left) = messages(&fs::read(&path).unwrap());
            assert!((1..3).contains(&count) && left == 0, "{cut}: {count}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn curves_have_at_most_a_thousand_points_and_end_at_the_end() {
        for steps in [1, 7, 999, 1000, 1001, 20_000, 1_000_003] {
            let points = (1..=steps).filter(|step| Events::is_due(*step, steps)).count() as u64;
            assert!(points <= 1000 && points >= steps.min(500) && Events::is_due(steps, steps), "{steps}: {points}");
        }
    }
}
