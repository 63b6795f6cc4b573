//! Environments: what a rollout needs, and the CartPole that comes with the crate.

pub mod cartpole;
pub mod expert;
pub mod pcg;

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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Reward of the step, as the environment gives it.
    pub reward: f32,
    /// The task ended: failure or success.
    pub terminated: bool,
    /// The step limit ended the episode.
    pub truncated: bool,
}

impl Step {
    /// The episode is over.
    pub fn ends(self) -> bool {
        self.terminated || self.truncated
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

impl<E: Env + ?Sized> Env for Box<E> {
    fn obs_shape(&self) -> ObsShape {
        (**self).obs_shape()
    }

    fn action_space(&self) -> ActionSpace {
        (**self).action_space()
    }

    fn step_limit(&self) -> u32 {
        (**self).step_limit()
    }

    fn reset(&mut self, seed: u64, obs: &mut [f32]) -> Result<(), Error> {
        (**self).reset(seed, obs)
    }

    fn step(&mut self, action: Action<'_>, obs: &mut [f32]) -> Result<Step, Error> {
        (**self).step(action, obs)
    }
}
