//! Zip archives of npy arrays, written independently of the crate so that every field can be wrong.

use std::io::Write;

/// Members and how they are packed.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) members: Vec<(String, Vec<u8>)>,
    pub(crate) deflate: bool,
    /// Unpacked size the directory claims for the first member.
    pub(crate) claim: Option<u32>,
    /// Sizes and places in 64 bits, as for archives above 4 GiB.
    pub(crate) wide: bool,
}

impl Archive {
    pub(crate) fn set(&mut self, key: &str, array: Vec<u8>) {
        match self.members.iter_mut().find(|(name, _)| name == key) {
            Some(member) => member.1 = array,
            None => self.members.push((key.to_owned(), array)),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (i, (key, array)) in self.members.iter().enumerate() {
            let name = format!("{key}.npy");
            let mut sum = flate2::Crc::new();
            sum.update(array);
            let packed = if self.deflate { deflate(array) } else { array.clone() };
            let size = self.claim.filter(|_| i == 0).unwrap_or(array.len() as u32);
            let mut fields = Vec::new();
            fields.extend(20u16.to_le_bytes());
            fields.extend(0u16.to_le_bytes());
            fields.extend((if self.deflate { 8u16 } else { 0 }).to_le_bytes());
            fields.extend([0; 4]);
            fields.extend(sum.sum().to_le_bytes());
            let place = out.len() as u32;
            // An unrelated field comes first: a reader has to look for field 1.
            let mut extra = vec![];
            if self.wide {
                fields.extend([0xff; 8]);
                extra.extend([7, 0, 3, 0, 1, 2, 3, 1, 0, 24, 0]);
                for value in [size, packed.len() as u32, place] {
                    extra.extend(u64::from(value).to_le_bytes());
                }
            } else {
                fields.extend((packed.len() as u32).to_le_bytes());
                fields.extend(size.to_le_bytes());
            }
            fields.extend((name.len() as u16).to_le_bytes());
            fields.extend((extra.len() as u16).to_le_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&fields);
            out.extend(name.bytes());
            out.extend(&extra);
            out.extend(packed);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&fields);
            directory.extend([0; 10]);
            directory.extend(if self.wide { u32::MAX } else { place }.to_le_bytes());
            directory.extend(name.bytes());
            directory.extend(&extra);
        }
        let (place, size, count) = (out.len() as u32, directory.len() as u32, self.members.len() as u16);
        out.extend(directory);
        if self.wide {
            let record = out.len() as u64;
            out.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
            for value in [u32::from(count), u32::from(count), size, place] {
                out.extend(u64::from(value).to_le_bytes());
            }
            out.extend(b"PK\x06\x07\0\0\0\0");
            out.extend(record.to_le_bytes());
            out.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
            out.extend([0xff; 12]);
            out.extend([0; 2]);
            return out;
        }
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(place.to_le_bytes());
        out.extend([0; 2]);
        out
    }
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// An npy array with a header of any text.
pub(crate) fn npy_with(dict: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16 + 1).to_le_bytes());
    bytes.extend(dict.bytes());
    bytes.push(b'\n');
    bytes.extend(body);
    bytes
}

/// An npy array.
pub(crate) fn npy(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    npy_with(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"), body)
}

/// The start of an npy array of version 2 that claims a header of some length.
#[allow(dead_code, reason = "one of the two test programs does not need it")]
pub(crate) fn npy_header_of(length: u32) -> Vec<u8> {
    [b"\x93NUMPY\x02\x00", &length.to_le_bytes()[..]].concat()
}

pub(crate) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two episodes of three and two steps, two numbers an observation.
pub(crate) fn valid() -> Archive {
    let mut archive = Archive { members: Vec::new(), deflate: false, claim: None, wide: false };
    archive.set("observations", npy("<f4", "(5, 2)", &f32s(&(0..10).map(|i| i as f32).collect::<Vec<_>>())));
    archive.set("actions", npy("<i8", "(5,)", &i64s(&[0, 1, 0, 1, 1])));
    archive.set("rewards", npy("<f4", "(5,)", &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0])));
    archive.set("dones", npy("|b1", "(5,)", &[0, 0, 1, 0, 1]));
    archive.set("episode_lengths", npy("<i4", "(2,)", &i32s(&[3, 2])));
    archive
}
