//! Arrays of one or many episodes, put together into the parts of a dataset.

use std::ops::Range;

use dt::data::episodes::Actions;
use dt::env::{ActionSpace, ObsShape};

use super::array::{Array, Element};
use crate::error::Kind;
use crate::npz::{Expect, MOST_ACTIONS};
use crate::parts::Parts;
use crate::store::{Place, Store, append};

/// A refusal and the array it is about.
pub(crate) type Fault = (String, Kind);

/// Observations of one step: one array, or several whose rows are joined.
pub(crate) fn obs_shape(arrays: &[Array]) -> Result<ObsShape, Fault> {
    let mut dim = 0;
    for array in arrays {
        let fail = |kind| (array.name.clone(), kind);
        match (array.element, &array.shape[..]) {
            (Element::Byte, &[_, height, width]) if arrays.len() == 1 => {
                return Ok(ObsShape::Frame { height: height as usize, width: width as usize });
            }
            (Element::Byte, [_, _, _, ..]) => {
                let expected = "[n, height, width] of grey frames; record with gymnasium's GrayscaleObservation and \
                                ResizeObservation((84, 84)), or stack frames when loading";
                return Err(fail(array.wrong_shape(expected)));
            }
            (Element::Float, [_, _] | [_]) => dim += array.width(),
            (Element::Float, _) => return Err(fail(array.wrong_shape("[n, d]"))),
            _ => return Err(fail(array.wrong_dtype("floats, or u8 for grey frames"))),
        }
    }
    Ok(ObsShape::Vector { dim })
}

/// What the actions of an array are.
pub(crate) fn action_space(array: &Array) -> Result<ActionSpace, Fault> {
    let fail = |kind| (array.name.clone(), kind);
    match (array.element, &array.shape[..]) {
        (Element::Int | Element::Byte, [_]) => Ok(ActionSpace::Discrete(MOST_ACTIONS)),
        (Element::Float, [_]) => Ok(ActionSpace::Box(1)),
        (Element::Float, &[_, a]) if (1..=u64::from(MOST_ACTIONS)).contains(&a) => Ok(ActionSpace::Box(a as u32)),
        (Element::Flag, _) => Err(fail(array.wrong_dtype("integers or floats"))),
        (Element::Float, _) => Err(fail(array.wrong_shape("[n] or [n, a] with a of 1 to 65536"))),
        _ => Err(fail(array.wrong_shape("[n] for integer actions"))),
    }
}

/// The actions a caller expects, if these can be them.
fn suits(array: &Array, found: ActionSpace, expect: &Expect) -> Result<ActionSpace, Kind> {
    match (expect.actions, found) {
        (None, found) => Ok(found),
        (Some(ActionSpace::Discrete(n)), ActionSpace::Discrete(_)) => Ok(ActionSpace::Discrete(n)),
        (Some(ActionSpace::Box(d)), ActionSpace::Box(a)) if a == d => Ok(ActionSpace::Box(d)),
        (Some(ActionSpace::Box(d)), ActionSpace::Box(_)) => Err(array.wrong_shape(format!("[n, {d}]"))),
        (Some(ActionSpace::Discrete(_)), _) => Err(array.wrong_dtype("integers (discrete actions)")),
        (Some(ActionSpace::Box(_)), _) => Err(array.wrong_dtype("floats (continuous actions)")),
    }
}

/// Parts that grow by runs of rows.
pub(crate) struct Building {
    shape: ObsShape,
    space: ActionSpace,
    /// The caller said how many actions there are.
    counted: bool,
    observations: Store,
    actions: Actions,
    rewards: Vec<f32>,
    pub(crate) lengths: Vec<u32>,
    ends: Vec<u32>,
    /// Bytes that all values take in memory, and how many may.
    bytes: [u64; 2],
    in_memory: bool,
}

impl Building {
    /// Starts with the arrays of the first rows.
    pub(crate) fn new(obs: &[Array], act: &Array, expect: &Expect, place: Place<'_>) -> Result<Building, Fault> {
        let shape = obs_shape(obs)?;
        let found = action_space(act)?;
        let name = obs.first().map_or_else(String::new, |array| array.name.clone());
        if let Some(other) = expect.observations.filter(|expected| *expected != shape) {
            return Err((name, Kind::Spec(format!("expected {other:?}, found {shape:?}"))));
        }
        let space = suits(act, found, expect).map_err(|kind| (act.name.clone(), kind))?;
        let actions = match space {
            ActionSpace::Discrete(count) => Actions::Discrete { count, ids: Vec::new() },
            ActionSpace::Box(dim) => Actions::Continuous { dim: dim as usize, values: Vec::new() },
        };
        Ok(Building {
            shape,
            space,
            counted: expect.actions.is_some(),
            observations: Store::new(shape, place).map_err(|kind| (name, kind))?,
            actions,
            rewards: Vec::new(),
            lengths: Vec::new(),
            ends: Vec::new(),
            bytes: [0, expect.max_bytes],
            in_memory: place == Place::Memory,
        })
    }

    /// Takes rows of observations.
    pub(crate) fn observations(&mut self, arrays: &[Array], rows: Range<u64>) -> Result<(), Fault> {
        let shape = obs_shape(arrays)?;
        let name = || arrays.first().map_or_else(String::new, |array| array.name.clone());
        if shape != self.shape {
            let (expected, found) = (format!("{:?} as in the first episode", self.shape), format!("{shape:?}"));
            return Err((name(), Kind::Spec(format!("expected {expected}, found {found}"))));
        }
        let count = rows.end - rows.start;
        let each = match shape {
            ObsShape::Vector { dim } => 4 * dim as u64,
            ObsShape::Frame { height, width } => height as u64 * width as u64,
        };
        self.claim(if self.in_memory { count.saturating_mul(each) } else { 0 }).map_err(|kind| (name(), kind))?;
        match (shape, arrays) {
            (ObsShape::Frame { .. }, [array]) => {
                let read = array.each_byte(rows, |pixels| self.observations.take_pixels(pixels));
                read.map_err(|kind| (array.name.clone(), kind))
            }
            (_, [array]) => {
                let read = array.each_f32(rows, |values| self.observations.take_values(values));
                read.map_err(|kind| (array.name.clone(), kind))
            }
            (_, arrays) => self.joined(arrays, rows),
        }
    }

    /// Rows of several arrays side by side.
    fn joined(&mut self, arrays: &[Array], rows: Range<u64>) -> Result<(), Fault> {
        const SOME: u64 = 1024;
        let mut start = rows.start;
        while start < rows.end {
            let n = SOME.min(rows.end - start);
            let mut columns: Vec<Vec<f32>> = Vec::new();
            for array in arrays {
                let mut values = Vec::new();
                let read = array.each_f32(start..start + n, |some| append(&mut values, some));
                read.map_err(|kind| (array.name.clone(), kind))?;
                columns.push(values);
            }
            for row in 0..n as usize {
                for (values, array) in columns.iter().zip(arrays) {
                    let width = array.width();
                    let taken = self.observations.take_values(&values[row * width..(row + 1) * width]);
                    taken.map_err(|kind| (array.name.clone(), kind))?;
                }
            }
            start += n;
        }
        Ok(())
    }

    /// Takes all rows of an array of actions.
    pub(crate) fn actions(&mut self, array: &Array) -> Result<(), Fault> {
        let fail = |kind| (array.name.clone(), kind);
        self.claim(4 * array.rows().saturating_mul(array.width() as u64)).map_err(fail)?;
        let found = action_space(array)?;
        let before = self.rewards.len();
        let done = match (&mut self.actions, found, self.space) {
            (Actions::Discrete { ids, count }, ActionSpace::Discrete(_), _) => array.each_id(|row, value| {
                let id = u32::try_from(value).ok().filter(|id| id < count);
                let id = id.ok_or(Kind::Data(dt::Error::Action { row: before + row, value, count: *count }))?;
                append(ids, &[id])
            }),
            (Actions::Continuous { values, .. }, ActionSpace::Box(found), ActionSpace::Box(dim)) if found == dim => {
                array.each_f32(0..array.rows(), |some| append(values, some))
            }
            _ => Err(array.wrong_shape(format!("{:?} as in the first episode", self.space))),
        };
        done.map_err(fail)
    }

    /// Takes all rows of an array of rewards.
    pub(crate) fn rewards(&mut self, array: &Array) -> Result<(), Fault> {
        // Rewards, returns to go, and ends.
        self.claim(12 * array.rows()).map_err(|kind| (array.name.clone(), kind))?;
        let done = match (array.element, &array.shape[..]) {
            (Element::Float | Element::Int, [_]) => {
                array.each_f32(0..array.rows(), |some| append(&mut self.rewards, some))
            }
            (Element::Float | Element::Int, _) => Err(array.wrong_shape("[n]")),
            _ => Err(array.wrong_dtype("floats or integers")),
        };
        done.map_err(|kind| (array.name.clone(), kind))
    }

    /// Marks ends of episodes: rows with a flag in one of the arrays.
    pub(crate) fn ends(&mut self, arrays: &[Array]) -> Result<(), Fault> {
        let before = self.ends.len();
        for array in arrays {
            let mut at = before;
            let read = array.each_byte(0..array.rows(), |flags| {
                for &flag in flags {
                    match self.ends.get_mut(at) {
                        Some(end) => *end |= u32::from(flag != 0),
                        None => append(&mut self.ends, &[u32::from(flag != 0)])?,
                    }
                    at += 1;
                }
                Ok(())
            });
            read.map_err(|kind| (array.name.clone(), kind))?;
        }
        Ok(())
    }

    fn claim(&mut self, more: u64) -> Result<(), Kind> {
        let [taken, limit] = &mut self.bytes;
        *taken = taken.saturating_add(more);
        match *taken > *limit {
            true => Err(Kind::TooLarge { what: "bytes of values in memory", claimed: *taken, limit: *limit }),
            false => Ok(()),
        }
    }

    /// Rows that are marked as ends.
    pub(crate) fn marked(&self) -> impl Iterator<Item = usize> + '_ {
        self.ends.iter().enumerate().filter(|(_, end)| **end != 0).map(|(row, _)| row)
    }

    /// The first `rows` rows as parts.
    pub(crate) fn finish(mut self, rows: usize, notes: Vec<String>) -> Result<Parts, Kind> {
        match &mut self.actions {
            Actions::Discrete { count, ids } => {
                ids.truncate(rows);
                if !self.counted {
                    *count = ids.iter().max().map_or(1, |&most| most + 1);
                }
            }
            Actions::Continuous { dim, values } => values.truncate(rows * *dim),
        }
        self.rewards.truncate(rows);
        self.ends.truncate(rows);
        let observations = self.observations.finish(rows)?;
        let Building { actions, rewards, lengths, ends, .. } = self;
        Ok(Parts { observations, actions, rewards, lengths, ends, notes })
    }
}
