//! One way into every kind of dataset: the format is found from the content.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dt::data::episodes::Episodes;

use crate::error::{Error, Kind};
use crate::hdf5;
use crate::npz::{self, Expect};
use crate::parts::Parts;
use crate::store::Place;

/// Kinds of datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Arrays of all episodes in a zip archive.
    Npz,
    /// HDF5 with one group per episode.
    Minari,
    /// HDF5 with flat arrays.
    D4rl,
}

impl Format {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Npz => "npz",
            Format::Minari => "Minari",
            Format::D4rl => "D4RL",
        }
    }
}

/// What a dataset takes in memory, from its headers alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Steps.
    pub rows: u64,
    /// Bytes of observations.
    pub observation_bytes: u64,
    /// Bytes of everything else: actions, rewards, returns to go.
    pub other_bytes: u64,
}

impl Footprint {
    /// Adds steps with the bytes of one observation and one action.
    pub(crate) fn add(&mut self, rows: u64, observation: u64, action: u64) {
        self.rows = self.rows.saturating_add(rows);
        self.observation_bytes = self.observation_bytes.saturating_add(rows.saturating_mul(observation));
        self.other_bytes = self.other_bytes.saturating_add(rows.saturating_mul(action + 8));
    }
}

/// What is wrong with a dataset, and what it holds where it can be read.
#[derive(Debug)]
pub struct Checked {
    /// The kind of file, where it can be told.
    pub format: Option<Format>,
    /// The trajectories; `None` if there are problems.
    pub episodes: Option<Episodes>,
    /// Everything that keeps it from being used.
    pub problems: Vec<String>,
    /// What is not used of it.
    pub notes: Vec<String>,
}

/// Reads the trajectories of a dataset into memory: an npz, an HDF5 file of Minari or D4RL, or a Minari folder.
///
/// # Errors
/// [`Error`] with the path, the array and the reason, for anything that is no such dataset.
pub fn load_any(path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    let path = &resolve(path)?;
    parts(path, expect, Place::Memory).map_err(first)?.1.finish(path, expect.rewards)
}

/// As [`load_any`], but observations stay on disk.
///
/// Where the file holds them as they are used (an npz with stored members of f32 or u8) rows are read there; everything
/// else is unpacked into the file `cache` first, which is removed with the last use of the trajectories.
///
/// # Errors
/// As [`load_any`], and if `cache` cannot be written.
pub fn load_streamed(path: &Path, expect: &Expect, cache: &Path) -> Result<Episodes, Error> {
    let path = &resolve(path)?;
    parts(path, expect, Place::Disk(cache)).map_err(first)?.1.finish(path, expect.rewards)
}

/// What a dataset will take in memory; reads headers only.
///
/// # Errors
/// As [`load_any`], as far as headers show it.
pub fn measure(path: &Path) -> Result<Footprint, Error> {
    let path = &resolve(path)?;
    match is_hdf5(path)? {
        true => hdf5::measure(path),
        false => npz::measure(path),
    }
}

/// Reads a dataset and lists all its problems instead of the first.
pub fn check_any(path: &Path, expect: &Expect) -> Checked {
    let found =
        resolve(path).map_err(|error| vec![error]).and_then(|path| Ok((parts(&path, expect, Place::Memory)?, path)));
    let ((format, parts), path) = match found {
        Ok(found) => found,
        Err(errors) => {
            let problems = errors.iter().map(text).collect();
            return Checked { format: None, episodes: None, problems, notes: Vec::new() };
        }
    };
    let (mut problems, notes) = (parts.problems(), parts.notes.clone());
    let episodes = match problems.is_empty() {
        true => parts.finish(&path, expect.rewards).map_err(|error| problems.push(text(&error))).ok(),
        false => None,
    };
    Checked { format: Some(format), episodes, problems, notes }
}

/// An error without its path, which stands above the list of problems.
fn text(error: &Error) -> String {
    match &error.place {
        Some(place) => format!("{place}: {}", error.kind),
        None => error.kind.to_string(),
    }
}

fn first(errors: Vec<Error>) -> Error {
    // A refusal has a reason.
    errors.into_iter().next().unwrap_or_else(|| Kind::Damaged("the dataset cannot be read").at(Path::new(""), None))
}

fn parts(path: &Path, expect: &Expect, place: Place<'_>) -> Result<(Format, Parts), Vec<Error>> {
    match is_hdf5(path).map_err(|error| vec![error])? {
        true => hdf5::parts(path, expect, place).map_err(|error| vec![error]),
        false => Ok((Format::Npz, npz::parts_at(path, expect, place)?)),
    }
}

/// The file of a dataset: itself, or the one inside a Minari folder.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Kind::Io(error).at(path, None))?;
    if !metadata.is_dir() {
        return match metadata.is_file() {
            true => Ok(path.to_path_buf()),
            false => Err(Kind::NotAFile.at(path, None)),
        };
    }
    match minari_file(path) {
        Some(file) => Ok(file),
        None => Err(Kind::NotAFile.at(path, None)),
    }
}

/// The file of a Minari folder, if it is one.
pub(crate) fn minari_file(folder: &Path) -> Option<PathBuf> {
    [folder.join("data").join("main_data.hdf5"), folder.join("main_data.hdf5")].into_iter().find(|file| file.is_file())
}

fn is_hdf5(path: &Path) -> Result<bool, Error> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut start));
    read.map_err(|error| Kind::Io(error).at(path, None))?;
    Ok(start == b"\x89HDF\r\n\x1a\n")
}
