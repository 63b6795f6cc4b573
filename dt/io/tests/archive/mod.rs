//! Zip archives of npy arrays, written independently of the crate so that every field can be wrong.

use std::io::Write;

/// Members and how they are packed.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) members: Vec<(String, Vec<u8>)>,
    pub(crate) deflate: bool,
    /// Unpacked size the directory claims for the first member.
    pub(crate) claim: Option<u32>,
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
            fields.extend((packed.len() as u32).to_le_bytes());
            fields.extend(size.to_le_bytes());
            fields.extend((name.len() as u16).to_le_bytes());
            fields.extend([0; 2]);
            let place = out.len() as u32;
            out.extend(b"PK\x03\x04");
            out.extend(&fields);
            out.extend(name.bytes());
            out.extend(packed);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&fields);
            directory.extend([0; 10]);
            directory.extend(place.to_le_bytes());
            directory.extend(name.bytes());
        }
        let (place, size, count) = (out.len() as u32, directory.len() as u32, self.members.len() as u16);
        out.extend(directory);
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
    let mut archive = Archive { members: Vec::new(), deflate: false, claim: None };
    archive.set("observations", npy("<f4", "(5, 2)", &f32s(&(0..10).map(|i| i as f32).collect::<Vec<_>>())));
    archive.set("actions", npy("<i8", "(5,)", &i64s(&[0, 1, 0, 1, 1])));
    archive.set("rewards", npy("<f4", "(5,)", &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0])));
    archive.set("dones", npy("|b1", "(5,)", &[0, 0, 1, 0, 1]));
    archive.set("episode_lengths", npy("<i4", "(2,)", &i32s(&[3, 2])));
    archive
}
