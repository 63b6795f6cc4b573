//! Trajectories of simulators, made with controllers of our own: arms by [`arm`], games by the planner beside the bridge.
//!
//! A dataset mixes tiers: undisturbed episodes, and some whose actions are disturbed more and more. An episode depends on
//! the seed and its number alone, so that any number of workers makes the same data.

mod arm;
mod episode;

use crate::bridge::{Error as Absent, Simulator};
use crate::tasks::TaskSpec;
use arm::Arm;
use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::expert::deal;
use dt::env::{ActionSpace, Envs, ObsShape};
use episode::{Taken, play};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// How the actions of an episode are disturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: &'static str,
    /// Its share of the episodes.
    pub weight: f64,
    /// Standard deviation of the noise added to each number of a continuous action.
    pub noise: f64,
    /// Probability that an action is replaced by a uniform random one.
    pub random: f64,
}

/// Tiers of arms.
pub const ARM_TIERS: [Tier; 4] = [
    Tier { name: "expert", weight: 0.3, noise: 0.0, random: 0.0 },
    Tier { name: "noisy", weight: 0.4, noise: 0.3, random: 0.05 },
    Tier { name: "medium", weight: 0.2, noise: 0.5, random: 0.4 },
    Tier { name: "random", weight: 0.1, noise: 0.0, random: 1.0 },
];

/// Tiers of games.
pub const GAME_TIERS: [Tier; 4] = [
    Tier { name: "expert", weight: 0.3, noise: 0.0, random: 0.0 },
    Tier { name: "noisy", weight: 0.4, noise: 0.0, random: 0.1 },
    Tier { name: "medium", weight: 0.2, noise: 0.0, random: 0.35 },
    Tier { name: "random", weight: 0.1, noise: 0.0, random: 1.0 },
];

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Start states, tiers and disturbances follow from it.
    pub seed: u64,
    /// Number of episodes.
    pub episodes: usize,
    /// Steps after which an episode is cut, where the environment does not end it before.
    pub most_steps: u32,
    /// Simulators that run side by side.
    pub workers: usize,
}

/// A dataset and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The trajectories, rewards as the environment gives them.
    pub episodes: Episodes,
    /// The tier of each episode.
    pub tiers: Vec<Tier>,
    /// Whether each episode ended by itself.
    pub terminated: Vec<bool>,
    /// Whether each episode reached its goal, where the environment defines that.
    pub success: Option<Vec<bool>>,
    /// Lives before each step, where there are lives; the first step of an episode has those after it.
    pub lives: Option<Vec<u8>>,
}

/// Why a dataset cannot be made.
#[derive(Debug)]
pub enum Error {
    /// The simulator is missing or refuses.
    Simulator(Absent),
    /// There is no controller for an environment.
    NoController {
        /// The environment.
        env: String,
    },
    /// The simulator failed while it played.
    Play(dt::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Simulator(error) => error.fmt(f),
            Error::Play(error) => error.fmt(f),
            Error::NoController { env } => write!(
                f,
                "there is no controller for {env}: expected CartPole-v1, ALE/... or Panda{{Reach,Push,Slide,PickAndPlace,\
                 Stack}}[Dense]-v3"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<dt::Error> for Error {
    fn from(error: dt::Error) -> Error {
        Error::Play(error)
    }
}

/// What decides in the episodes of a task.
#[derive(Clone, Copy, Debug)]
enum Pilot {
    Arm(Arm),
    Planner,
}

/// A task of which datasets can be made.
#[derive(Debug)]
pub struct Maker {
    simulator: Simulator,
    pilot: Pilot,
    shape: ObsShape,
    space: ActionSpace,
    limit: u32,
}

impl Maker {
    /// Finds the controller of a task and starts its simulator.
    ///
    /// # Errors
    /// [`Error::NoController`], also for parameters that change what the controller sees; [`Error::Simulator`].
    pub fn new(spec: &TaskSpec, python: &Path) -> Result<Maker, Error> {
        Maker::with(spec, Simulator::new(python, &spec.env_id, &spec.environment()))
    }

    /// The same with a given simulator.
    ///
    /// # Errors
    /// Those of [`Maker::new`].
    pub fn with(spec: &TaskSpec, simulator: Simulator) -> Result<Maker, Error> {
        let unknown = || Error::NoController { env: spec.env_id.clone() };
        let pilot = match spec.env_id.starts_with("ALE/") {
            true => Pilot::Planner,
            false => Pilot::Arm(Arm::of(&spec.env_id).ok_or_else(unknown)?),
        };
        let envs = simulator.open(1).map_err(Error::Simulator)?;
        let (shape, space, limit) = (envs.obs_shape(), envs.action_space(), envs.step_limit());
        let fits = match (pilot, shape, space) {
            (Pilot::Planner, ObsShape::Frame { .. }, ActionSpace::Discrete(_)) => true,
            (Pilot::Arm(arm), ObsShape::Vector { dim }, ActionSpace::Box(n)) => {
                arm.fits(dim) && arm.actions() == n as usize
            }
            _ => false,
        };
        drop(envs);
        if !fits {
            return Err(unknown());
        }
        Ok(Maker { simulator, pilot, shape, space, limit })
    }

    /// The tiers that the task's episodes are dealt to.
    pub fn tiers(&self) -> [Tier; 4] {
        match self.pilot {
            Pilot::Arm(_) => ARM_TIERS,
            Pilot::Planner => GAME_TIERS,
        }
    }

    /// Makes a dataset; nothing if `stop` was set meanwhile. `progress` hears how many of how many steps are played or
    /// will not be, as their episode has ended.
    ///
    /// # Errors
    /// [`Error::Simulator`], [`Error::Play`].
    pub fn make(
        &self,
        recipe: &Recipe,
        stop: &AtomicBool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Option<Made>, Error> {
        let all = self.tiers();
        let tiers: Vec<Tier> =
            deal(recipe.seed, recipe.episodes, &all.map(|t| t.weight)).into_iter().map(|i| all[i]).collect();
        let limit = recipe.most_steps.min(self.limit);
        let (next, steps, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let taken: Mutex<Vec<Option<Taken>>> = Mutex::new(vec![None; recipe.episodes]);
        let halted = || stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
        let work = || -> Result<(), Error> {
            let mut envs = self.simulator.open(1).map_err(Error::Simulator)?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= recipe.episodes || halted() {
                    return Ok(());
                }
                let count = || {
                    steps.fetch_add(1, Ordering::Relaxed);
                    !halted()
                };
                let Some(episode) =
                    play(&mut envs, self.pilot, &tiers[number], recipe.seed, number as u32, limit, count)?
                else {
                    return Ok(());
                };
                steps.fetch_add(u64::from(limit).saturating_sub(episode.rewards.len() as u64), Ordering::Relaxed);
                taken.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(episode);
            }
        };
        let work = &work;
        let (done, results) = mpsc::channel();
        let mut result = Ok(());
        thread::scope(|scope| {
            let workers = recipe.workers.clamp(1, recipe.episodes.max(1));
            for _ in 0..workers {
                let done = done.clone();
                scope.spawn(move || done.send(work()));
            }
            drop(done);
            loop {
                match results.recv_timeout(Duration::from_millis(200)) {
                    Ok(Err(error)) => {
                        failed.store(true, Ordering::Relaxed);
                        // The first one; the others follow from it, if there are any.
                        if result.is_ok() {
                            result = Err(error);
                        }
                    }
                    Ok(Ok(())) => {}
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        progress(steps.load(Ordering::Relaxed), recipe.episodes as u64 * u64::from(limit));
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        result?;
        let taken: Option<Vec<Taken>> =
            taken.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        taken.map(|taken| self.joined(taken, tiers)).transpose()
    }

    fn joined(&self, taken: Vec<Taken>, tiers: Vec<Tier>) -> Result<Made, Error> {
        let lengths: Vec<u32> = taken.iter().map(|t| t.rewards.len() as u32).collect();
        let terminated = taken.iter().map(|t| t.terminated).collect();
        let success = taken.iter().map(|t| t.success).collect();
        let lives: Option<Vec<Vec<u8>>> = taken.iter().map(|t| t.lives.clone()).collect();
        let rewards = taken.iter().flat_map(|t| t.rewards.iter().copied()).collect();
        let actions = match self.space {
            ActionSpace::Discrete(count) => {
                Actions::Discrete { count, ids: taken.iter().flat_map(|t| t.ids.iter().copied()).collect() }
            }
            ActionSpace::Box(dim) => Actions::Continuous {
                dim: dim as usize,
                values: taken.iter().flat_map(|t| t.values.iter().copied()).collect(),
            },
        };
        let observations = match self.shape {
            ObsShape::Vector { dim } => {
                Observations::Vectors { dim, values: taken.into_iter().flat_map(|t| t.obs).collect() }
            }
            ObsShape::Frame { height, width } => {
                Observations::Frames { height, width, bytes: taken.into_iter().flat_map(|t| t.pixels).collect() }
            }
        };
        let episodes = Episodes::new(observations, actions, rewards, &lengths, Rewards::AsStored)?;
        Ok(Made { episodes, tiers, terminated, success, lives: lives.map(|lives| lives.concat()) })
    }
}
