//! The container of an npz: a zip archive, stored or deflated, with 64-bit sizes.
//!
//! Written by hand because nothing may be allocated for a claim before it is checked, and nothing may panic: zip 0.6,
//! which npyz uses, takes hundreds of bytes for every entry a directory claims and unwraps on an encrypted entry.
//! Not read: encryption, several disks, data before the archive, methods other than 0 and 8.
//!
//! Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.

use std::io::{BufReader, Read, Seek, SeekFrom, Take, Write};

use flate2::read::DeflateDecoder;
use flate2::{Compression, Crc};

use crate::error::Kind;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

/// Bytes of a directory; an npz of five arrays needs 300.
const MOST_DIRECTORY: u64 = 1 << 20;
/// Deflate cannot grow data by more: 258 bytes from 2 bits.
const MOST_GROWTH: u64 = 1032;

/// One file of an archive, as the directory describes it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    deflated: bool,
    crc: u32,
    packed: u64,
    /// Bytes after unpacking; not above what `packed` bytes can hold.
    pub(crate) size: u64,
    header: u64,
    /// End of the room for data: the start of the directory.
    end: u64,
}

impl Entry {
    /// The bytes lie in the file as they are, so their number is already proven by the file's length.
    pub(crate) fn is_stored(&self) -> bool {
        !self.deflated
    }
}

/// Little-endian fields of a fixed block. Callers ask for places inside the block only.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> u64 {
        u64::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    fn u32(&self, at: usize) -> u64 {
        self.u16(at) | self.u16(at + 2) << 16
    }

    fn u64(&self, at: usize) -> u64 {
        self.u32(at) | self.u32(at + 4) << 32
    }

    fn is(&self, signature: u32) -> bool {
        self.u32(0) == u64::from(signature)
    }
}

fn block<const N: usize>(file: &mut impl Read) -> Result<[u8; N], Kind> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads the directory of an archive.
pub(crate) fn directory<R: Read + Seek>(file: &mut R) -> Result<Vec<Entry>, Kind> {
    let length = file.seek(SeekFrom::End(0))?;
    let (count, size, offset, end) = find_directory(file, length)?;
    if size > MOST_DIRECTORY {
        return Err(Kind::TooLarge { what: "bytes of the zip directory", claimed: size, limit: MOST_DIRECTORY });
    }
    if offset.checked_add(size) != Some(end) {
        return Err(Kind::Damaged("the zip directory is not where its end record says"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; size as usize];
    file.read_exact(&mut bytes)?;

    let mut entries = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (entry, after) = parse_entry(rest, offset)?;
        entries.push(entry);
        rest = after;
    }
    if entries.len() as u64 != count {
        return Err(Kind::Damaged("the zip directory does not have the number of entries its end record says"));
    }
    Ok(entries)
}

/// Entries, bytes, place of the directory, and where it has to end.
fn find_directory<R: Read + Seek>(file: &mut R, length: u64) -> Result<(u64, u64, u64, u64), Kind> {
    // The end record has 22 bytes and a comment of up to 65535.
    let tail = length.min(22 + 0xffff);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = vec![0; tail as usize];
    file.read_exact(&mut bytes)?;
    let fits = |&at: &usize| {
        let fields = Fields(&bytes[at..]);
        fields.is(END) && at as u64 + 22 + fields.u16(20) == tail
    };
    let Some(at) = (0..(bytes.len() + 1).saturating_sub(22)).rev().find(fits) else {
        return Err(without_directory(file, length));
    };
    let end = Fields(&bytes[at..at + 22]);
    let place = length - tail + at as u64;
    if end.u16(4) != 0 || end.u16(6) != 0 || end.u16(8) != end.u16(10) {
        return Err(Kind::Unsupported { expected: "one zip file", found: "one of several disks".into() });
    }
    let (count, size, offset) = (end.u16(10), end.u32(12), end.u32(16));
    if count != 0xffff && size != 0xffff_ffff && offset != 0xffff_ffff {
        return Ok((count, size, offset, place));
    }
    let broken = Kind::Damaged("the 64-bit end record of the zip directory is missing or broken");
    let Some(locator) = place.checked_sub(20) else { return Err(broken) };
    file.seek(SeekFrom::Start(locator))?;
    let bytes: [u8; 20] = block(file)?;
    let record = Fields(&bytes).u64(8);
    if !Fields(&bytes).is(LOCATOR64) || record.checked_add(56).is_none_or(|end| end > locator) {
        return Err(broken);
    }
    file.seek(SeekFrom::Start(record))?;
    let bytes: [u8; 56] = block(file)?;
    let fields = Fields(&bytes);
    if !fields.is(END64) || fields.u64(24) != fields.u64(32) {
        return Err(broken);
    }
    Ok((fields.u64(32), fields.u64(40), fields.u64(48), record))
}

/// Says what a file without a directory seems to be.
fn without_directory<R: Read + Seek>(file: &mut R, length: u64) -> Kind {
    let mut start = [0; 6];
    let known = (length as usize).min(6);
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut start[..known]));
    let found = match &start[..known] {
        _ if read.is_err() => "a file that cannot be read",
        [] => "an empty file",
        [b'P', b'K', ..] => "a zip archive without its end: the file is truncated",
        b"\x93NUMPY" => "a single npy array",
        [0x80, 2..=5, ..] => "a pickle, which is never read",
        b"\x89HDF\r\n" => "an HDF5 file",
        _ => "something else",
    };
    Kind::Format { expected: "an npz (zip) archive", found }
}

fn parse_entry(bytes: &[u8], directory: u64) -> Result<(Entry, &[u8]), Kind> {
    let broken = || Kind::Damaged("an entry of the zip directory is broken");
    let fields = Fields(bytes.get(..46).ok_or_else(broken)?);
    if !fields.is(CENTRAL) {
        return Err(broken());
    }
    let name_end = 46 + fields.u16(28) as usize;
    let extra_end = name_end + fields.u16(30) as usize;
    let end = extra_end + fields.u16(32) as usize;
    let name = String::from_utf8_lossy(bytes.get(46..name_end).ok_or_else(broken)?).into_owned();
    let extra = bytes.get(name_end..extra_end).ok_or_else(broken)?;
    let rest = bytes.get(end..).ok_or_else(broken)?;
    let [size, packed, header] =
        wide_sizes([fields.u32(24), fields.u32(20), fields.u32(42)], extra).ok_or_else(broken)?;
    if fields.u16(8) & 1 != 0 {
        return Err(Kind::Unsupported {
            expected: "an archive without encryption",
            found: format!("{name} encrypted"),
        });
    }
    let deflated = match fields.u16(10) {
        0 => false,
        8 => true,
        n => {
            let found = format!("{name} with compression method {n}");
            return Err(Kind::Unsupported { expected: "stored or deflated members", found });
        }
    };
    let most = if deflated { packed.saturating_mul(MOST_GROWTH) } else { packed };
    if size > most || (!deflated && size != packed) || packed > directory {
        return Err(Kind::TooLarge {
            what: "unpacked bytes of a zip entry",
            claimed: size,
            limit: most.min(directory),
        });
    }
    Ok((Entry { name, deflated, crc: fields.u32(16) as u32, packed, size, header, end: directory }, rest))
}

/// Replaces the sizes that say "see the extra field" by the 64-bit ones there.
fn wide_sizes(mut sizes: [u64; 3], mut extra: &[u8]) -> Option<[u64; 3]> {
    if sizes.iter().all(|&size| size != 0xffff_ffff) {
        return Some(sizes);
    }
    loop {
        let head = Fields(extra.get(..4)?);
        let body = extra.get(4..4 + head.u16(2) as usize)?;
        if head.u16(0) == 1 {
            let mut wide = body.chunks_exact(8);
            for size in sizes.iter_mut().filter(|size| **size == 0xffff_ffff) {
                *size = Fields(wide.next()?).u64(0);
            }
            return Some(sizes);
        }
        extra = &extra[4 + body.len()..];
    }
}

/// The unpacked bytes of one entry.
pub(crate) struct Member<'a, R: Read> {
    source: Source<'a, R>,
    sum: Crc,
    crc: u32,
    left: u64,
}

enum Source<'a, R: Read> {
    Stored(Take<BufReader<&'a mut R>>),
    Deflated(DeflateDecoder<Take<BufReader<&'a mut R>>>),
}

/// Where the packed bytes of an entry begin, by its own header.
pub(crate) fn place<R: Read + Seek>(file: &mut R, entry: &Entry) -> Result<u64, Kind> {
    let broken = || Kind::Damaged("the zip entry is not where the directory says");
    file.seek(SeekFrom::Start(entry.header))?;
    let bytes: [u8; 30] = block(file)?;
    let fields = Fields(&bytes);
    if !fields.is(LOCAL) || fields.u16(8) != if entry.deflated { 8 } else { 0 } {
        return Err(broken());
    }
    let start = entry.header.checked_add(30 + fields.u16(26) + fields.u16(28)).ok_or_else(broken)?;
    if start.checked_add(entry.packed).is_none_or(|end| end > entry.end) {
        return Err(broken());
    }
    Ok(start)
}

/// Opens an entry for reading from its start.
pub(crate) fn open<'a, R: Read + Seek>(file: &'a mut R, entry: &Entry) -> Result<Member<'a, R>, Kind> {
    let start = place(file, entry)?;
    file.seek(SeekFrom::Start(start))?;
    let packed = BufReader::new(file).take(entry.packed);
    let source = if entry.deflated { Source::Deflated(DeflateDecoder::new(packed)) } else { Source::Stored(packed) };
    Ok(Member { source, sum: Crc::new(), crc: entry.crc, left: entry.size })
}

impl<R: Read> Member<'_, R> {
    /// Fills `bytes`, or fails if the entry has fewer left.
    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Kind> {
        self.left = match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => left,
            None => return Err(Kind::Damaged("the array ends too early")),
        };
        self.source.read_exact(bytes)?;
        self.sum.update(bytes);
        Ok(())
    }

    /// After the last byte: nothing more may follow, and the checksum must agree.
    pub(crate) fn finish(mut self) -> Result<(), Kind> {
        if self.left != 0 || self.source.read(&mut [0])? != 0 {
            return Err(Kind::Damaged("the array goes on after its last value"));
        }
        if self.sum.sum() != self.crc {
            return Err(Kind::Damaged("the checksum does not agree: the file is damaged"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Source::Stored(reader) => reader.read(bytes),
            Source::Deflated(reader) => reader.read(bytes),
        }
    }
}

/// Writes an archive entry by entry; sizes below 4 GiB.
pub(crate) struct Writer<W: Write> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    count: u16,
}

/// How the bytes of an entry are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Stored,
    Deflated,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Writer<W> {
        Writer { out, at: 0, directory: Vec::new(), count: 0 }
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8], packing: Packing) -> Result<(), Kind> {
        let mut sum = Crc::new();
        sum.update(bytes);
        let packed;
        let (method, body) = match packing {
            Packing::Stored => (0u16, bytes),
            Packing::Deflated => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes)?;
                packed = encoder.finish()?;
                (8, &packed[..])
            }
        };
        let small = |what, n: u64| match u32::try_from(n) {
            // The largest value means "see the extra field".
            Ok(n) if n < u32::MAX => Ok(n),
            _ => Err(Kind::TooLarge { what, claimed: n, limit: u64::from(u32::MAX) - 1 }),
        };
        let at = small("bytes of the archive", self.at)?;
        let sizes = [small("bytes of an array", body.len() as u64)?, small("bytes of an array", bytes.len() as u64)?];
        let name_length = name.len() as u16;

        // Version 2.0, no flags, method, 1980-01-01 00:00, checksum, sizes, name length, no extra field.
        let mut common = Vec::new();
        for field in [20, 0, method, 0, 0x21] {
            common.extend(field.to_le_bytes());
        }
        common.extend(sum.sum().to_le_bytes());
        sizes.iter().for_each(|size| common.extend(size.to_le_bytes()));
        common.extend(name_length.to_le_bytes());
        common.extend([0; 2]);

        self.out.write_all(&LOCAL.to_le_bytes())?;
        self.out.write_all(&common)?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(body)?;
        self.at += 30 + u64::from(name_length) + body.len() as u64;

        self.directory.extend(CENTRAL.to_le_bytes());
        self.directory.extend(20u16.to_le_bytes());
        self.directory.extend(&common);
        // No comment, disk 0, no attributes, then the place of the local header.
        self.directory.extend([0; 10]);
        self.directory.extend(at.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count += 1;
        Ok(())
    }

    /// Writes the directory and hands the output back.
    pub(crate) fn finish(mut self) -> Result<W, Kind> {
        let at = match u32::try_from(self.at) {
            Ok(at) if at < u32::MAX => at,
            _ => {
                let limit = u64::from(u32::MAX) - 1;
                return Err(Kind::TooLarge { what: "bytes of the archive", claimed: self.at, limit });
            }
        };
        let mut end = Vec::new();
        end.extend(END.to_le_bytes());
        end.extend([0; 4]);
        end.extend(self.count.to_le_bytes());
        end.extend(self.count.to_le_bytes());
        end.extend((self.directory.len() as u32).to_le_bytes());
        end.extend(at.to_le_bytes());
        end.extend([0; 2]);
        self.out.write_all(&self.directory)?;
        self.out.write_all(&end)?;
        Ok(self.out)
    }
}
