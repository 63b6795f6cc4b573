//! Recognising tasks that are not named: what is kept of a task, and how often logged episodes are routed right.

use crate::bank::Online;
use crate::error::Error;
use crate::task::Task;
use affinity::online::{Act, Actions as Moves, Descriptor, Executed, Filter, Router, Shape, Signature, States};
use dt::data::episodes::Actions;
use dt::env::ObsShape;
use std::ops::Range;

/// What the environment of a task shows before it is played, read from its data.
pub fn signature(task: &Task) -> Signature {
    let observation = match task.episodes.observations().shape() {
        ObsShape::Vector { dim } => Shape::Vector(dim),
        ObsShape::Frame { height, width } => Shape::Frame { height, width },
    };
    let actions = match task.episodes.actions() {
        Actions::Discrete { count, .. } => Moves::Discrete(*count as usize),
        Actions::Continuous { dim, .. } => Moves::Continuous(*dim),
    };
    Signature { observation, actions }
}

/// What a bank keeps of a task to recognise and play it. Independent of how well it was learned: it is fitted to the
/// training episodes alone. Deterministic in `(seed, number)`.
///
/// # Errors
/// [`Error::Affinity`] for data that cannot be described, [`Error::Data`] if rows in a file cannot be read.
pub fn online(task: &Task, seed: u64, number: u32) -> Result<Online, Error> {
    let signature = signature(task);
    let rows = |list: &[usize]| -> Vec<Range<usize>> { list.iter().map(|e| task.episodes.rows_of(*e)).collect() };
    let (train, held_out) = (rows(&task.split.train), rows(&task.split.held_out));
    let observations = task.episodes.observations();
    let states = States { rows: task.episodes.rows(), read: &|row, to| observations.read_row(row, to) };
    let descriptor = match observations.shape() {
        ObsShape::Vector { .. } => {
            let executed = match task.episodes.actions() {
                Actions::Discrete { ids, .. } => Executed::Ids(ids),
                Actions::Continuous { values, .. } => Executed::Values(values),
            };
            Descriptor::of_vectors(signature, states, executed, &train)?
        }
        ObsShape::Frame { .. } => Descriptor::of_frames(signature, states, &train, &held_out, seed, number)?,
    };
    observations.intact()?;
    let places = task.layout.as_ref().map_or(Vec::new(), |layout| layout.places.iter().map(|p| *p as u32).collect());
    Ok(Online { descriptor, places, clip_rewards: task.clip_rewards })
}

/// Transitions after which the choice of an episode is counted.
pub const AFTER: [usize; 4] = [0, 1, 5, 20];

/// Which tasks were chosen while one task was played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Choices over all states, per task.
    pub states: Vec<u64>,
    /// Choices after [`AFTER`] transitions, or at the end of a shorter episode, per task.
    pub after: [Vec<u64>; 4],
    /// Episodes that had so many transitions.
    pub reached: [u64; 4],
    /// Episodes.
    pub episodes: u64,
    /// States at which what was seen so far was unlike every candidate.
    pub unknown_states: u64,
    /// Episodes that were so after the last count.
    pub unknown_episodes: u64,
}

impl Tally {
    /// Nothing counted yet, for a bank of some tasks.
    pub fn new(tasks: usize) -> Tally {
        Tally { states: vec![0; tasks], after: std::array::from_fn(|_| vec![0; tasks]), ..Tally::default() }
    }

    /// Adds an episode by the choice at each of its states.
    pub fn add(&mut self, choices: &[Choice]) {
        let Some(last) = choices.len().checked_sub(1) else { return };
        for choice in choices {
            self.states[choice.task] += 1;
            self.unknown_states += u64::from(choice.unknown);
        }
        for ((n, counts), reached) in AFTER.into_iter().zip(&mut self.after).zip(&mut self.reached) {
            counts[choices[n.min(last)].task] += 1;
            *reached += u64::from(n <= last);
        }
        self.unknown_episodes += u64::from(choices[AFTER[3].min(last)].unknown);
        self.episodes += 1;
    }

    /// Share of some choices that fell on the tasks that count as right; `None` without choices.
    pub fn share(counts: &[u64], right: impl Fn(usize) -> bool) -> Option<f64> {
        let all: u64 = counts.iter().sum();
        let hits: u64 = counts.iter().enumerate().filter(|(task, _)| right(*task)).map(|(_, n)| n).sum();
        (all > 0).then(|| hits as f64 / all as f64)
    }
}

/// What was chosen at a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Number of the task.
    pub task: usize,
    /// What was seen so far is unlike every candidate.
    pub unknown: bool,
}

/// Follows the held-out episodes of a task (all of them if none is held out) as if it were being played; `visit` sees
/// the filter after every state of every episode. Actions are no evidence about frames, and need not be the router's.
///
/// # Errors
/// [`Error::Affinity`] if the task's data do not have the router's signature; [`Error::Data`] if rows in a file cannot
/// be read.
pub fn follow(
    router: &Router,
    task: &Task,
    mut visit: impl FnMut(usize, usize, &mut Filter, Choice),
) -> Result<(), Error> {
    let mut filter = router.start()?;
    let observations = task.episodes.observations();
    let mut obs = vec![0.0; observations.shape().values()];
    let frames = matches!(observations.shape(), ObsShape::Frame { .. });
    let list = if task.split.held_out.is_empty() { &task.split.train } else { &task.split.held_out };
    for episode in list {
        filter.clear();
        let rows = task.episodes.rows_of(*episode);
        for row in rows.clone() {
            let before = (row > rows.start && !frames).then(|| row - 1);
            let action = before.map(|row| match task.episodes.actions() {
                Actions::Discrete { ids, .. } => Act::Id(ids[row]),
                Actions::Continuous { dim, values } => Act::Vector(&values[row * dim..][..*dim]),
            });
            observations.read_row(row, &mut obs);
            let decision = filter.observe(router, action, &obs)?;
            let choice = Choice { task: decision.task, unknown: decision.unknown };
            visit(*episode, row - rows.start, &mut filter, choice);
        }
    }
    observations.intact()?;
    Ok(())
}

/// Choices on the held-out episodes of a task in a bank of `tasks` tasks.
///
/// # Errors
/// As [`follow`].
pub fn tally(router: &Router, task: &Task, tasks: usize) -> Result<Tally, Error> {
    let (mut tally, mut choices, mut last) = (Tally::new(tasks), Vec::new(), None);
    follow(router, task, |episode, _, _, choice| {
        if last.replace(episode) != Some(episode) {
            tally.add(&choices);
            choices.clear();
        }
        choices.push(choice);
    })?;
    tally.add(&choices);
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::{AFTER, Actions, Choice, Moves, Tally, online, signature, tally};
    use crate::suite::Suite;
    use crate::task::Task;
    use affinity::online::{Router, Settings};
    use dt::data::episodes::{Episodes, Observations, Rewards};
    use dt::env::cartpole::Derived;

    #[test]
    fn choices_are_counted() {
        let choice = |task| Choice { task, unknown: task == 1 };
        let mut counts = Tally::new(2);
        counts.add(&[choice(1), choice(0), choice(0)]);
        counts.add(&[choice(1)]);
        counts.add(&[]);
        assert_eq!((&counts.states[..], counts.episodes), (&[2, 2][..], 2));
        assert_eq!(
            (&counts.after[0][..], &counts.after[1][..], &counts.after[3][..]),
            (&[0, 2][..], &[1, 1][..], &[1, 1][..])
        );
        assert_eq!((counts.reached, counts.unknown_states, counts.unknown_episodes), ([2, 1, 0, 0], 2, 1));
        assert_eq!(Tally::share(&counts.states, |task| task == 0), Some(0.5));
        assert_eq!(Tally::share(&[0, 0], |_| true), None);
    }

    #[test]
    fn frames_are_followed_whatever_the_actions() {
        let rows = 20;
        let observations =
            Observations::Frames { height: 4, width: 4, bytes: (0..rows * 16).map(|at| (at % 251) as u8).collect() };
        let actions = Actions::Continuous { dim: 2, values: vec![0.5; 2 * rows] };
        let episodes = Episodes::new(observations, actions, vec![1.0; rows], &[4; 5], Rewards::AsStored).unwrap();
        let task = Task::new("arm", 0, episodes).unwrap();
        let mut descriptor = online(&task, 0, 0).unwrap().descriptor;
        assert_eq!(signature(&task).to_string(), "frame 4 4 continuous 2");
        // As if it were among games.
        descriptor.signature.actions = Moves::Discrete(6);
        let list = [(0, &descriptor)];
        let router = Router::new(descriptor.signature, list.into_iter(), Settings::default()).unwrap();
        assert_eq!(tally(&router, &task, 1).unwrap().states, [4]);
    }

    #[test]
    fn contradicting_tasks_are_told_apart_by_one_transition() {
        let tasks = Suite::CartPoleConflict.generate(Derived::Refreshed, 0, 30).unwrap();
        let described: Vec<_> = tasks.iter().map(|task| online(task, 0, 0).unwrap().descriptor).collect();
        let router = Router::new(signature(&tasks[0]), described.iter().enumerate(), Settings::default()).unwrap();
        for (number, task) in tasks.iter().enumerate() {
            let counts = tally(&router, task, 2).unwrap();
            assert_eq!(counts.episodes as usize, task.split.held_out.len());
            for (n, counts) in AFTER.into_iter().zip(&counts.after).skip(1) {
                assert_eq!(Tally::share(counts, |task| task == number), Some(1.0), "{n} transitions");
            }
            assert_eq!(counts.unknown_episodes, 0);
        }
    }
}
