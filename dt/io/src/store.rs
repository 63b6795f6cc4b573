//! Where observations go while a file is read: into memory, or into a plain file of their values.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dt::data::disk::{DiskRows, Keep};
use dt::data::episodes::Observations;
use dt::env::ObsShape;

use crate::error::Kind;

/// Where observations should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Memory,
    /// In the dataset itself if rows can be read there by position, else in this file.
    Disk(&'a Path),
}

/// Takes observations row by row.
pub(crate) struct Store {
    shape: ObsShape,
    values: usize,
    to: To,
}

enum To {
    Values(Vec<f32>),
    Pixels(Vec<u8>),
    File(BufWriter<File>, PathBuf),
}

impl Store {
    pub(crate) fn new(shape: ObsShape, place: Place<'_>) -> Result<Store, Kind> {
        let to = match (place, shape) {
            (Place::Memory, ObsShape::Vector { .. }) => To::Values(Vec::new()),
            (Place::Memory, ObsShape::Frame { .. }) => To::Pixels(Vec::new()),
            (Place::Disk(path), _) => {
                let file = File::create(path).map_err(|error| unwritable(path, &error))?;
                To::File(BufWriter::new(file), path.to_path_buf())
            }
        };
        Ok(Store { shape, values: 0, to })
    }

    /// Takes entries of vectors.
    pub(crate) fn take_values(&mut self, some: &[f32]) -> Result<(), Kind> {
        self.values += some.len();
        match &mut self.to {
            To::Values(values) => append(values, some),
            To::File(out, path) => {
                let write = |v: &f32| out.write_all(&v.to_le_bytes());
                some.iter().try_for_each(write).map_err(|error| unwritable(path, &error))
            }
            To::Pixels(_) => unreachable!("vectors go where vectors were announced"),
        }
    }

    /// Takes pixels of frames.
    pub(crate) fn take_pixels(&mut self, some: &[u8]) -> Result<(), Kind> {
        self.values += some.len();
        match &mut self.to {
            To::Pixels(pixels) => append(pixels, some),
            To::File(out, path) => out.write_all(some).map_err(|error| unwritable(path, &error)),
            To::Values(_) => unreachable!("frames go where frames were announced"),
        }
    }

    /// Ends; the first `rows` rows are kept.
    pub(crate) fn finish(self, rows: usize) -> Result<Observations, Kind> {
        let n = rows * self.shape.values();
        match (self.to, self.shape) {
            (To::Values(mut values), ObsShape::Vector { dim }) => {
                values.truncate(n);
                Ok(Observations::Vectors { dim, values })
            }
            (To::Pixels(mut bytes), ObsShape::Frame { height, width }) => {
                bytes.truncate(n);
                Ok(Observations::Frames { height, width, bytes })
            }
            (To::File(mut out, path), shape) => {
                out.flush().map_err(|error| unwritable(&path, &error))?;
                drop(out);
                let disk = DiskRows::open(&path, 0, rows, shape, Keep::WhileUsed).inspect_err(|_| {
                    // The error is what counts; a leftover would be written anew.
                    let _ = std::fs::remove_file(&path);
                });
                Ok(Observations::Disk(Arc::new(disk.map_err(Kind::Data)?)))
            }
            _ => unreachable!("the store was made for this shape"),
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Kind {
    Kind::Data(dt::Error::Disk { path: path.to_path_buf(), reason: format!("cannot be written: {error}") })
}

/// Appends; memory grows with what arrived, not with what a file claims.
pub(crate) fn append<T: Copy>(to: &mut Vec<T>, some: &[T]) -> Result<(), Kind> {
    if to.capacity() - to.len() < some.len() {
        let more = to.len().max(some.len());
        to.try_reserve_exact(more).map_err(|_| Kind::Io(std::io::ErrorKind::OutOfMemory.into()))?;
    }
    to.extend_from_slice(some);
    Ok(())
}
