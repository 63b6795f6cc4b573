//! Trajectories of one task: concatenated rows, episode boundaries, returns-to-go. Observations may stay in a file.
//!
//! Row `i` is `(observation, action, reward)` of one step. Image observations are single frames; a stack is formed by
//! index when a batch is filled, so memory holds every frame once (7 056 bytes a step instead of 112 896).

use std::ops::Range;

use super::disk::Sums;
pub use super::observations::{Observations, Piece};
use crate::env::counted;
use crate::error::Error;

/// Actions of all rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Actions {
    /// `ids[n]` in `0..count`.
    Discrete {
        /// Number of actions.
        count: u32,
        /// One a row.
        ids: Vec<u32>,
    },
    /// `values[n, dim]`.
    Continuous {
        /// Dimensions of an action.
        dim: usize,
        /// Row major.
        values: Vec<f32>,
    },
}

/// What happens to rewards before anything is computed from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewards {
    /// Kept.
    #[default]
    AsStored,
    /// Replaced by their sign, as Atari benchmarks do.
    Sign,
}

/// Which return of a dataset a rollout asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The largest.
    #[default]
    Max,
    /// The 90th percentile, linear between order statistics.
    P90,
    /// The mean.
    Mean,
}

/// Mean and standard deviation of each observation entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: Vec<f32>,
    /// Population standard deviation, at least 1e-6.
    pub std: Vec<f32>,
}

/// Figures of a dataset, for reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Episodes.
    pub episodes: usize,
    /// Steps.
    pub rows: usize,
    /// Steps of the shortest and the longest episode.
    pub lengths: [usize; 2],
    /// Smallest episode return.
    pub min: f64,
    /// Mean episode return.
    pub mean: f64,
    /// 90th percentile of the episode returns.
    pub p90: f64,
    /// Largest episode return.
    pub max: f64,
}

/// Episodes for training and episodes kept apart, as indices in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// To learn from.
    pub train: Vec<usize>,
    /// To measure on.
    pub held_out: Vec<usize>,
}

/// The trajectories of one task; checked once, read-only afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Episodes {
    observations: Observations,
    actions: Actions,
    rewards: Vec<f32>,
    to_go: Vec<f32>,
    /// First row of each episode, then the number of rows.
    starts: Vec<usize>,
}

impl Episodes {
    /// Takes rows and the lengths of the episodes they form.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::EmptyEpisode`], [`Error::Lengths`], [`Error::Size`] if arrays disagree,
    /// [`Error::NotFinite`] with row and column, [`Error::Action`] with the row.
    pub fn new(
        observations: Observations,
        actions: Actions,
        mut rewards: Vec<f32>,
        lengths: &[u32],
        treatment: Rewards,
    ) -> Result<Episodes, Error> {
        let rows = rewards.len();
        let starts = boundaries(lengths, rows)?;
        check_observations(&observations, rows)?;
        check_actions(&actions, rows)?;
        check_finite("rewards", &rewards, 1)?;
        rewards.iter_mut().for_each(|r| *r = counted(*r, treatment == Rewards::Sign));
        let mut to_go = vec![0.0; rows];
        for episode in starts.windows(2) {
            let mut sum = 0.0f64;
            for row in (episode[0]..episode[1]).rev() {
                sum += f64::from(rewards[row]);
                to_go[row] = sum as f32;
            }
        }
        // Finite rewards may still add up to an infinity in f32.
        check_finite("returns to go", &to_go, 1)?;
        Ok(Episodes { observations, actions, rewards, to_go, starts })
    }

    /// Steps over all episodes.
    pub fn rows(&self) -> usize {
        self.rewards.len()
    }

    /// Number of episodes, at least 1.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows of an episode.
    ///
    /// # Panics
    /// If there is no such episode.
    pub fn rows_of(&self, episode: usize) -> Range<usize> {
        self.starts[episode]..self.starts[episode + 1]
    }

    /// Observations of all rows.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// Actions of all rows.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Actions of all rows, for values in other units; they have to stay finite and as many.
    pub(crate) fn actions_mut(&mut self) -> &mut Actions {
        &mut self.actions
    }

    /// Rewards of all rows, after their treatment.
    pub fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    /// Sum of the rewards from each row to the end of its episode, undiscounted; summed in f64.
    pub fn returns_to_go(&self) -> &[f32] {
        &self.to_go
    }

    /// Steps of the longest episode.
    pub fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// Return of each episode, summed in f64.
    pub fn returns(&self) -> Vec<f64> {
        let sum = |pair: &[usize]| self.rewards[pair[0]..pair[1]].iter().rev().map(|&r| f64::from(r)).sum();
        self.starts.windows(2).map(sum).collect()
    }

    /// The return a rollout should ask for.
    pub fn target_return(&self, target: Target) -> f64 {
        let summary = self.summary();
        match target {
            Target::Max => summary.max,
            Target::P90 => summary.p90,
            Target::Mean => summary.mean,
        }
    }

    /// Largest absolute episode return, at least 1e-6: the divisor of returns-to-go at the model's input.
    pub fn rtg_scale(&self) -> f32 {
        self.returns().iter().fold(1e-6f64, |most, r| most.max(r.abs())) as f32
    }

    /// Figures for reports.
    pub fn summary(&self) -> Summary {
        let mut returns = self.returns();
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        returns.sort_by(f64::total_cmp);
        let place = 0.9 * (returns.len() - 1) as f64;
        let (low, high) = (returns[place.floor() as usize], returns[place.ceil() as usize]);
        let shortest = self.starts.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(0);
        Summary {
            episodes: self.count(),
            rows: self.rows(),
            lengths: [shortest, self.longest()],
            min: returns[0],
            mean,
            p90: low + (high - low) * place.fract(),
            max: returns[returns.len() - 1],
        }
    }

    /// Keeps every `every`-th episode apart, starting with number `every - 1`.
    ///
    /// With fewer episodes than that the last one is kept apart; a single episode is for training, and nothing is held
    /// out. The split depends on nothing but the number of episodes.
    ///
    /// # Errors
    /// [`Error::Range`] if `every` is below 2.
    pub fn split(&self, every: usize) -> Result<Split, Error> {
        if every < 2 {
            return Err(Error::Range { name: "every".into(), value: every as f64, allowed: "every >= 2" });
        }
        let count = self.count();
        let held = |e: usize| e % every == every - 1 || (count < every && count > 1 && e == count - 1);
        let (held_out, train) = (0..count).partition(|&e| held(e));
        Ok(Split { train, held_out })
    }

    /// Moments of each entry over all rows, accumulated in f64; none for frames, which are scaled by 1/255 instead.
    pub fn moments(&self) -> Option<Moments> {
        match &self.observations {
            Observations::Vectors { dim, values } => {
                let mut sums = Sums::new(*dim);
                sums.add(values);
                let mut squares = sums.squares();
                squares.add(values);
                Some(squares.moments())
            }
            Observations::Frames { .. } => None,
            Observations::Disk(disk) => disk.moments().cloned(),
        }
    }

    /// Tells whether all observations asked for so far could be read; in memory they always can.
    ///
    /// # Errors
    /// [`Error::Disk`] of the first read that failed.
    pub fn intact(&self) -> Result<(), Error> {
        self.observations.intact()
    }

    /// Writes the `c` frames up to row `row`, oldest first, into `out[c, height * width]`; before the start of the
    /// episode (row `first`) its first frame is repeated.
    pub(crate) fn stack(bytes: &[u8], first: usize, row: usize, out: &mut [u8], pixels: usize) {
        let count = out.len() / pixels;
        for (j, frame) in out.chunks_exact_mut(pixels).enumerate() {
            let source = (row + j + 1).saturating_sub(count).max(first);
            frame.copy_from_slice(&bytes[source * pixels..(source + 1) * pixels]);
        }
    }
}

fn boundaries(lengths: &[u32], rows: usize) -> Result<Vec<usize>, Error> {
    if lengths.is_empty() {
        return Err(Error::Empty { what: "episodes" });
    }
    if let Some(episode) = lengths.iter().position(|&n| n == 0) {
        return Err(Error::EmptyEpisode { episode });
    }
    let sum: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
    if sum != rows as u64 {
        return Err(Error::Lengths { sum, rows: rows as u64 });
    }
    let mut starts = Vec::with_capacity(lengths.len() + 1);
    starts.push(0);
    for &n in lengths {
        starts.push(starts[starts.len() - 1] + n as usize);
    }
    Ok(starts)
}

fn check_size(what: &'static str, rows: usize, width: usize, found: usize) -> Result<(), Error> {
    if width == 0 {
        return Err(Error::Empty { what });
    }
    let expected = rows as u64 * width as u64;
    if found as u64 != expected {
        return Err(Error::Size { what, expected, found: found as u64 });
    }
    Ok(())
}

fn check_observations(observations: &Observations, rows: usize) -> Result<(), Error> {
    check_size("observation values", rows, observations.shape().values(), observations.len())?;
    match observations {
        Observations::Vectors { dim, values } => check_finite("observations", values, *dim),
        // Vectors on disk were checked when they were opened.
        Observations::Frames { .. } | Observations::Disk(_) => Ok(()),
    }
}

fn check_actions(actions: &Actions, rows: usize) -> Result<(), Error> {
    match actions {
        Actions::Discrete { count, ids } => {
            check_size("actions", rows, 1, ids.len())?;
            match ids.iter().position(|id| id >= count) {
                Some(row) => Err(Error::Action { row, value: i64::from(ids[row]), count: *count }),
                None => Ok(()),
            }
        }
        Actions::Continuous { dim, values } => {
            check_size("action values", rows, *dim, values.len())?;
            check_finite("actions", values, *dim)
        }
    }
}

/// The largest size of a value in data: squares of larger ones have no room for their sums.
pub const LARGEST: f32 = 1e15;

/// A number that can be computed with: finite, and not beyond [`LARGEST`].
pub fn is_usable(value: f32) -> bool {
    value.abs() <= LARGEST
}

fn check_finite(what: &'static str, values: &[f32], width: usize) -> Result<(), Error> {
    match values.iter().position(|v| !is_usable(*v)) {
        Some(at) => Err(Error::NotFinite { what, row: at / width, col: at % width, value: values[at] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(values: &[f32]) -> Observations {
        Observations::Vectors { dim: 1, values: values.to_vec() }
    }

    fn small(rewards: &[f32], lengths: &[u32], treatment: Rewards) -> Result<Episodes, Error> {
        let ids = vec![0; rewards.len()];
        let obs = vectors(&vec![0.0; rewards.len()]);
        Episodes::new(obs, Actions::Discrete { count: 2, ids }, rewards.to_vec(), lengths, treatment)
    }

    #[test]
    fn returns_to_go_stay_in_their_episode() {
        let data = small(&[1.0, 2.0, 4.0, -3.0, 0.5], &[3, 2], Rewards::AsStored).expect("valid");
        assert_eq!(data.returns_to_go(), [7.0, 6.0, 4.0, -2.5, 0.5]);
        assert_eq!(data.returns(), [7.0, -2.5]);
        assert_eq!((data.rows_of(0), data.rows_of(1), data.longest()), (0..3, 3..5, 3));
        assert_eq!(data.rtg_scale(), 7.0);
        let sign = small(&[1.0, 20.0, 0.0, -3.0, -0.0], &[3, 2], Rewards::Sign).expect("valid");
        assert_eq!(sign.rewards(), [1.0, 1.0, 0.0, -1.0, 0.0]);
        assert_eq!(sign.returns_to_go(), [2.0, 1.0, 0.0, -1.0, 0.0]);
    }

    #[test]
    fn targets() {
        let rewards: Vec<f32> = (0..11).map(|i| i as f32).collect();
        let data = small(&rewards, &[1; 11], Rewards::AsStored).expect("valid");
        let targets = [Target::Max, Target::P90, Target::Mean].map(|t| data.target_return(t));
        assert_eq!(targets, [10.0, 9.0, 5.0]);
        let zero = small(&[0.0], &[1], Rewards::AsStored).expect("valid");
        assert_eq!(zero.rtg_scale(), 1e-6);
    }

    #[test]
    fn faults_are_named() {
        let text = |result: Result<Episodes, Error>| result.expect_err("refused").to_string();
        assert_eq!(text(small(&[], &[], Rewards::AsStored)), "no episodes: at least one is needed");
        assert_eq!(
            text(small(&[1.0], &[1, 0], Rewards::AsStored)),
            "episode 1 has length 0: at least one step is needed"
        );
        assert_eq!(text(small(&[1.0; 3], &[1, 1], Rewards::AsStored)), "episode lengths sum to 2 but there are 3 rows");
        assert_eq!(
            text(small(&[1.0; 3], &[u32::MAX, u32::MAX], Rewards::AsStored)),
            "episode lengths sum to 8589934590 but there are 3 rows"
        );
        assert_eq!(
            text(small(&[1.0, f32::NAN], &[2], Rewards::AsStored)),
            "rewards row 1 column 0: expected a finite number, found NaN"
        );
        assert_eq!(
            text(small(&[1.0, 1e30], &[2], Rewards::AsStored)),
            "rewards row 1 column 0: expected at most 1e15 in size, found 1e30"
        );
        assert!(text(small(&[LARGEST, LARGEST], &[2], Rewards::AsStored)).starts_with("returns to go row 0"));
        let obs = |dim, values: Vec<f32>| {
            let actions = Actions::Discrete { count: 2, ids: vec![0, 1] };
            Episodes::new(Observations::Vectors { dim, values }, actions, vec![0.0; 2], &[2], Rewards::AsStored)
        };
        assert_eq!(
            text(obs(2, vec![0.0, 0.0, 0.0, f32::INFINITY])),
            "observations row 1 column 1: expected a finite number, found inf"
        );
        assert_eq!(text(obs(2, vec![0.0; 3])), "observation values: expected 4, found 3");
        assert_eq!(text(obs(0, vec![])), "no observation values: at least one is needed");
        let act = |actions| Episodes::new(vectors(&[0.0; 2]), actions, vec![0.0; 2], &[2], Rewards::AsStored);
        assert_eq!(text(act(Actions::Discrete { count: 2, ids: vec![0, 2] })), "actions row 1: expected 0..2, found 2");
        assert_eq!(text(act(Actions::Discrete { count: 2, ids: vec![0] })), "actions: expected 2, found 1");
        assert_eq!(
            text(act(Actions::Continuous { dim: 2, values: vec![0.0, f32::NAN, 0.0, 0.0] })),
            "actions row 0 column 1: expected a finite number, found NaN"
        );
    }

    #[test]
    fn split_covers_every_episode_once() {
        for (count, held) in [(1, vec![]), (2, vec![1]), (4, vec![3]), (5, vec![4]), (11, vec![4, 9])] {
            let data = small(&vec![1.0; count], &vec![1; count], Rewards::AsStored).expect("valid");
            let split = data.split(5).expect("valid");
            assert_eq!(split.held_out, held);
            let mut all = [split.train, split.held_out].concat();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert!(small(&[1.0], &[1], Rewards::AsStored).expect("valid").split(1).is_err());
    }

    #[test]
    fn moments_are_of_the_population() {
        let obs = Observations::Vectors { dim: 2, values: vec![1e8, 5.0, 1e8 + 16.0, 5.0] };
        let actions = Actions::Continuous { dim: 1, values: vec![0.0; 2] };
        let data = Episodes::new(obs, actions, vec![0.0; 2], &[2], Rewards::AsStored).expect("valid");
        let moments = data.moments().expect("vectors");
        assert_eq!(moments.mean, [1e8 + 8.0, 5.0]);
        assert_eq!(moments.std, [8.0, 1e-6]);
    }

    #[test]
    fn stacks_repeat_the_first_frame_of_the_episode() {
        let bytes: Vec<u8> = (0..6).flat_map(|i| [i, i + 100]).collect();
        let mut out = [0; 8];
        for (first, row, want) in [(0, 0, [0, 0, 0, 0]), (0, 2, [0, 0, 1, 2]), (3, 3, [3; 4]), (3, 5, [3, 3, 4, 5])] {
            Episodes::stack(&bytes, first, row, &mut out, 2);
            let frames: Vec<u8> = out.chunks(2).map(|f| f[0]).collect();
            assert_eq!(frames, want);
            assert!(out.chunks(2).all(|f| f[1] == f[0] + 100));
        }
        Episodes::stack(&bytes, 0, 5, &mut out, 2);
        assert_eq!(out.chunks(2).map(|f| f[0]).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }
}
