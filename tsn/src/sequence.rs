//! A list of tasks, learned in order; after each one every task is played.

use crate::error::Error;
use crate::fit::Checkpoint;
use crate::learner::{Learner, TaskReport};
use crate::observe::{Event, Observer};
use crate::state::State;
use crate::task::Task;
use autograd::engine::kernels::BitMask;
use autograd::engine::kernels::philox::{Rng, Stream};
use dt::autograd;
use dt::config::Role;
use dt::env::{Action, ActionSpace};

/// A learner on a list of tasks.
pub struct Sequence<'t> {
    /// The learner and its bank.
    pub learner: Learner,
    tasks: &'t [Task],
    episodes: u64,
    /// `matrix[i][j]`: score on task `j` after task `i`; NaN for tasks without an environment.
    pub matrix: Vec<Vec<f64>>,
    /// What learning each task did.
    pub reports: Vec<TaskReport>,
}

impl<'t> Sequence<'t> {
    /// A sequence in which every task is played for `episodes` episodes at a time. `matrix` and `reports` are those of
    /// the tasks that the learner's bank already holds.
    pub fn new(
        learner: Learner,
        tasks: &'t [Task],
        episodes: u64,
        matrix: Vec<Vec<f64>>,
        reports: Vec<TaskReport>,
    ) -> Sequence<'t> {
        Sequence { learner, tasks, episodes, matrix, reports }
    }

    /// Learns the next task and plays all; `None` after the last. On an error the sequence is as before.
    ///
    /// # Errors
    /// Those of [`Learner::learn`] and of the environments.
    pub fn next(
        &mut self,
        resume: Option<Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<Option<&TaskReport>, Error> {
        let number = self.reports.len();
        let Some(task) = self.tasks.get(number) else { return Ok(None) };
        let before = self.learner.bank.clone();
        let company = self.learner.options.strategy.company(self.tasks, number);
        let report = self.learner.learn_among(task, &company, resume, observer)?;
        let played = self.play_all(number, observer);
        if played.is_err() {
            self.learner.bank = before;
        }
        let row = played?;
        self.matrix.push(row);
        self.reports.push(report);
        Ok(self.reports.last())
    }

    fn play_all(&mut self, after: usize, observer: &mut dyn Observer) -> Result<Vec<f64>, Error> {
        let mut row = Vec::with_capacity(self.tasks.len());
        for on in 0..self.tasks.len() {
            let score = self.play(on)?;
            observer.event(Event::Scored { after, on, score })?;
            row.push(score);
        }
        Ok(row)
    }

    /// Mean score on a task under what the bank holds: its own subnetwork, or for a task still to come the most
    /// recent one (zero shot). NaN without an environment.
    ///
    /// # Errors
    /// Those of the environments and of the programs.
    pub fn play(&mut self, on: usize) -> Result<f64, Error> {
        let task = &self.tasks[on];
        if task.environment.is_none() {
            return Ok(f64::NAN);
        }
        let bank = &self.learner.bank;
        // One dense model is whatever it is now; its records all point to the same copy.
        let Some(record) = bank.tasks.get(on).or(bank.tasks.last()) else { return Ok(f64::NAN) };
        let state = State::of_task(bank, record);
        let seeds: Vec<u64> = (0..self.episodes).map(|e| task.seed + e).collect();
        let episodes = self.learner.evaluator().play(&state, task, &seeds)?;
        Ok(episodes.iter().map(|e| e.score).sum::<f64>() / episodes.len().max(1) as f64)
    }

    /// For every learned task: are its weights, norms and outputs bit for bit what they were when it was learned, and
    /// its score the same?
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn unchanged(&mut self) -> Result<Vec<bool>, Error> {
        let mut all = Vec::new();
        let bank = self.learner.bank.clone();
        for (number, report) in self.reports.iter().enumerate() {
            let now = self.learner.fingerprint(&bank, number, &self.tasks[number])?;
            let scores = self.matrix.iter().skip(number).map(|row| row[number].to_bits());
            let same = scores.clone().all(|bits| Some(bits) == scores.clone().next());
            all.push(now == report.fingerprint && same);
        }
        Ok(all)
    }

    /// Score of an untrained model on every task; with masks, all bits are set.
    ///
    /// # Errors
    /// Those of the environments and of the programs.
    pub fn untrained(learner: &mut Learner, tasks: &[Task], episodes: u64) -> Result<Vec<f64>, Error> {
        let mut scores = Vec::new();
        let seed = learner.options.seed;
        let mut state = State::fresh(&learner.config, seed, 0);
        for spec in learner.config.parameters().iter().filter(|s| s.role == Role::Maskable) {
            // The programs may still hold the masks of a task.
            state.put_bits(format!("{}.mask", spec.name), &BitMask::ones(spec.rows, spec.cols));
        }
        for task in tasks {
            if task.environment.is_none() {
                scores.push(f64::NAN);
                continue;
            }
            let seeds: Vec<u64> = (0..episodes).map(|e| task.seed + e).collect();
            let played = learner.evaluator().play(&state, task, &seeds)?;
            scores.push(played.iter().map(|e| e.score).sum::<f64>() / played.len().max(1) as f64);
        }
        Ok(scores)
    }
}

/// Mean score of uniformly random actions: the zero of normalised scores. NaN without an environment.
///
/// # Errors
/// Those of the environment.
pub fn random_score(task: &Task, seed: u64, episodes: u64) -> Result<f64, Error> {
    let Some(maker) = &task.environment else { return Ok(f64::NAN) };
    let mut env = maker()?;
    let mut obs = vec![0.0; env.obs_shape().values()];
    let mut total = 0.0;
    for episode in 0..episodes {
        let mut rng = Rng::new(seed, Stream::Evaluation, [task.seed as u32, episode as u32]);
        env.reset(task.seed + episode, &mut obs)?;
        for _ in 0..env.step_limit() {
            let step = match env.action_space() {
                ActionSpace::Discrete(n) => env.step(Action::Discrete(rng.below(u64::from(n)) as u32), &mut obs)?,
                ActionSpace::Box(d) => {
                    let action: Vec<f32> = (0..d).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
                    env.step(Action::Continuous(&action), &mut obs)?
                }
            };
            let reward = if task.clip_rewards && step.reward != 0.0 { step.reward.signum() } else { step.reward };
            total += f64::from(reward);
            if step.ends() {
                break;
            }
        }
    }
    Ok(total / episodes.max(1) as f64)
}
