//! Environments: what a rollout needs, and the CartPole that comes with the crate.

pub mod cartpole;
pub mod expert;
pub mod pcg;
pub mod remap;

use crate::error::Error;

/// What an observation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObsShape {
    /// `dim` numbers.
    Vector {
        /// Entries of the vector.
        dim: usize,
    },
    /// A single grey frame, `height * width` values, rows first.
    Frame {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl ObsShape {
    /// Values of one observation.
    pub fn values(self) -> usize {
        match self {
            ObsShape::Vector { dim } => dim,
            ObsShape::Frame { height, width } => height * width,
        }
    }
}

/// What actions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionSpace {
    /// Numbers `0..n`.
    Discrete(u32),
    /// Vectors of `d` numbers in `[-1, 1]`.
    Box(u32),
}

/// One action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// Number of the action.
    Discrete(u32),
    /// One number per dimension, already clipped to the box.
    Continuous(&'a [f32]),
}

/// What a step returned besides the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// Reward of the step, as the environment gives it.
    pub reward: f32,
    /// The task ended: failure or success.
    pub terminated: bool,
    /// The step limit ended the episode.
    pub truncated: bool,
    /// The task is accomplished; `None` where the environment does not define that.
    pub success: Option<bool>,
    /// Lives left; `None` where there are none to lose.
    pub lives: Option<u32>,
}

impl Step {
    /// The episode is over.
    pub fn ends(self) -> bool {
        self.terminated || self.truncated
    }
}

/// A reward as it counts: its sign if rewards are clipped, as Atari benchmarks do.
pub fn counted(reward: f32, clip: bool) -> f32 {
    match (clip, reward == 0.0) {
        (false, _) => reward,
        (true, true) => 0.0,
        (true, false) => reward.signum(),
    }
}

/// An episodic environment with f32 observations.
///
/// The observation goes into a slice of `obs_shape().values()` numbers, so a rollout allocates nothing per step. Equal
/// seeds give equal episodes for equal actions.
pub trait Env {
    /// What an observation is.
    fn obs_shape(&self) -> ObsShape;
    /// What actions there are.
    fn action_space(&self) -> ActionSpace;
    /// Steps after which an episode is truncated.
    fn step_limit(&self) -> u32;
    /// Starts an episode and writes its first observation.
    ///
    /// # Errors
    /// [`Error::Size`] if `obs` has the wrong length; [`Error::Environment`] if a foreign environment fails.
    fn reset(&mut self, seed: u64, obs: &mut [f32]) -> Result<(), Error>;
    /// Does one action and writes the next observation.
    ///
    /// # Errors
    /// [`Error::Order`] before a reset or after the end of an episode; [`Error::Action`], [`Error::Kind`] for an action
    /// that does not exist; otherwise as [`Env::reset`].
    fn step(&mut self, action: Action<'_>, obs: &mut [f32]) -> Result<Step, Error>;
}

/// Actions of several environments, one row each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moves<'a> {
    /// Numbers of actions.
    Discrete(&'a [u32]),
    /// `d` numbers a row, already clipped to the box.
    Continuous(&'a [f32]),
}

/// Environments of one kind that move together, so that those in another process need one message per step.
///
/// A call concerns the environments of `slots`; row `i` of its other arguments belongs to `slots[i]`. Rows of
/// observations have `obs_shape().values()` numbers. Equal seeds give equal episodes for equal actions, whatever the
/// slot and whatever was played before.
pub trait Envs {
    /// Number of environments.
    fn slots(&self) -> usize;
    /// What an observation is.
    fn obs_shape(&self) -> ObsShape;
    /// What actions there are.
    fn action_space(&self) -> ActionSpace;
    /// Steps after which an episode is truncated.
    fn step_limit(&self) -> u32;
    /// Number of the action FIRE of a console game.
    fn fire(&self) -> Option<u32> {
        None
    }
    /// Starts an episode per slot and writes first observations.
    ///
    /// # Errors
    /// Those of [`Env::reset`].
    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), Error>;
    /// Does one action per slot and writes the next observations.
    ///
    /// # Errors
    /// Those of [`Env::step`].
    fn step(&mut self, slots: &[usize], moves: Moves<'_>, obs: &mut [f32], steps: &mut [Step]) -> Result<(), Error>;
}

/// Environments of this process, one after another.
pub struct Native<E>(Vec<E>);

impl<E: Env> Native<E> {
    /// Environments that differ in their state alone.
    ///
    /// # Errors
    /// [`Error::Empty`] for none; [`Error::Size`], [`Error::Kind`] if their observations or actions differ.
    pub fn new(envs: Vec<E>) -> Result<Native<E>, Error> {
        let Some(first) = envs.first() else { return Err(Error::Empty { what: "environments" }) };
        let (shape, space) = (first.obs_shape(), first.action_space());
        if let Some(other) = envs.iter().map(E::obs_shape).find(|other| *other != shape) {
            let (expected, found) = (shape.values() as u64, other.values() as u64);
            return Err(Error::Size { what: "observations of all environments", expected, found });
        }
        if envs.iter().any(|env| env.action_space() != space) {
            let (expected, found) = ("the first one's", "others");
            return Err(Error::Kind { what: "actions of all environments", expected, found });
        }
        Ok(Native(envs))
    }
}

impl<E: Env> Envs for Native<E> {
    fn slots(&self) -> usize {
        self.0.len()
    }

    fn obs_shape(&self) -> ObsShape {
        self.0[0].obs_shape()
    }

    fn action_space(&self) -> ActionSpace {
        self.0[0].action_space()
    }

    fn step_limit(&self) -> u32 {
        self.0[0].step_limit()
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), Error> {
        let rows = obs.chunks_exact_mut(self.obs_shape().values().max(1));
        slots.iter().zip(seeds).zip(rows).try_for_each(|((slot, seed), row)| self.0[*slot].reset(*seed, row))
    }

    fn step(&mut self, slots: &[usize], moves: Moves<'_>, obs: &mut [f32], steps: &mut [Step]) -> Result<(), Error> {
        let rows = obs.chunks_exact_mut(self.obs_shape().values().max(1)).zip(steps);
        for (row, (slot, (obs, step))) in slots.iter().zip(rows).enumerate() {
            let action = match moves {
                Moves::Discrete(ids) => Action::Discrete(ids[row]),
                Moves::Continuous(values) => {
                    let width = values.len() / slots.len();
                    Action::Continuous(&values[row * width..][..width])
                }
            };
            *step = self.0[*slot].step(action, obs)?;
        }
        Ok(())
    }
}
