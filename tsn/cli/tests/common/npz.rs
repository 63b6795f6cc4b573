//! Datasets with chosen faults: npy arrays in a zip without compression.

use std::fs;
use std::path::Path;

/// Arrays of a dataset; one row per action.
#[derive(Clone)]
pub(crate) struct Npz {
    pub observations: Vec<[f32; 4]>,
    pub actions: Vec<i64>,
    pub rewards: Vec<f32>,
    pub lengths: Vec<i64>,
    /// Name of the first array.
    pub first: &'static str,
}

impl Npz {
    /// Twelve rows in six episodes without a fault.
    pub(crate) fn good() -> Npz {
        let observations = (0..12).map(|i| [i as f32 * 0.01, 0.0, -0.01, 0.1]).collect();
        let actions = (0..12).map(|i| i % 2).collect();
        Npz { observations, actions, rewards: vec![1.0; 12], lengths: vec![2; 6], first: "observations" }
    }

    pub(crate) fn save(&self, path: &Path) {
        let rows = self.observations.len();
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let integers = |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut dones = vec![0u8; rows];
        let mut end = 0;
        for length in &self.lengths {
            end += *length as usize;
            if let Some(done) = dones.get_mut(end.wrapping_sub(1)) {
                *done = 1;
            }
        }
        let files = [
            (self.first, npy("<f4", &format!("({rows}, 4)"), &floats(self.observations.as_flattened()))),
            ("actions", npy("<i8", &format!("({rows},)"), &integers(&self.actions))),
            ("rewards", npy("<f4", &format!("({rows},)"), &floats(&self.rewards))),
            ("dones", npy("|b1", &format!("({rows},)"), &dones)),
            ("episode_lengths", npy("<i8", &format!("({},)", self.lengths.len()), &integers(&self.lengths))),
        ];
        fs::write(path, zip(&files)).expect("a dataset");
    }
}

pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A zip whose members are stored.
pub(crate) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let (name, at) = (format!("{name}.npy"), bytes.len() as u32);
        let mut common = Vec::new();
        common.extend([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        common.extend(crc32(data).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let at = bytes.len() as u32;
    let count = (files.len() as u16).to_le_bytes();
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count);
    bytes.extend(count);
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 })
    };
    !data.iter().fold(!0, step)
}
