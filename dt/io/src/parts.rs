//! The arrays of a dataset, read and converted but not yet held against each other.

use std::path::Path;

use dt::data::episodes::{Actions, Episodes, LARGEST, Observations, Piece, Rewards, is_usable};

use crate::error::{Error, Kind};

/// Arrays of all episodes, whatever file they come from.
pub(crate) struct Parts {
    pub(crate) observations: Observations,
    pub(crate) actions: Actions,
    pub(crate) rewards: Vec<f32>,
    pub(crate) lengths: Vec<u32>,
    /// Not 0 where a row is marked as the last of its episode.
    pub(crate) ends: Vec<u32>,
    /// What was left out, in words.
    pub(crate) notes: Vec<String>,
}

impl Parts {
    /// The trajectories, if the arrays agree.
    pub(crate) fn finish(self, path: &Path, treatment: Rewards) -> Result<Episodes, Error> {
        check_sum(&self.lengths, self.rewards.len()).map_err(|kind| kind.at(path, "episode_lengths".to_owned()))?;
        check_ends(&self.ends, &self.lengths).map_err(|kind| kind.at(path, "dones".to_owned()))?;
        Episodes::new(self.observations, self.actions, self.rewards, &self.lengths, treatment)
            .map_err(|error| Kind::Data(error).at(path, None))
    }

    /// Everything that [`Parts::finish`] would refuse, one text for each array and fault.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lengths.is_empty() {
            problems.push("no episodes: at least one is needed".to_owned());
        }
        let zero = self.lengths.iter().filter(|&&n| n == 0).count();
        if let Some(first) = self.lengths.iter().position(|&n| n == 0) {
            problems.push(format!("episode_lengths: {zero} of {} are 0, first episode {first}", self.lengths.len()));
        }
        match check_sum(&self.lengths, self.rewards.len()) {
            Err(kind) => problems.push(format!("episode_lengths: {kind}")),
            Ok(()) if zero == 0 => {
                if let Err(kind) = check_ends(&self.ends, &self.lengths) {
                    problems.push(format!("dones: {kind}"));
                }
            }
            Ok(()) => {}
        }
        let mut seen = 0;
        let mut faults = Faults::default();
        let width = self.observations.shape().values().max(1);
        let visited = self.observations.visit(|piece| match piece {
            Piece::Values(values) => {
                faults.add(values, seen);
                seen += values.len();
            }
            Piece::Pixels(_) => {}
        });
        problems.extend(visited.err().map(|error| error.to_string()));
        problems.extend(faults.text("observations", width, seen));
        if let Actions::Continuous { dim, values } = &self.actions {
            problems.extend(Faults::of(values).text("actions", (*dim).max(1), values.len()));
        }
        problems.extend(Faults::of(&self.rewards).text("rewards", 1, self.rewards.len()));
        problems
    }
}

/// Values that cannot be computed with.
#[derive(Default)]
struct Faults {
    count: usize,
    first: Option<(usize, f32)>,
}

impl Faults {
    fn of(values: &[f32]) -> Faults {
        let mut faults = Faults::default();
        faults.add(values, 0);
        faults
    }

    fn add(&mut self, values: &[f32], before: usize) {
        for (at, value) in values.iter().enumerate().filter(|(_, value)| !is_usable(**value)) {
            self.count += 1;
            self.first.get_or_insert((before + at, *value));
        }
    }

    fn text(&self, array: &str, width: usize, all: usize) -> Option<String> {
        let (at, value) = self.first?;
        let (row, col, count) = (at / width, at % width, self.count);
        let fault = if value.is_finite() { format!("beyond {LARGEST:e}") } else { "not finite".to_owned() };
        Some(format!("{array}: {count} of {all} values are {fault}, first {value} at row {row} column {col}"))
    }
}

pub(crate) fn check_sum(lengths: &[u32], rows: usize) -> Result<(), Kind> {
    let sum: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
    if sum != rows as u64 {
        return Err(Kind::Data(dt::Error::Lengths { sum, rows: rows as u64 }));
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
