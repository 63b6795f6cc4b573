//! Trajectories into an npz file that this crate and the reference loader read.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use dt::data::episodes::{Actions, Episodes, Piece};
use dt::env::ObsShape;

use crate::error::{Error, Kind};
use crate::npy::header_bytes;
use crate::zip::{Packing, Writer};

/// Arrays besides those of trajectories, which loaders do not need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// `success [E]` bool: the episode reached its goal.
    pub success: Option<&'a [bool]>,
    /// `lives [N]` u8: lives before the step.
    pub lives: Option<&'a [u8]>,
}

/// Writes trajectories; frames are compressed, everything else is stored.
///
/// The file is complete or not there: it is written beside its place under a temporary name, flushed to the disk and
/// renamed. Rewards are written as they are in memory, after their treatment.
///
/// # Errors
/// [`Kind::Io`]; [`Kind::TooLarge`] for an array of 4 GiB or more.
pub fn save_npz(episodes: &Episodes, path: &Path) -> Result<(), Error> {
    save_npz_with(episodes, Extras::default(), path)
}

/// The same with more arrays.
///
/// # Errors
/// Those of [`save_npz`].
pub fn save_npz_with(episodes: &Episodes, extras: Extras<'_>, path: &Path) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = write(episodes, extras, temporary).and_then(|()| {
        fs::rename(temporary, path)?;
        // The rename itself is durable once the directory is.
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if cfg!(unix) => Ok(File::open(parent)?.sync_all()?),
            _ => Ok(()),
        }
    });
    written.map_err(|kind| {
        // A leftover is no harm; the first error is the one to report.
        let _ = fs::remove_file(temporary);
        kind.at(path, None)
    })
}

fn write(episodes: &Episodes, extras: Extras<'_>, path: &Path) -> Result<(), Kind> {
    let file = File::create(path)?;
    let mut archive = Writer::new(BufWriter::new(&file));
    // One array at a time is turned into bytes.
    for (key, array) in ARRAYS {
        let (packing, bytes) = array(episodes)?;
        archive.add(&format!("{key}.npy"), &bytes, packing)?;
    }
    if let Some(success) = extras.success {
        let bytes = array("|b1", &[success.len()], success.iter().map(|flag| [u8::from(*flag)]));
        archive.add("success.npy", &bytes, Packing::Stored)?;
    }
    if let Some(lives) = extras.lives {
        let bytes = array("|u1", &[lives.len()], lives.iter().map(|n| [*n]));
        archive.add("lives.npy", &bytes, Packing::Stored)?;
    }
    archive.finish()?.flush()?;
    Ok(file.sync_all()?)
}

/// An array as an npy file, and how it is packed.
type Make = fn(&Episodes) -> Result<(Packing, Vec<u8>), Kind>;

const ARRAYS: [(&str, Make); 5] = [
    ("observations", observations),
    ("actions", actions),
    ("rewards", rewards),
    ("dones", dones),
    ("episode_lengths", lengths),
];

fn observations(episodes: &Episodes) -> Result<(Packing, Vec<u8>), Kind> {
    let n = episodes.rows();
    let (packing, mut bytes) = match episodes.observations().shape() {
        ObsShape::Vector { dim } => (Packing::Stored, header_bytes("<f4", &[n, dim])),
        ObsShape::Frame { height, width } => (Packing::Deflated, header_bytes("|u1", &[n, height, width])),
    };
    let visited = episodes.observations().visit(|piece| match piece {
        Piece::Values(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Piece::Pixels(pixels) => bytes.extend_from_slice(pixels),
    });
    visited.map_err(Kind::Data)?;
    Ok((packing, bytes))
}

fn actions(episodes: &Episodes) -> Result<(Packing, Vec<u8>), Kind> {
    let n = episodes.rows();
    let bytes = match episodes.actions() {
        Actions::Discrete { ids, .. } => array("<i8", &[n], ids.iter().map(|&id| i64::from(id).to_le_bytes())),
        Actions::Continuous { dim, values } => array("<f4", &[n, *dim], values.iter().map(|v| v.to_le_bytes())),
    };
    Ok((Packing::Stored, bytes))
}

fn rewards(episodes: &Episodes) -> Result<(Packing, Vec<u8>), Kind> {
    Ok((Packing::Stored, array("<f4", &[episodes.rows()], episodes.rewards().iter().map(|v| v.to_le_bytes()))))
}

fn dones(episodes: &Episodes) -> Result<(Packing, Vec<u8>), Kind> {
    let mut dones = vec![[0]; episodes.rows()];
    (0..episodes.count()).for_each(|episode| dones[episodes.rows_of(episode).end - 1] = [1]);
    Ok((Packing::Stored, array("|b1", &[episodes.rows()], dones.into_iter())))
}

fn lengths(episodes: &Episodes) -> Result<(Packing, Vec<u8>), Kind> {
    // Two thousand million steps in one episode would not have fitted into the archive.
    let lengths = (0..episodes.count()).map(|episode| (episodes.rows_of(episode).len() as i32).to_le_bytes());
    Ok((Packing::Stored, array("<i4", &[episodes.count()], lengths)))
}

fn array<const S: usize>(descr: &str, shape: &[usize], items: impl Iterator<Item = [u8; S]>) -> Vec<u8> {
    let mut bytes = header_bytes(descr, shape);
    bytes.reserve(shape.iter().product::<usize>() * S);
    items.for_each(|item| bytes.extend(item));
    bytes
}
