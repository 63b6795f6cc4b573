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

use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::{ActionSpace, ObsShape};

use crate::error::{Error, Kind};
use crate::npy::{self, DType, Header, Memory};
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
const MOST_ACTIONS: u32 = 1 << 16;

const KEYS: [&str; 5] = ["observations", "actions", "rewards", "dones", "episode_lengths"];

/// Reads the trajectories of a file.
///
/// # Errors
/// [`Error`] with the path, the key and the reason, for anything that is not such a file.
pub fn load_npz(path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    let io = |error| Kind::Io(error).at(path, None);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Kind::NotAFile.at(path, None));
    }
    read_npz(File::open(path).map_err(io)?, path, expect)
}

/// Reads trajectories from anything that can be read; `path` is for messages.
///
/// # Errors
/// As [`load_npz`].
pub fn read_npz<R: Read + Seek>(mut file: R, path: &Path, expect: &Expect) -> Result<Episodes, Error> {
    let entries = zip::directory(&mut file).map_err(|kind| kind.at(path, None))?;
    let mut arrays = Vec::with_capacity(KEYS.len());
    for key in KEYS {
        let array = Array::find(&mut file, &entries, key).map_err(|kind| kind.at(path, key.to_owned()))?;
        arrays.push(array);
    }
    let [observations, actions, rewards, dones, lengths] = &arrays[..] else {
        unreachable!("one array per key");
    };
    let at = |array: &Array, kind: Kind| kind.at(path, array.key.to_owned());

    let [rows] = rewards.header.shape[..] else { return Err(at(rewards, rewards.header.wrong_shape("[n]"))) };
    let shape = obs_shape(&observations.header, rows, expect).map_err(|kind| at(observations, kind))?;
    let space = action_space(&actions.header, rows, expect).map_err(|kind| at(actions, kind))?;
    dones.check(&[rows], matches!(dones.header.dtype, DType::Bool | DType::U8), "bool or u8", path)?;
    let episodes = lengths.header.shape.first().copied().unwrap_or(0);
    lengths.check(&[episodes], lengths.header.dtype.is_int(), "integers", path)?;
    rewards.check(&[rows], rewards.header.dtype != DType::Bool, "floats or integers", path)?;
    check_memory(&arrays, shape, expect).map_err(|kind| kind.at(path, None))?;

    let positive = |row, value: i64| match u32::try_from(value) {
        Ok(length) if length > 0 => Ok(length),
        _ => Err(Kind::Value { row, expected: "a length of at least 1", found: value.to_string() }),
    };
    let episode_lengths = lengths.ids(&mut file, positive).map_err(|kind| at(lengths, kind))?;
    let ends = dones.ids(&mut file, |_, value| Ok(u32::from(value != 0))).map_err(|kind| at(dones, kind))?;
    check_sum(&episode_lengths, rows).map_err(|kind| at(lengths, kind))?;
    check_ends(&ends, &episode_lengths).map_err(|kind| at(dones, kind))?;
    drop(ends);
    let values = rewards.numbers(&mut file).map_err(|kind| at(rewards, kind))?;
    let act = read_actions(actions, &mut file, space, expect).map_err(|kind| at(actions, kind))?;
    let obs = match shape {
        ObsShape::Vector { dim } => observations.numbers(&mut file).map(|values| Observations::Vectors { dim, values }),
        ObsShape::Frame { height, width } => {
            observations.bytes(&mut file).map(|bytes| Observations::Frames { height, width, bytes })
        }
    };
    let obs = obs.map_err(|kind| at(observations, kind))?;
    Episodes::new(obs, act, values, &episode_lengths, expect.rewards).map_err(|error| Kind::Data(error).at(path, None))
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

    fn check(&self, shape: &[u64], dtype_fits: bool, dtypes: &'static str, path: &Path) -> Result<(), Error> {
        let kind = if !dtype_fits {
            self.header.wrong_dtype(dtypes)
        } else if self.header.shape != shape {
            self.header.wrong_shape(format!("{shape:?}"))
        } else {
            return Ok(());
        };
        Err(kind.at(path, self.key.to_owned()))
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
fn check_memory(arrays: &[Array<'_>], shape: ObsShape, expect: &Expect) -> Result<(), Kind> {
    let each = |array: &Array<'_>| {
        let frames = array.key == "observations" && matches!(shape, ObsShape::Frame { .. });
        (array.header.count as u64).saturating_mul(if frames { 1 } else { 4 })
    };
    let claimed = arrays.iter().map(each).fold(0, u64::saturating_add);
    if claimed > expect.max_bytes {
        return Err(Kind::TooLarge { what: "bytes of values in memory", claimed, limit: expect.max_bytes });
    }
    Ok(())
}

fn check_sum(lengths: &[u32], rows: u64) -> Result<(), Kind> {
    let sum: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
    if sum != rows {
        return Err(Kind::Data(dt::Error::Lengths { sum, rows }));
    }
    Ok(())
}

/// A done inside an episode means that lengths and rows are not aligned. The last step may have none: a time limit.
fn check_ends(ends: &[u32], lengths: &[u32]) -> Result<(), Kind> {
    let mut start = 0;
    for (episode, &length) in lengths.iter().enumerate() {
        let last = start + length as usize - 1;
        if let Some(inside) = ends[start..last].iter().position(|&done| done != 0) {
            return Err(Kind::DoneInside { row: start + inside, episode, last });
        }
        start = last + 1;
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
