//! Trajectories into an npz file that this crate and the reference loader read.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use dt::data::episodes::{Actions, Episodes, Observations};

use crate::error::{Error, Kind};
use crate::npy::header_bytes;
use crate::zip::{Packing, Writer};

/// Writes trajectories; frames are compressed, everything else is stored.
///
/// The file is complete or not there: it is written beside its place under a temporary name, flushed to the disk and
/// renamed. Rewards are written as they are in memory, after their treatment.
///
/// # Errors
/// [`Kind::Io`]; [`Kind::TooLarge`] for an array of 4 GiB or more.
pub fn save_npz(episodes: &Episodes, path: &Path) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = write(episodes, temporary).and_then(|()| {
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

fn write(episodes: &Episodes, path: &Path) -> Result<(), Kind> {
    let file = File::create(path)?;
    let mut archive = Writer::new(BufWriter::new(&file));
    for (key, packing, bytes) in arrays(episodes) {
        archive.add(&format!("{key}.npy"), &bytes, packing)?;
    }
    archive.finish()?.flush()?;
    Ok(file.sync_all()?)
}

/// The five arrays with their headers, one at a time.
fn arrays(episodes: &Episodes) -> impl Iterator<Item = (&'static str, Packing, Vec<u8>)> + '_ {
    let n = episodes.rows();
    let makers: [fn(&Episodes, usize) -> (&'static str, Packing, Vec<u8>); 5] = [
        |episodes, n| match episodes.observations() {
            Observations::Vectors { dim, values } => {
                ("observations", Packing::Stored, array("<f4", &[n, *dim], values.iter().map(|v| v.to_le_bytes())))
            }
            Observations::Frames { height, width, bytes } => {
                let shape = [n, *height, *width];
                ("observations", Packing::Deflated, array("|u1", &shape, bytes.iter().map(|&b| [b])))
            }
        },
        |episodes, n| {
            let bytes = match episodes.actions() {
                Actions::Discrete { ids, .. } => array("<i8", &[n], ids.iter().map(|&id| i64::from(id).to_le_bytes())),
                Actions::Continuous { dim, values } => array("<f4", &[n, *dim], values.iter().map(|v| v.to_le_bytes())),
            };
            ("actions", Packing::Stored, bytes)
        },
        |episodes, n| {
            ("rewards", Packing::Stored, array("<f4", &[n], episodes.rewards().iter().map(|v| v.to_le_bytes())))
        },
        |episodes, n| {
            let mut dones = vec![[0]; n];
            (0..episodes.count()).for_each(|episode| dones[episodes.rows_of(episode).end - 1] = [1]);
            ("dones", Packing::Stored, array("|b1", &[n], dones.into_iter()))
        },
        |episodes, _| {
            let lengths = (0..episodes.count()).map(|episode| (episodes.rows_of(episode).len() as i32).to_le_bytes());
            ("episode_lengths", Packing::Stored, array("<i4", &[episodes.count()], lengths))
        },
    ];
    makers.into_iter().map(move |make| make(episodes, n))
}

fn array<const S: usize>(descr: &str, shape: &[usize], items: impl Iterator<Item = [u8; S]>) -> Vec<u8> {
    let mut bytes = header_bytes(descr, shape);
    bytes.reserve(shape.iter().product::<usize>() * S);
    items.for_each(|item| bytes.extend(item));
    bytes
}
