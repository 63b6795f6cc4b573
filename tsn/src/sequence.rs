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
use dt::env::{ActionSpace, Moves, Step};
use dt::rollout::Episode;

/// What some episodes of a task came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// Mean score; NaN without an environment.
    pub score: f64,
    /// Score of each episode; empty without an environment.
    pub scores: Vec<f64>,
    /// Share of episodes that accomplished the task; `None` where the environment does not define that.
    pub success: Option<f64>,
}

impl Played {
    /// Nothing was played.
    pub const UNKNOWN: Played = Played { score: f64::NAN, scores: Vec::new(), success: None };

    fn of(episodes: &[Episode]) -> Played {
        let mean = |sum: f64| sum / episodes.len().max(1) as f64;
        let success = episodes.iter().filter_map(|e| e.success.map(|yes| f64::from(u8::from(yes))));
        Played {
            score: mean(episodes.iter().map(|e| e.score).sum()),
            scores: episodes.iter().map(|e| e.score).collect(),
            success: success.reduce(|sum, one| sum + one).map(mean),
        }
    }
}

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
            let Played { score, .. } = self.play(on)?;
            observer.event(Event::Scored { after, on, score })?;
            row.push(score);
        }
        Ok(row)
    }

    /// Score on a task under what the bank holds: its own subnetwork, or for a task still to come the most
    /// recent one (zero shot). Not known without an environment.
    ///
    /// # Errors
    /// Those of the environments and of the programs.
    pub fn play(&mut self, on: usize) -> Result<Played, Error> {
        let task = &self.tasks[on];
        if task.environment.is_none() {
            return Ok(Played::UNKNOWN);
        }
        let bank = &self.learner.bank;
        // One dense model is whatever it is now; its records all point to the same copy.
        let Some(record) = bank.tasks.get(on).or(bank.tasks.last()) else { return Ok(Played::UNKNOWN) };
        let state = State::of_task(bank, record);
        let seeds: Vec<u64> = (0..self.episodes).map(|e| task.seed.wrapping_add(e)).collect();
        Ok(Played::of(&self.learner.evaluator().play(&state, task, &seeds)?))
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
    pub fn untrained(learner: &mut Learner, tasks: &[Task], episodes: u64) -> Result<Vec<Played>, Error> {
        let mut scores = Vec::new();
        let seed = learner.options.seed;
        let mut state = State::fresh(&learner.config, seed, 0);
        for spec in learner.config.parameters().iter().filter(|s| s.role == Role::Maskable) {
            // The programs may still hold the masks of a task.
            state.put_bits(format!("{}.mask", spec.name), &BitMask::ones(spec.rows, spec.cols));
        }
        for task in tasks {
            if task.environment.is_none() {
                scores.push(Played::UNKNOWN);
                continue;
            }
            let seeds: Vec<u64> = (0..episodes).map(|e| task.seed.wrapping_add(e)).collect();
            scores.push(Played::of(&learner.evaluator().play(&state, task, &seeds)?));
        }
        Ok(scores)
    }
}

/// Score of uniformly random actions: the zero of normalised scores. Not known without an environment.
///
/// # Errors
/// Those of the environment.
pub fn random_score(task: &Task, seed: u64, episodes: u64) -> Result<Played, Error> {
    let Some(maker) = &task.environment else { return Ok(Played::UNKNOWN) };
    let most = episodes.clamp(1, 20) as usize;
    let mut envs = maker(most)?;
    let (space, width, limit) = (envs.action_space(), envs.obs_shape().values(), envs.step_limit());
    let mut obs = vec![0.0; most * width];
    let (mut ids, mut values, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Vec::new();
    for wave in (0..episodes).collect::<Vec<u64>>().chunks(most) {
        let seeds: Vec<u64> = wave.iter().map(|e| task.seed.wrapping_add(*e)).collect();
        let rng = |e: &u64| Rng::new(seed, Stream::Evaluation, [task.seed as u32, *e as u32]);
        let mut rngs: Vec<Rng> = wave.iter().map(rng).collect();
        let mut results = vec![Episode::default(); wave.len()];
        let mut running: Vec<usize> = (0..wave.len()).collect();
        envs.reset(&running, &seeds, &mut obs[..wave.len() * width])?;
        while !running.is_empty() {
            ids.clear();
            values.clear();
            for slot in &running {
                match space {
                    ActionSpace::Discrete(n) => ids.push(rngs[*slot].below(u64::from(n)) as u32),
                    ActionSpace::Box(d) => values.extend((0..d).map(|_| rngs[*slot].uniform(-1.0, 1.0) as f32)),
                }
            }
            let moves = match space {
                ActionSpace::Discrete(_) => Moves::Discrete(&ids),
                ActionSpace::Box(_) => Moves::Continuous(&values),
            };
            steps.resize(running.len(), Step::default());
            envs.step(&running, moves, &mut obs[..running.len() * width], &mut steps)?;
            let mut made = steps.iter();
            running.retain(|slot| {
                let (step, result) = (made.next().copied().unwrap_or_default(), &mut results[*slot]);
                result.count(step, task.clip_rewards);
                !step.ends() && result.steps < limit
            });
        }
        all.extend(results);
    }
    Ok(Played::of(&all))
}
