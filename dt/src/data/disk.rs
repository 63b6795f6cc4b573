//! Observations that stay in a file: rows are read by position when a batch asks for them.
//!
//! The file holds little-endian f32 (vectors) or bytes (frames), row major, from some offset on: a stored member of an
//! npz or a plain array is read where it lies. Values are the bits they would be in memory, so training is, too.
//!
//! A batch is filled without a result to check, because in memory nothing can fail. Here a read may: the rows are then
//! zeros, the first failure is kept, and [`DiskRows::intact`] tells it to whoever is about to use the batch.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::episodes::{Moments, is_usable};
use crate::env::ObsShape;
use crate::error::Error;

/// Values read at a time where a whole dataset is passed over.
const PIECE: usize = 1 << 16;

/// What becomes of the file after the last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is the user's.
    Always,
    /// It is a copy made for this use and is removed.
    WhileUsed,
}

/// Rows of observations in a file; checked once when opened.
#[derive(Debug)]
pub struct DiskRows {
    file: Mutex<File>,
    path: PathBuf,
    start: u64,
    rows: usize,
    shape: ObsShape,
    keep: Keep,
    moments: Option<Moments>,
    fault: OnceLock<Error>,
}

impl DiskRows {
    /// Rows from byte `start` of a file on; reads everything once for its moments.
    ///
    /// # Errors
    /// [`Error::Disk`] if the file is too short or cannot be read, [`Error::NotFinite`], [`Error::Empty`].
    pub fn open(path: &Path, start: u64, rows: usize, shape: ObsShape, keep: Keep) -> Result<DiskRows, Error> {
        let fail = |reason: String| Error::Disk { path: path.to_path_buf(), reason };
        let file = File::open(path).map_err(|error| fail(error.to_string()))?;
        let held = file.metadata().map_err(|error| fail(error.to_string()))?.len();
        if rows == 0 || shape.values() == 0 {
            return Err(Error::Empty { what: "observation values" });
        }
        let size = match shape {
            ObsShape::Vector { .. } => 4,
            ObsShape::Frame { .. } => 1,
        };
        let end = (rows as u64).checked_mul(shape.values() as u64).and_then(|n| n.checked_mul(size));
        if end.and_then(|n| n.checked_add(start)).is_none_or(|end| end > held) {
            return Err(fail(format!("{rows} rows of {} values do not lie in its {held} bytes", shape.values())));
        }
        let (file, path) = (Mutex::new(file), path.to_path_buf());
        let mut disk = DiskRows { file, path, start, rows, shape, keep, moments: None, fault: OnceLock::new() };
        disk.moments = disk.measure()?;
        Ok(disk)
    }

    /// What one observation is.
    pub fn shape(&self) -> ObsShape {
        self.shape
    }

    /// Observations there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Mean and deviation of each entry over all rows, as [`super::episodes::Episodes::moments`] defines them.
    pub fn moments(&self) -> Option<&Moments> {
        self.moments.as_ref()
    }

    /// Tells the first read that failed.
    ///
    /// # Errors
    /// [`Error::Disk`] if any has.
    pub fn intact(&self) -> Result<(), Error> {
        match self.fault.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Entries of vectors from entry `first` of row 0 on.
    ///
    /// # Panics
    /// If observations are frames.
    pub fn read_values(&self, first: usize, out: &mut [f32]) {
        assert!(matches!(self.shape, ObsShape::Vector { .. }), "vectors are asked for, but rows are frames");
        self.read(4 * first as u64, bytemuck::cast_slice_mut(out));
        out.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
    }

    /// Pixels of frames from pixel `first` of row 0 on.
    ///
    /// # Panics
    /// If observations are vectors.
    pub fn read_pixels(&self, first: usize, out: &mut [u8]) {
        assert!(matches!(self.shape, ObsShape::Frame { .. }), "frames are asked for, but rows are vectors");
        self.read(first as u64, out);
    }

    fn read(&self, first: u64, out: &mut [u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let done = file.seek(SeekFrom::Start(self.start + first)).and_then(|_| file.read_exact(out));
        if let Err(error) = done {
            out.fill(0);
            self.fault.get_or_init(|| Error::Disk { path: self.path.clone(), reason: error.to_string() });
        }
    }

    /// Calls `each` with consecutive whole rows until all are passed.
    pub(crate) fn pieces<T: Copy>(
        &self,
        zero: T,
        read: impl Fn(&Self, usize, &mut [T]),
        mut each: impl FnMut(&[T]),
    ) -> Result<(), Error> {
        let width = self.shape.values();
        let some = (PIECE / width).clamp(1, self.rows);
        let mut piece = vec![zero; some * width];
        for row in (0..self.rows).step_by(some) {
            let piece = &mut piece[..some.min(self.rows - row) * width];
            read(self, row * width, piece);
            self.intact()?;
            each(piece);
        }
        Ok(())
    }

    /// The moments of vectors, summed in the order that `Episodes` sums them in memory; refuses what is not usable.
    fn measure(&self) -> Result<Option<Moments>, Error> {
        let ObsShape::Vector { dim } = self.shape else { return Ok(None) };
        let mut sums = Sums::new(dim);
        let (mut row, mut bad) = (0, None);
        self.pieces(0.0, Self::read_values, |values| {
            if let (None, Some(at)) = (bad, values.iter().position(|v| !is_usable(*v))) {
                bad = Some((row + at / dim, at % dim, values[at]));
            }
            row += values.len() / dim;
            sums.add(values);
        })?;
        if let Some((row, col, value)) = bad {
            return Err(Error::NotFinite { what: "observations", row, col, value });
        }
        let mut squares = sums.squares();
        self.pieces(0.0, Self::read_values, |values| squares.add(values))?;
        Ok(Some(squares.moments()))
    }
}

impl PartialEq for DiskRows {
    /// Equal if they are the same place in the same file.
    fn eq(&self, other: &DiskRows) -> bool {
        (&self.path, self.start, self.rows, self.shape) == (&other.path, other.start, other.rows, other.shape)
    }
}

impl Drop for DiskRows {
    fn drop(&mut self) {
        if self.keep == Keep::WhileUsed {
            // A leftover is no harm: the next use writes it anew.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// First pass over the rows: sums of each entry, in f64.
pub(crate) struct Sums {
    sums: Vec<f64>,
    rows: usize,
}

/// Second pass: squared distances to the mean.
pub(crate) struct Squares {
    mean: Vec<f64>,
    sums: Vec<f64>,
    rows: usize,
}

impl Sums {
    pub(crate) fn new(dim: usize) -> Sums {
        Sums { sums: vec![0.0; dim], rows: 0 }
    }

    pub(crate) fn add(&mut self, values: &[f32]) {
        for row in values.chunks_exact(self.sums.len()) {
            self.sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
            self.rows += 1;
        }
    }

    pub(crate) fn squares(self) -> Squares {
        let rows = self.rows as f64;
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / rows).collect();
        Squares { sums: vec![0.0; mean.len()], mean, rows: self.rows }
    }
}

impl Squares {
    pub(crate) fn add(&mut self, values: &[f32]) {
        for row in values.chunks_exact(self.mean.len()) {
            let entries = self.sums.iter_mut().zip(row).zip(&self.mean);
            entries.for_each(|((sum, &v), m)| *sum += (f64::from(v) - m).powi(2));
        }
    }

    pub(crate) fn moments(self) -> Moments {
        let rows = self.rows as f64;
        Moments {
            std: self.sums.iter().map(|sum| (sum / rows).sqrt().max(1e-6) as f32).collect(),
            mean: self.mean.iter().map(|&m| m as f32).collect(),
        }
    }
}
