//! Trajectories from an npz file.
//!
//! | key | shape | dtype |
//! |---|---|---|
//! | `observations` | `[n, d]` floats, or `[n, height, width]` u8 single frames | f16, f32, f64, u8 |
//! | `actions` | `[n]` or `[n, a]` | any integer: ids; any float: vectors |
//! | `rewards` | `[n]` | floats or integers |
//! | `dones` | `[n]`, true only on the last step of an episode | bool, u8 |
//! | `episode_lengths` | `[episodes]`, sum n | any integer |
//!
//! Other keys are ignored. All headers are checked against each other and against the archive before any values are
//! read; values are unpacked in pieces, so a file that lies about its size costs no memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;

use dt::data::disk::{DiskRows, Keep};
use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::{ActionSpace, ObsShape};

use crate::any::Footprint;
use crate::error::{Error, Kind};
use crate::npy::{self, DType, Header, Memory};
use crate::parts::{Parts, check_sum};
use crate::store::{Place, Store};
use crate::zip::{self, Entry, Member};

/// What a caller requires of a dataset; [`Default`] takes what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expect {
    /// Observations must be these.
    pub observations: Option<ObsShape>,
    /// Actions must be these. Without it discrete actions count from 0 to the largest one found.
    pub actions: Option<ActionSpace>,
    /// What happens to rewards.
    pub rewards: Rewards,
    /// Most bytes of values in memory.
    pub max_bytes: u64,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect { observations: None, actions: None, rewards: Rewards::AsStored, max_bytes: 8 << 30 }
    }
}

/// Most actions a dataset may have if the caller does not say.
pub(crate) const MOST_ACTIONS: u32 = 1 << 16;

const KEYS: [&str; 5] = ["observations", "actions", "rewards", "dones", "episode_lengths"];

/// Reads the trajectories of a file.
///
/// # Errors
/// [`Error`] with the path, the key and the reason, for anything that is not such a file.
pub fn load_npz(path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    read_npz(open(path)?, path, expect)
}

/// Reads trajectories from anything that can be read; `path` is for messages.
///
/// # Errors
/// As [`load_npz`].
pub fn read_npz<R: Read + Seek>(mut file: R, path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    let mut faults = Faults { path, all: Vec::new(), until: 1 };
    match parts(&mut file, expect, Place::Memory, &mut faults) {
        Some(parts) => parts.finish(path, expect.rewards),
        None => Err(faults.all.swap_remove(0)),
    }
}

/// Reads the parts of a file on disk, or gives all reasons why that cannot be.
pub(crate) fn parts_at(path: &Path, expect: &Expect, place: Place<'_>) -> Result<Parts, Vec<Error>> {
    let mut file = open(path).map_err(|error| vec![error])?;
    let mut faults = Faults { path, all: Vec::new(), until: usize::MAX };
    parts(&mut file, expect, place, &mut faults).ok_or(faults.all)
}

/// What a file will take in memory, from its headers.
pub(crate) fn measure(path: &Path) -> Result<Footprint, Error> {
    let mut file = open(path)?;
    let mut faults = Faults { path, all: Vec::new(), until: 1 };
    let at = |kind: Kind| kind.at(path, None);
    let entries = zip::directory(&mut file).map_err(at)?;
    let Some([observations, actions, rewards, ..]) = headers(&mut file, &entries, &mut faults) else {
        return Err(faults.all.swap_remove(0));
    };
    let rows = rewards.header.count as u64;
    let one = |array: &Array<'_>, size: u64| size * (array.header.count as u64).div_ceil(rows.max(1));
    let frames = observations.header.dtype == DType::U8 && observations.header.shape.len() == 3;
    let mut all = Footprint::default();
    all.add(rows, one(&observations, if frames { 1 } else { 4 }), one(&actions, 4));
    Ok(all)
}

fn open(path: &Path) -> Result<File, Error> {
    let io = |error| Kind::Io(error).at(path, None);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Kind::NotAFile.at(path, None));
    }
    File::open(path).map_err(io)
}

/// What is wrong with a file so far.
struct Faults<'p> {
    path: &'p Path,
    all: Vec<Error>,
    /// Faults after which reading ends.
    until: usize,
}

impl Faults<'_> {
    /// The value, or a note of why there is none.
    fn note<T>(&mut self, key: &str, result: Result<T, Kind>) -> Option<T> {
        result.map_err(|kind| self.all.push(kind.at(self.path, Some(key.to_owned()).filter(|k| !k.is_empty())))).ok()
    }

    /// Ends with `None` if there are as many faults as are asked for.
    fn go_on(&self) -> Option<()> {
        (self.all.len() < self.until).then_some(())
    }

    /// Ends with `None` if there is any fault.
    fn none(&self) -> Option<()> {
        self.all.is_empty().then_some(())
    }
}

fn headers<'a, R: Read + Seek>(file: &mut R, entries: &'a [Entry], faults: &mut Faults<'_>) -> Option<[Array<'a>; 5]> {
    let mut arrays = Vec::with_capacity(KEYS.len());
    for key in KEYS {
        arrays.extend(faults.note(key, Array::find(file, entries, key)));
        faults.go_on()?;
    }
    arrays.try_into().ok()
}

/// Reads in three rounds, each only if the one before found no fault: headers alone, headers together, values.
fn parts<R: Read + Seek>(file: &mut R, expect: &Expect, place: Place<'_>, faults: &mut Faults<'_>) -> Option<Parts> {
    let directory = zip::directory(file);
    let entries = faults.note("", directory)?;
    let arrays = headers(file, &entries, faults)?;
    let [observations, actions, rewards, dones, lengths] = &arrays;

    let [rows] = rewards.header.shape[..] else {
        return faults.note(rewards.key, Err(rewards.header.wrong_shape("[n]")));
    };
    let shape = faults.note(observations.key, obs_shape(&observations.header, rows, expect));
    faults.go_on()?;
    let space = faults.note(actions.key, action_space(&actions.header, rows, expect));
    faults.go_on()?;
    let episodes = lengths.header.shape.first().copied().unwrap_or(0);
    for (array, shape, fits, dtypes) in [
        (dones, [rows], matches!(dones.header.dtype, DType::Bool | DType::U8), "bool or u8"),
        (lengths, [episodes], lengths.header.dtype.is_int(), "integers"),
        (rewards, [rows], rewards.header.dtype != DType::Bool, "floats or integers"),
    ] {
        faults.note(array.key, array.check(&shape, fits, dtypes));
        faults.go_on()?;
    }
    let (shape, space) = (shape?, space?);
    faults.note("", check_memory(&arrays, shape, expect, place));
    faults.none()?;

    let positive = |row, value: i64| match u32::try_from(value) {
        Ok(length) if length > 0 => Ok(length),
        _ => Err(Kind::Value { row, expected: "a length of at least 1", found: value.to_string() }),
    };
    let episode_lengths = faults.note(lengths.key, lengths.ids(file, positive));
    faults.go_on()?;
    let ends = faults.note(dones.key, dones.ids(file, |_, value| Ok(u32::from(value != 0))));
    faults.go_on()?;
    if let Some(given) = episode_lengths.as_ref().filter(|_| faults.until == 1) {
        // Before the large arrays are read for nothing.
        faults.note(lengths.key, check_sum(given, rows as usize))?;
    }
    let values = faults.note(rewards.key, rewards.numbers(file));
    faults.go_on()?;
    let act = faults.note(actions.key, read_actions(actions, file, space, expect));
    faults.go_on()?;
    let obs = faults.note(observations.key, observations.observations(file, shape, place, faults.path));
    let (observations, actions, rewards, lengths, ends) = (obs?, act?, values?, episode_lengths?, ends?);
    Some(Parts { observations, actions, rewards, lengths, ends, notes: Vec::new() })
}

/// One array of the file, its header read and checked against the archive.
struct Array<'a> {
    key: &'static str,
    entry: &'a Entry,
    header: Header,
}

impl<'a> Array<'a> {
    fn find<R: Read + Seek>(file: &mut R, entries: &'a [Entry], key: &'static str) -> Result<Array<'a>, Kind> {
        let keys = || entries.iter().filter_map(|entry| entry.name.strip_suffix(".npy"));
        let mut named = entries.iter().filter(|entry| entry.name.strip_suffix(".npy") == Some(key));
        let Some(entry) = named.next() else {
            return Err(Kind::Missing { found: keys().take(32).map(str::to_owned).collect() });
        };
        if named.next().is_some() {
            return Err(Kind::Damaged("the archive has this key twice"));
        }
        let header = npy::header(&mut zip::open(file, entry)?, entry.size)?;
        Ok(Array { key, entry, header })
    }

    fn check(&self, shape: &[u64], dtype_fits: bool, dtypes: &'static str) -> Result<(), Kind> {
        if !dtype_fits {
            Err(self.header.wrong_dtype(dtypes))
        } else if self.header.shape != shape {
            Err(self.header.wrong_shape(format!("{shape:?}")))
        } else {
            Ok(())
        }
    }

    /// The array as observations, in memory or on disk.
    fn observations<R: Read + Seek>(
        &self,
        file: &mut R,
        shape: ObsShape,
        place: Place<'_>,
        path: &Path,
    ) -> Result<Observations, Kind> {
        let (header, rows) = (&self.header, self.header.shape[0] as usize);
        match (place, shape) {
            (Place::Memory, ObsShape::Vector { dim }) => Ok(Observations::Vectors { dim, values: self.numbers(file)? }),
            (Place::Memory, ObsShape::Frame { height, width }) => {
                Ok(Observations::Frames { height, width, bytes: self.bytes(file)? })
            }
            (Place::Disk(_), shape) if self.lies_as_used(shape) => {
                let begin = zip::place(file, self.entry)? + self.entry.size;
                let begin = begin - (header.count * header.dtype.bytes()) as u64;
                // Once over all bytes, for the checksum.
                npy::each_piece(self.open(file)?.0, header, |_| Ok(()))?;
                let disk = DiskRows::open(path, begin, rows, shape, Keep::Always).map_err(Kind::Data)?;
                Ok(Observations::Disk(Arc::new(disk)))
            }
            (Place::Disk(_), shape) => {
                let mut store = Store::new(shape, place)?;
                let mut values = Vec::new();
                npy::each_piece(self.open(file)?.0, header, |bytes| match shape {
                    ObsShape::Frame { .. } => store.take_pixels(bytes),
                    ObsShape::Vector { .. } => {
                        npy::to_f32(header.dtype, bytes, &mut values);
                        store.take_values(&values)
                    }
                })?;
                store.finish(rows)
            }
        }
    }

    /// Rows can be read in the archive itself.
    fn lies_as_used(&self, shape: ObsShape) -> bool {
        let dtype = match shape {
            ObsShape::Vector { .. } => DType::F32,
            ObsShape::Frame { .. } => DType::U8,
        };
        self.entry.is_stored() && self.header.dtype == dtype
    }

    /// A member at its first value, and how to take memory for the values.
    fn open<'f, R: Read + Seek>(&self, file: &'f mut R) -> Result<(Member<'f, R>, Memory), Kind> {
        let mut member = zip::open(file, self.entry)?;
        npy::header(&mut member, self.entry.size)?;
        Ok((member, if self.entry.is_stored() { Memory::AtOnce } else { Memory::AsTheyArrive }))
    }

    fn numbers<R: Read + Seek>(&self, file: &mut R) -> Result<Vec<f32>, Kind> {
        let (member, memory) = self.open(file)?;
        npy::read_f32(member, &self.header, memory)
    }

    fn bytes<R: Read + Seek>(&self, file: &mut R) -> Result<Vec<u8>, Kind> {
        let (member, memory) = self.open(file)?;
        npy::read_u8(member, &self.header, memory)
    }

    fn ids<R: Read + Seek>(
        &self,
        file: &mut R,
        accept: impl Fn(usize, i64) -> Result<u32, Kind>,
    ) -> Result<Vec<u32>, Kind> {
        let (member, memory) = self.open(file)?;
        npy::read_u32(member, &self.header, memory, accept)
    }
}

fn obs_shape(header: &Header, rows: u64, expect: &Expect) -> Result<ObsShape, Kind> {
    let wide = |n: u64| usize::try_from(n).map_err(|_| header.wrong_shape("sizes that fit the address space"));
    let shape = match (header.dtype, &header.shape[..]) {
        (DType::U8, [_, height, width]) => ObsShape::Frame { height: wide(*height)?, width: wide(*width)? },
        (DType::U8, [_, _, _, _]) => {
            return Err(header.wrong_shape("[n, height, width] of single frames, stacked when loading"));
        }
        (dtype, [_, _, ..]) if dtype.is_float() && header.shape.len() > 2 => {
            return Err(Kind::DType { expected: "u8 (0 to 255) for images", found: format!("'{}'", header.descr) });
        }
        (dtype, [_, dim]) if dtype.is_float() || dtype == DType::U8 => ObsShape::Vector { dim: wide(*dim)? },
        (dtype, _) if !dtype.is_float() && dtype != DType::U8 => {
            return Err(header.wrong_dtype("f16, f32, f64, or u8 for frames"));
        }
        _ => return Err(header.wrong_shape("[n, d] or [n, height, width]")),
    };
    if header.shape[0] != rows {
        return Err(header.wrong_shape(format!("{rows} rows, as rewards has")));
    }
    match expect.observations {
        Some(ObsShape::Vector { dim }) if shape != (ObsShape::Vector { dim }) => {
            Err(header.wrong_shape(format!("[{rows}, {dim}]")))
        }
        Some(ObsShape::Frame { height, width }) if shape != (ObsShape::Frame { height, width }) => {
            Err(header.wrong_shape(format!("[{rows}, {height}, {width}]")))
        }
        _ => Ok(shape),
    }
}

fn action_space(header: &Header, rows: u64, expect: &Expect) -> Result<ActionSpace, Kind> {
    let found = match &header.shape[..] {
        [n] if *n == rows && header.dtype.is_int() => ActionSpace::Discrete(MOST_ACTIONS),
        [n] if *n == rows && header.dtype.is_float() => ActionSpace::Box(1),
        [n, a] if *n == rows && header.dtype.is_float() && (1..=u64::from(MOST_ACTIONS)).contains(a) => {
            ActionSpace::Box(*a as u32)
        }
        _ if !header.dtype.is_float() && !header.dtype.is_int() => {
            return Err(header.wrong_dtype("integers or floats"));
        }
        _ if header.dtype.is_int() => return Err(header.wrong_shape(format!("[{rows}] for integer actions"))),
        _ => return Err(header.wrong_shape(format!("[{rows}] or [{rows}, a] with a of 1 to 65536"))),
    };
    match (expect.actions, found) {
        (None, found) => Ok(found),
        (Some(ActionSpace::Discrete(n)), ActionSpace::Discrete(_)) => Ok(ActionSpace::Discrete(n)),
        (Some(ActionSpace::Discrete(_)), ActionSpace::Box(_)) => Err(header.wrong_dtype("integers (discrete actions)")),
        (Some(ActionSpace::Box(_)), ActionSpace::Discrete(_)) => Err(header.wrong_dtype("floats (continuous actions)")),
        (Some(ActionSpace::Box(d)), ActionSpace::Box(a)) if a != d => Err(header.wrong_shape(format!("[{rows}, {d}]"))),
        (Some(space), _) => Ok(space),
    }
}

/// Adds up what the arrays will take, before any is read.
fn check_memory(arrays: &[Array<'_>], shape: ObsShape, expect: &Expect, place: Place<'_>) -> Result<(), Kind> {
    let each = |array: &Array<'_>| {
        if array.key == "observations" && place != Place::Memory {
            return 0;
        }
        let frames = array.key == "observations" && matches!(shape, ObsShape::Frame { .. });
        (array.header.count as u64).saturating_mul(if frames { 1 } else { 4 })
    };
    let claimed = arrays.iter().map(each).fold(0, u64::saturating_add);
    if claimed > expect.max_bytes {
        return Err(Kind::TooLarge { what: "bytes of values in memory", claimed, limit: expect.max_bytes });
    }
    Ok(())
}

fn read_actions<R: Read + Seek>(
    array: &Array<'_>,
    file: &mut R,
    space: ActionSpace,
    expect: &Expect,
) -> Result<Actions, Kind> {
    match space {
        ActionSpace::Box(dim) => Ok(Actions::Continuous { dim: dim as usize, values: array.numbers(file)? }),
        ActionSpace::Discrete(count) => {
            let accept = |row, value: i64| match u32::try_from(value) {
                Ok(id) if id < count => Ok(id),
                _ => Err(Kind::Data(dt::Error::Action { row, value, count })),
            };
            let ids = array.ids(file, accept)?;
            let count = match expect.actions {
                Some(_) => count,
                None => ids.iter().max().map_or(1, |&most| most + 1),
            };
            Ok(Actions::Discrete { count, ids })
        }
    }
}
