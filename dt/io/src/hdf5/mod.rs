//! Trajectories from HDF5 files, in the layouts of Minari and of D4RL.
//!
//! The format is read by hdf5-pure. What a file claims is held against its length before values are read
//! ([`array`]), and the library reads structure within a budget ([`source`]): crafted files cost no more than sound ones.

mod array;
mod build;
mod d4rl;
mod minari;
mod source;

use std::io::{Read, Seek};
use std::path::Path;

use dt::data::episodes::Episodes;
use dt::env::{ActionSpace, ObsShape};
use hdf5_pure::{File, Group};

use crate::any::{Footprint, Format};
use crate::error::{Error, Kind};
use crate::npz::Expect;
use crate::parts::Parts;
use crate::store::Place;
use array::Array;
use build::{Fault, action_space, obs_shape};
use minari::{Episode, Metadata};
use source::Bounded;

/// Reads trajectories in either layout from anything that can be read; `path` is for messages.
///
/// # Errors
/// [`Error`] with the path, the array and the reason.
pub fn read_hdf5<R: Read + Seek + Send + 'static>(file: R, path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    let opened = Opened::new(file, path)?;
    opened.parts(&Metadata::default(), path, expect, Place::Memory)?.finish(path, expect.rewards)
}

/// Reads the parts of a file on disk, with the metadata beside it.
pub(crate) fn parts(path: &Path, expect: &Expect, place: Place<'_>) -> Result<(Format, Parts), Error> {
    let opened = Opened::at(path)?;
    let parts = opened.parts(&metadata(path)?, path, expect, place)?;
    Ok((opened.format(), parts))
}

/// What a file will take in memory, from its headers.
pub(crate) fn measure(path: &Path) -> Result<Footprint, Error> {
    Opened::at(path)?.measure().map_err(|fault| at(path, fault))
}

fn metadata(path: &Path) -> Result<Metadata, Error> {
    Metadata::beside(path).map_err(|fault| at(path, fault))
}

fn at(path: &Path, (array, kind): Fault) -> Error {
    kind.at(path, Some(array).filter(|name| !name.is_empty()))
}

/// A file whose layout is known.
struct Opened {
    layout: Layout,
    length: u64,
}

enum Layout {
    Minari(Vec<(u64, Group)>),
    D4rl(Box<d4rl::Flat>),
}

impl Opened {
    fn at(path: &Path) -> Result<Opened, Error> {
        Opened::new(std::fs::File::open(path).map_err(|error| Kind::Io(error).at(path, None))?, path)
    }

    fn new<R: Read + Seek + Send + 'static>(file: R, path: &Path) -> Result<Opened, Error> {
        let source = Bounded::new(file).map_err(|error| Kind::Io(error).at(path, None))?;
        let length = hdf5_pure::Source::len(&source);
        let file = File::from_source(source).map_err(|error| array::broken(error).at(path, None))?;
        // Its values may be all there, but what follows them is not.
        if file.superblock().eof_address > length {
            return Err(Kind::Damaged("the file is shorter than it says: it is truncated").at(path, None));
        }
        let root = file.root();
        let episodes = minari::episodes(&root).map_err(|kind| kind.at(path, None))?;
        if !episodes.is_empty() {
            return Ok(Opened { layout: Layout::Minari(episodes), length });
        }
        match d4rl::Flat::open(&root, length).map_err(|fault| at(path, fault))? {
            Some(flat) => Ok(Opened { layout: Layout::D4rl(Box::new(flat)), length }),
            None => {
                let expected = "groups episode_0, episode_1, ... (Minari) or observations and terminals (D4RL)";
                Err(Kind::Format { expected, found: "neither" }.at(path, None))
            }
        }
    }

    fn format(&self) -> Format {
        match self.layout {
            Layout::Minari(_) => Format::Minari,
            Layout::D4rl(_) => Format::D4rl,
        }
    }

    fn parts(&self, metadata: &Metadata, path: &Path, expect: &Expect, place: Place<'_>) -> Result<Parts, Error> {
        let read = match &self.layout {
            Layout::Minari(episodes) => minari::read(episodes, self.length, metadata, expect, place),
            Layout::D4rl(flat) => flat.read(expect, place),
        };
        read.map_err(|fault| at(path, fault))
    }

    fn measure(&self) -> Result<Footprint, Fault> {
        let mut all = Footprint::default();
        let mut add = |observations: &[Array], actions: &Array, steps: u64| -> Result<(), Fault> {
            let one = match obs_shape(observations)? {
                ObsShape::Vector { dim } => 4 * dim as u64,
                ObsShape::Frame { height, width } => height as u64 * width as u64,
            };
            let action = match action_space(actions)? {
                ActionSpace::Discrete(_) => 4,
                ActionSpace::Box(dim) => 4 * u64::from(dim),
            };
            all.add(steps, one, action);
            Ok(())
        };
        match &self.layout {
            Layout::Minari(episodes) => {
                for (number, group) in episodes {
                    let episode = Episode::open(*number, group, self.length)?;
                    add(&episode.observations, &episode.actions, episode.steps())?;
                }
            }
            Layout::D4rl(flat) => add(&flat.observations, &flat.actions, flat.steps())?,
        }
        Ok(all)
    }
}
