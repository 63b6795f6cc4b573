//! D4RL: flat arrays of all steps; `terminals` and `timeouts` mark the last step of an episode.
//!
//! Steps after the last mark are an episode without an end: its returns are not known, so it is dropped, and a note says
//! how many steps that were. `next_observations`, if there, have to be the next row's observation inside an episode.
//!
//! Source: Farama-Foundation/D4RL, d4rl/offline_env.py and d4rl/__init__.py (sequence_dataset).

use hdf5_pure::{Dataset, Group};

use super::array::{Array, broken};
use super::build::{Building, Fault};
use crate::error::Kind;
use crate::npz::Expect;
use crate::parts::Parts;
use crate::store::Place;

/// The arrays of a file.
pub(crate) struct Flat {
    pub(crate) observations: Vec<Array>,
    next: Option<Array>,
    pub(crate) actions: Array,
    pub(crate) rewards: Array,
    ends: Vec<Array>,
}

impl Flat {
    /// Opens the arrays and checks that they have the same rows; `None` if nothing of it is there.
    pub(crate) fn open(root: &Group, length: u64) -> Result<Option<Flat>, Fault> {
        let mut arrays: Vec<(String, Dataset)> =
            root.iter_datasets().map_err(|error| (String::new(), broken(error)))?.collect();
        if !arrays.iter().any(|(name, _)| name == "observations") {
            return Ok(None);
        }
        let names: Vec<String> = arrays.iter().map(|(name, _)| name.clone()).collect();
        let mut take = |key: &str| match arrays.iter().position(|(name, _)| name == key) {
            Some(place) => Array::new(key.to_owned(), arrays.swap_remove(place).1, length).map(Some),
            None => Ok(None),
        };
        let missing = |key: &str| (key.to_owned(), Kind::Missing { found: names.clone() });
        let observations = take("observations")?.ok_or_else(|| missing("observations"))?;
        let actions = take("actions")?.ok_or_else(|| missing("actions"))?;
        let rewards = take("rewards")?.ok_or_else(|| missing("rewards"))?;
        let mut ends = vec![take("terminals")?.ok_or_else(|| missing("terminals"))?];
        // The oldest files have no time limits.
        ends.extend(take("timeouts")?);
        let next = take("next_observations")?;
        let rows = rewards.rows();
        for array in [&observations, &actions, &rewards].into_iter().chain(&ends).chain(&next) {
            if array.shape.is_empty() || array.rows() != rows {
                let kind = array.wrong_shape(format!("{rows} rows, as rewards has"));
                return Err((array.name.clone(), kind));
            }
        }
        if let Some(array) = ends.iter().find(|array| array.width() != 1) {
            return Err((array.name.clone(), array.wrong_shape(format!("[{rows}]"))));
        }
        if let Some(next) = next.as_ref().filter(|next| next.shape != observations.shape) {
            let kind = next.wrong_shape(format!("{:?}, as observations has", observations.shape));
            return Err((next.name.clone(), kind));
        }
        Ok(Some(Flat { observations: vec![observations], next, actions, rewards, ends }))
    }

    pub(crate) fn steps(&self) -> u64 {
        self.rewards.rows()
    }

    /// Reads all finished episodes.
    pub(crate) fn read(&self, expect: &Expect, place: Place<'_>) -> Result<Parts, Fault> {
        let mut building = Building::new(&self.observations, &self.actions, expect, place)?;
        building.actions(&self.actions)?;
        building.rewards(&self.rewards)?;
        building.ends(&self.ends)?;
        let marked: Vec<usize> = building.marked().collect();
        let Some(&last) = marked.last() else {
            let text = "no row is the end of an episode: no episode is finished".to_owned();
            return Err(("terminals".to_owned(), Kind::Spec(text)));
        };
        let mut start = 0;
        for &end in &marked {
            let length = end + 1 - start;
            let limit = u64::from(u32::MAX);
            let too_long = Kind::TooLarge { what: "steps of an episode", claimed: length as u64, limit };
            building.lengths.push(u32::try_from(length).map_err(|_| ("terminals".to_owned(), too_long))?);
            start = end + 1;
        }
        building.observations(&self.observations, 0..start as u64)?;
        self.check_next(&marked)?;
        let left = self.steps() as usize - (last + 1);
        let note = format!("the last {left} of {} steps belong to no finished episode and are left out", self.steps());
        let notes = if left > 0 { vec![note] } else { Vec::new() };
        building.finish(last + 1, notes).map_err(|kind| ("observations".to_owned(), kind))
    }

    /// Inside an episode `next_observations` of a row are the observations of the row after it.
    fn check_next(&self, marked: &[usize]) -> Result<(), Fault> {
        let ([now], Some(next)) = (&self.observations[..], &self.next) else { return Ok(()) };
        const SOME: usize = 1024;
        let (width, rows) = (now.width(), marked.last().map_or(0, |&last| last + 1));
        let fail = |kind| (next.name.clone(), kind);
        let read = |array: &Array, from: usize, to: usize| {
            let mut values = Vec::new();
            let take = |some: &[f32]| {
                values.extend_from_slice(some);
                Ok(())
            };
            array.each_f32(from as u64..to as u64, take).map(|()| values)
        };
        for start in (0..rows.saturating_sub(1)).step_by(SOME) {
            let end = (start + SOME).min(rows - 1);
            let after = read(now, start + 1, end + 1).map_err(fail)?;
            let said = read(next, start, end).map_err(fail)?;
            for row in start..end {
                let at = (row - start) * width..(row - start + 1) * width;
                let same = after[at.clone()].iter().zip(&said[at]).all(|(a, b)| a.to_bits() == b.to_bits());
                if !same && marked.binary_search(&row).is_err() {
                    let text = format!("row {row} is not the observation of row {}, in the same episode", row + 1);
                    return Err(fail(Kind::Spec(text)));
                }
            }
        }
        Ok(())
    }
}
