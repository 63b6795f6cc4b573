//! Observations of all rows, in memory or left in a file.

use std::sync::Arc;

use super::disk::DiskRows;
use crate::env::ObsShape;
use crate::error::Error;

/// Observations of all rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Observations {
    /// `values[n, dim]`.
    Vectors {
        /// Entries of one observation.
        dim: usize,
        /// Row major.
        values: Vec<f32>,
    },
    /// `bytes[n, height * width]`, one grey frame a row.
    Frames {
        /// Rows of a frame.
        height: usize,
        /// Columns of a frame.
        width: usize,
        /// Row major, 0 black to 255 white.
        bytes: Vec<u8>,
    },
    /// Either of them, left in a file.
    Disk(Arc<DiskRows>),
}

/// Consecutive whole rows of observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece<'a> {
    /// Of vectors.
    Values(&'a [f32]),
    /// Of frames.
    Pixels(&'a [u8]),
}

impl Observations {
    /// What one observation is.
    pub fn shape(&self) -> ObsShape {
        match *self {
            Observations::Vectors { dim, .. } => ObsShape::Vector { dim },
            Observations::Frames { height, width, .. } => ObsShape::Frame { height, width },
            Observations::Disk(ref disk) => disk.shape(),
        }
    }

    /// Passes all rows to `each` in their order, in pieces of whole rows; from memory in one piece.
    ///
    /// # Errors
    /// [`Error::Disk`] if rows in a file cannot be read.
    pub fn visit(&self, mut each: impl FnMut(Piece<'_>)) -> Result<(), Error> {
        match self {
            Observations::Vectors { values, .. } => each(Piece::Values(values)),
            Observations::Frames { bytes, .. } => each(Piece::Pixels(bytes)),
            Observations::Disk(disk) => match disk.shape() {
                ObsShape::Vector { .. } => disk.pieces(0.0, DiskRows::read_values, |v| each(Piece::Values(v)))?,
                ObsShape::Frame { .. } => disk.pieces(0, DiskRows::read_pixels, |b| each(Piece::Pixels(b)))?,
            },
        }
        Ok(())
    }

    /// Writes one observation as numbers; pixels from 0 to 255. A row that cannot be read is zeros, and
    /// [`Observations::intact`] says so.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let n = self.shape().values();
        let from_pixels = |pixels: &[u8], out: &mut [f32]| {
            out.iter_mut().zip(pixels).for_each(|(to, from)| *to = f32::from(*from));
        };
        match self {
            Observations::Vectors { values, .. } => out.copy_from_slice(&values[row * n..(row + 1) * n]),
            Observations::Frames { bytes, .. } => from_pixels(&bytes[row * n..(row + 1) * n], out),
            Observations::Disk(disk) if matches!(disk.shape(), ObsShape::Vector { .. }) => {
                disk.read_values(row * n, out);
            }
            Observations::Disk(disk) => {
                let mut pixels = vec![0; n];
                disk.read_pixels(row * n, &mut pixels);
                from_pixels(&pixels, out);
            }
        }
    }

    /// One observation as [`Observations::read_row`] gives it.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.shape().values()];
        self.read_row(row, &mut out);
        out
    }

    /// Refuses observations of which a row could not be read.
    ///
    /// # Errors
    /// [`Error::Disk`], the first fault.
    pub fn intact(&self) -> Result<(), Error> {
        match self {
            Observations::Disk(disk) => disk.intact(),
            _ => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Observations::Vectors { values, .. } => values.len(),
            Observations::Frames { bytes, .. } => bytes.len(),
            // Opening has proven that they lie in a file, so the product fits.
            Observations::Disk(disk) => disk.rows() * disk.shape().values(),
        }
    }
}
