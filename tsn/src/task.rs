//! A task as the learner takes it: data, scales, actions, and where it can be played.

use crate::bank::{ActionKind, TaskRecord};
use crate::error::Error;
use crate::options::{Options, Profile};
use autograd::engine::kernels::BitMask;
use dt::autograd;
use dt::config::{Action, Config};
use dt::data::batch::{Choice, Layout, Padding, Sampler, Sampling};
use dt::data::episodes::{Actions, Episodes, Moments, Split, Target};
use dt::env::{Envs, ObsShape};
use dt::history::Preprocess;
use dt::rollout::Goal;

/// Makes so many environments to play a task in.
pub type Maker = Box<dyn Fn(usize) -> Result<Box<dyn Envs>, dt::Error> + Send + Sync>;

/// What an undisturbed controller does at raw observations, `[n, width]` row major: one action per row.
pub type Controls = Box<dyn Fn(&[f32]) -> Vec<u32> + Send + Sync>;

/// A task of a sequence.
pub struct Task {
    /// Unique name.
    pub name: String,
    /// Evaluation episode `e` starts from `seed + e`.
    pub seed: u64,
    /// Logged trajectories.
    pub episodes: Episodes,
    /// Episodes to learn from and episodes kept apart.
    pub split: Split,
    /// Places of its observation entries in the model's observation.
    pub layout: Option<Layout>,
    /// Rewards count by their sign.
    pub clip_rewards: bool,
    /// Actions of the task among the model's; `None` means all its data can hold.
    pub valid: Option<Vec<u32>>,
    /// Returns-to-go are divided by this; `None` means the largest magnitude of a return in its own data.
    pub rtg_scale: Option<f32>,
    /// Vector observations enter standardised by their own mean and deviation.
    pub standardise: bool,
    /// The mean and deviation to standardise with instead of those of its own data.
    pub moments: Option<Moments>,
    /// The return to ask for instead of the largest of its own data.
    pub target: Option<f64>,
    /// Steps of an episode that is played, where that is known of the task itself; else its data say.
    pub step_limit: Option<u32>,
    /// Where it is played; `None` for data without an environment.
    pub environment: Option<Maker>,
    /// The controller behind the data, where it is known: a sharper measure than the score.
    pub controller: Option<Controls>,
}

impl Task {
    /// A task of some data, with every fifth episode kept apart.
    ///
    /// # Errors
    /// [`Error::Data`] if there are too few episodes to split.
    pub fn new(name: impl Into<String>, seed: u64, episodes: Episodes) -> Result<Task, Error> {
        let split = match episodes.count() {
            0..5 => Split { train: (0..episodes.count()).collect(), held_out: (0..episodes.count()).collect() },
            _ => episodes.split(5)?,
        };
        let name = name.into();
        Ok(Task {
            name,
            seed,
            episodes,
            split,
            layout: None,
            clip_rewards: false,
            valid: None,
            rtg_scale: None,
            standardise: true,
            moments: None,
            target: None,
            step_limit: None,
            environment: None,
            controller: None,
        })
    }

    /// Observation statistics, if observations are vectors and standardised.
    pub fn moments(&self) -> Option<Moments> {
        if !self.standardise {
            return None;
        }
        self.moments.clone().or_else(|| self.episodes.moments())
    }

    /// The return to ask for.
    pub fn target_return(&self) -> f64 {
        self.target.unwrap_or_else(|| self.episodes.target_return(Target::Max))
    }

    /// Takes over the scales a task of a bank was learned with: observation statistics, the divisor of returns.
    pub fn scale_as(&mut self, record: &TaskRecord) {
        self.rtg_scale = Some(record.rtg_scale as f32);
        let ObsShape::Vector { dim } = self.episodes.observations().shape() else { return };
        let places: Vec<usize> = self.layout.as_ref().map_or_else(|| (0..dim).collect(), |l| l.places.clone());
        let at = |list: &[f32]| places.iter().map(|p| list.get(*p).copied()).collect::<Option<Vec<f32>>>();
        self.moments = at(&record.obs_mean).zip(at(&record.obs_std)).map(|(mean, std)| Moments { mean, std });
        self.standardise = self.moments.is_some();
    }

    /// What returns-to-go are divided by.
    pub fn rtg_scale(&self) -> f32 {
        self.rtg_scale.unwrap_or_else(|| self.episodes.rtg_scale())
    }

    /// What its actions are, inside a model's.
    pub fn action(&self, config: &Config) -> ActionKind {
        let own = match self.episodes.actions() {
            Actions::Discrete { count, .. } => *count,
            Actions::Continuous { dim, .. } => *dim as u32,
        };
        let list = self.valid.clone().unwrap_or_else(|| (0..own).collect());
        match config.action {
            Action::Discrete(n) => ActionKind::Discrete { n, valid: list },
            Action::Continuous(d) => ActionKind::Continuous { d, active: list },
        }
    }

    /// How windows of this task are drawn.
    pub fn sampling(&self, config: &Config, options: &Options, batch: u32, task: u32) -> Sampling {
        let official = options.profile == Profile::Official;
        let discrete = matches!(config.action, Action::Discrete(_));
        Sampling {
            stack: match config.observation {
                dt::config::Observation::Vector(_) => 1,
                dt::config::Observation::Image { channels, .. } => channels as usize,
            },
            choice: if official && discrete { Choice::Episodes } else { Choice::Windows },
            padding: if official && discrete { Padding::Right } else { Padding::Left },
            rtg_scale: self.rtg_scale(),
            max_ep_len: config.max_ep_len,
            moments: self.moments(),
            layout: self.layout.clone(),
            action_width: match config.action {
                Action::Discrete(_) => None,
                Action::Continuous(d) => Some(d as usize),
            },
            seed: options.seed,
            task,
            ..Sampling::new(batch as usize, config.context as usize)
        }
    }

    /// Draws from the training episodes.
    ///
    /// # Errors
    /// [`Error::Data`] where settings do not fit the data.
    pub fn sampler(&self, config: &Config, options: &Options, batch: u32, task: u32) -> Result<Sampler<'_>, Error> {
        Ok(Sampler::new(&self.episodes, &self.split.train, self.sampling(config, options, batch, task))?)
    }

    /// Covers the held-out episodes.
    ///
    /// # Errors
    /// [`Error::Data`] where settings do not fit the data.
    pub fn held_out(&self, config: &Config, options: &Options, batch: u32) -> Result<Sampler<'_>, Error> {
        Ok(Sampler::new(&self.episodes, &self.split.held_out, self.sampling(config, options, batch, 0))?)
    }

    /// What an evaluation episode asks for.
    pub fn goal(&self, config: &Config) -> Goal {
        Goal {
            target: self.target_return() as f32,
            preprocess: Preprocess {
                moments: self.moments(),
                layout: self.layout.clone(),
                rtg_scale: self.rtg_scale(),
                max_ep_len: config.max_ep_len,
            },
            clip_rewards: self.clip_rewards,
            fire: None,
        }
    }

    /// The action FIRE of its environments, if its data never use it: it is forced then, see [`dt::rollout::Fire`].
    pub fn fire(&self, envs: &dyn Envs) -> Option<u32> {
        let used = |fire: &u32| matches!(self.episodes.actions(), Actions::Discrete { ids, .. } if ids.contains(fire));
        envs.fire().filter(|fire| !used(fire))
    }
}

/// The actions of a task as the loss takes them: allowed bits, or 1 at active dimensions.
pub(crate) fn action_words(kind: &ActionKind) -> (Vec<u32>, Vec<f32>) {
    match kind {
        ActionKind::Discrete { n, valid } => {
            let mask = BitMask::from_flags(1, *n, (0..*n).map(|a| valid.contains(&a)));
            (mask.words().to_vec(), Vec::new())
        }
        ActionKind::Continuous { d, active } => {
            (Vec::new(), (0..*d).map(|a| f32::from(u8::from(active.contains(&a)))).collect())
        }
    }
}
