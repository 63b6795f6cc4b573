//! Plays episodes with a bound decision program. Source: method.md section 4.

use crate::config::{Action, Config};
use crate::decision::feed_newest;
use crate::env::{ActionSpace, Envs, Moves, Step, counted};
use crate::error::{Error, Result};
use crate::history::{History, Preprocess};
use crate::train::output;
use autograd::engine::Program;

/// What an episode is played for.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Return asked for at the start, in raw units.
    pub target: f32,
    /// How observations and returns become inputs.
    pub preprocess: Preprocess,
    /// Rewards are reduced to their sign before they count (Atari).
    pub clip_rewards: bool,
    /// This action is forced as [`Fire`] says.
    pub fire: Option<u32>,
}

/// FIRE of a game whose data never use it, in a running episode: forced on the first decision and after every lost
/// life, as the model cannot have learned that nothing moves without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fire {
    action: Option<u32>,
    due: bool,
    lives: Option<u32>,
}

impl Fire {
    /// Before the first decision; `None` forces nothing.
    pub fn new(action: Option<u32>) -> Fire {
        Fire { action, due: true, lives: None }
    }

    /// The action that is forced now.
    pub fn forced(&self) -> Option<u32> {
        self.action.filter(|_| self.due)
    }

    /// Takes what the decision led to.
    pub fn after(&mut self, step: Step) {
        self.due = step.lives < self.lives;
        self.lives = step.lives;
    }
}

/// What is still wanted of a return in f32, of which so much is earned: rounded once, however many steps earned it.
pub fn to_go(target: f32, earned: f64) -> f32 {
    (f64::from(target) - earned) as f32
}

/// How an episode went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Episode {
    /// Sum of rewards.
    pub score: f64,
    /// Steps played.
    pub steps: u32,
    /// It ended by itself, not by the step limit.
    pub terminated: bool,
    /// The task was accomplished in some step; `None` where the environment does not define that.
    pub success: Option<bool>,
}

impl Episode {
    /// Counts a step, its reward by sign if rewards are clipped.
    pub fn count(&mut self, step: Step, clip_rewards: bool) {
        self.score += f64::from(counted(step.reward, clip_rewards));
        self.steps += 1;
        self.terminated = step.terminated;
        self.success = step.success.map(|now| now || self.success == Some(true)).or(self.success);
    }
}

/// Plays one episode per seed, as many at a time as there are environments, greedily.
///
/// The program is one of [`crate::decision::plan_act`] with as many slots as `envs` and all weights loaded. Results are
/// in the order of the seeds. Deterministic: equal weights, seeds and number of environments give equal bits.
///
/// # Errors
/// [`Error::Kind`] if the environments' actions are not the model's; [`Error::Size`] if their observations, scales or
/// places do not fit the model's; those of the environments and of the program.
pub fn rollout(
    program: &mut Program,
    config: &Config,
    envs: &mut dyn Envs,
    seeds: &[u64],
    goal: &Goal,
) -> Result<Vec<Episode>> {
    let mut play = Play::new(program, config, envs, goal)?;
    let mut results = vec![Episode::default(); seeds.len()];
    let mut next = play.start((0..play.slots.len()).collect(), 0, seeds)?;
    while !play.running.is_empty() {
        let ended = play.advance()?;
        for slot in &ended {
            results[play.slots[*slot].episode] = play.slots[*slot].result;
        }
        if !ended.is_empty() {
            next = play.start(ended, next, seeds)?;
        }
    }
    Ok(results)
}

struct Play<'a> {
    program: &'a mut Program,
    envs: &'a mut dyn Envs,
    goal: &'a Goal,
    history: History,
    slots: Vec<Slot>,
    /// Slots with an episode, ascending.
    running: Vec<usize>,
    outputs: Vec<f32>,
    /// One row per running slot, as are the next three.
    obs: Vec<f32>,
    ids: Vec<u32>,
    values: Vec<f32>,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// Index of the seed being played.
    episode: usize,
    fire: Fire,
    result: Episode,
}

impl<'a> Play<'a> {
    fn new(program: &'a mut Program, config: &Config, envs: &'a mut dyn Envs, goal: &'a Goal) -> Result<Play<'a>> {
        let slots = envs.slots();
        if slots == 0 {
            return Err(Error::Empty { what: "environments" });
        }
        let fits = match (envs.action_space(), config.action) {
            (ActionSpace::Discrete(n), Action::Discrete(m)) => (1..=m).contains(&n),
            (ActionSpace::Box(n), Action::Continuous(m)) => (1..=m).contains(&n),
            _ => false,
        };
        if !fits {
            let (expected, found) = ("at most the model's actions", "another kind or more of them");
            return Err(Error::Kind { what: "actions of the environment", expected, found });
        }
        let shape = envs.obs_shape();
        goal.preprocess.check(config, shape)?;
        Ok(Play {
            history: History::new(config, slots),
            slots: vec![Slot::default(); slots],
            running: Vec::with_capacity(slots),
            outputs: vec![0.0; slots * config.action.outputs() as usize],
            obs: vec![0.0; slots * shape.values()],
            ids: Vec::with_capacity(slots),
            values: Vec::new(),
            steps: vec![Step::default(); slots],
            program,
            envs,
            goal,
        })
    }

    /// Starts the next episodes in slots that have none, as long as there are seeds; returns the seed after them.
    fn start(&mut self, mut free: Vec<usize>, next: usize, seeds: &[u64]) -> Result<usize> {
        free.iter().for_each(|slot| self.history.clear(*slot));
        let seeds = &seeds[next.min(seeds.len())..];
        free.truncate(seeds.len());
        if free.is_empty() {
            return Ok(next);
        }
        let width = self.envs.obs_shape().values();
        let obs = &mut self.obs[..free.len() * width];
        self.envs.reset(&free, &seeds[..free.len()], obs)?;
        for (row, slot) in free.iter().enumerate() {
            let obs = &self.obs[row * width..][..width];
            self.history.observe(*slot, &self.goal.preprocess, obs, self.goal.target, 0);
            let fire = Fire::new(self.goal.fire);
            self.slots[*slot] = Slot { episode: next + row, fire, result: Episode::default() };
        }
        self.running.extend_from_slice(&free);
        self.running.sort_unstable();
        Ok(next + free.len())
    }

    /// Acts once in every running slot; returns the slots whose episode ended.
    fn advance(&mut self) -> Result<Vec<usize>> {
        feed_newest(self.program, &self.history)?;
        self.program.run()?;
        self.program.read(output::OUTPUT, &mut self.outputs)?;
        self.decide();
        let moves = match self.envs.action_space() {
            ActionSpace::Discrete(_) => Moves::Discrete(&self.ids),
            ActionSpace::Box(_) => Moves::Continuous(&self.values),
        };
        let (width, limit) = (self.envs.obs_shape().values(), self.envs.step_limit());
        let steps = &mut self.steps[..self.running.len()];
        self.envs.step(&self.running, moves, &mut self.obs[..steps.len() * width], steps)?;
        let mut ended = Vec::new();
        for (row, slot) in self.running.iter().copied().enumerate() {
            let (step, state) = (self.steps[row], &mut self.slots[slot]);
            state.result.count(step, self.goal.clip_rewards);
            state.fire.after(step);
            if step.ends() || state.result.steps >= limit {
                ended.push(slot);
                continue;
            }
            let obs = &self.obs[row * width..][..width];
            let to_go = to_go(self.goal.target, state.result.score);
            self.history.observe(slot, &self.goal.preprocess, obs, to_go, state.result.steps);
        }
        self.running.retain(|slot| !ended.contains(slot));
        Ok(ended)
    }

    /// One action for every running slot, also into its history.
    fn decide(&mut self) {
        let width = self.outputs.len() / self.slots.len();
        self.ids.clear();
        self.values.clear();
        for slot in self.running.iter().copied() {
            let row = &self.outputs[slot * width..][..width];
            match self.envs.action_space() {
                ActionSpace::Discrete(n) => {
                    let action = self.slots[slot].fire.forced().unwrap_or_else(|| argmax(&row[..n as usize]));
                    self.history.act_discrete(slot, action);
                    self.ids.push(action);
                }
                ActionSpace::Box(d) => {
                    let from = self.values.len();
                    self.values.extend(row[..d as usize].iter().map(|v| v.clamp(-1.0, 1.0)));
                    self.history.act_continuous(slot, &self.values[from..]);
                }
            }
        }
    }
}

/// Index of the largest value; the first wins ties, NaN never wins.
pub fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[best] || values[best].is_nan() && !value.is_nan() {
            best = at;
        }
    }
    best as u32
}
