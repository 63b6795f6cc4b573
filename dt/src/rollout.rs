//! Plays episodes with a bound decision program. Source: method.md section 4.

use crate::config::{Action, Config};
use crate::decision::feed_newest;
use crate::env::{Action as Move, ActionSpace, Env};
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
}

/// How an episode went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Sum of rewards.
    pub score: f64,
    /// Steps played.
    pub steps: u32,
    /// It ended by itself, not by the step limit.
    pub terminated: bool,
}

/// Plays one episode per seed, as many at a time as there are environments, greedily.
///
/// The program is one of [`crate::decision::plan_act`] with `envs.len()` slots and all weights loaded. Results are in the
/// order of the seeds. Deterministic: equal weights, seeds and number of environments give equal bits.
///
/// # Errors
/// [`Error::Kind`] if an environment's actions are not the model's; [`Error::Size`] if its observations, scales or
/// places do not fit the model's; those of the environments and of the program.
pub fn rollout<E: Env>(
    program: &mut Program,
    config: &Config,
    envs: &mut [E],
    seeds: &[u64],
    goal: &Goal,
) -> Result<Vec<Episode>> {
    let mut play = Play::new(program, config, envs, goal)?;
    let mut results = vec![Episode { score: 0.0, steps: 0, terminated: false }; seeds.len()];
    let mut next = 0;
    for slot in 0..play.envs.len() {
        next = play.start(slot, next, seeds)?;
    }
    while play.slots.iter().any(|s| s.episode.is_some()) {
        feed_newest(play.program, &play.history)?;
        play.program.run()?;
        play.program.read(output::OUTPUT, &mut play.outputs)?;
        for slot in 0..play.envs.len() {
            let Some(episode) = play.slots[slot].episode else { continue };
            if play.advance(slot)? {
                results[episode] = play.slots[slot].result;
                next = play.start(slot, next, seeds)?;
            }
        }
    }
    Ok(results)
}

struct Play<'a, E> {
    program: &'a mut Program,
    envs: &'a mut [E],
    goal: &'a Goal,
    history: History,
    slots: Vec<Slot>,
    outputs: Vec<f32>,
    obs: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Index of the seed being played.
    episode: Option<usize>,
    to_go: f32,
    result: Episode,
}

impl<'a, E: Env> Play<'a, E> {
    fn new(program: &'a mut Program, config: &Config, envs: &'a mut [E], goal: &'a Goal) -> Result<Play<'a, E>> {
        let Some(first) = envs.first() else { return Err(Error::Empty { what: "environments" }) };
        let fits = |space: ActionSpace| match (space, config.action) {
            (ActionSpace::Discrete(n), Action::Discrete(m)) => (1..=m).contains(&n),
            (ActionSpace::Box(n), Action::Continuous(m)) => (1..=m).contains(&n),
            _ => false,
        };
        if !envs.iter().all(|env| fits(env.action_space())) {
            let (expected, found) = ("at most the model's actions", "another kind or more of them");
            return Err(Error::Kind { what: "actions of the environment", expected, found });
        }
        let shape = first.obs_shape();
        if let Some(other) = envs.iter().map(E::obs_shape).find(|other| *other != shape) {
            let (expected, found) = (shape.values() as u64, other.values() as u64);
            return Err(Error::Size { what: "observations of all environments", expected, found });
        }
        goal.preprocess.check(config, shape)?;
        let empty = Slot { episode: None, to_go: 0.0, result: Episode { score: 0.0, steps: 0, terminated: false } };
        Ok(Play {
            history: History::new(config, envs.len()),
            slots: vec![empty; envs.len()],
            outputs: vec![0.0; envs.len() * config.action.outputs() as usize],
            obs: vec![0.0; shape.values()],
            program,
            envs,
            goal,
        })
    }

    /// Starts the next episode in a slot; returns the seed after it.
    fn start(&mut self, slot: usize, next: usize, seeds: &[u64]) -> Result<usize> {
        self.history.clear(slot);
        let Some(&seed) = seeds.get(next) else {
            self.slots[slot].episode = None;
            return Ok(next);
        };
        self.envs[slot].reset(seed, &mut self.obs)?;
        let result = Episode { score: 0.0, steps: 0, terminated: false };
        self.slots[slot] = Slot { episode: Some(next), to_go: self.goal.target, result };
        self.history.observe(slot, &self.goal.preprocess, &self.obs, self.goal.target, 0);
        Ok(next + 1)
    }

    /// Acts once in a slot; true at the end of its episode.
    fn advance(&mut self, slot: usize) -> Result<bool> {
        let env = &mut self.envs[slot];
        let width = self.outputs.len() / self.slots.len();
        let row = &mut self.outputs[slot * width..][..width];
        let step = match env.action_space() {
            ActionSpace::Discrete(n) => {
                let action = argmax(&row[..n as usize]);
                self.history.act_discrete(slot, action);
                env.step(Move::Discrete(action), &mut self.obs)?
            }
            ActionSpace::Box(d) => {
                let action = &mut row[..d as usize];
                action.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
                self.history.act_continuous(slot, action);
                env.step(Move::Continuous(action), &mut self.obs)?
            }
        };
        let reward = match self.goal.clip_rewards {
            true if step.reward != 0.0 => step.reward.signum(),
            _ => step.reward,
        };
        let state = &mut self.slots[slot];
        state.to_go -= reward;
        state.result.score += f64::from(reward);
        state.result.steps += 1;
        state.result.terminated = step.terminated;
        if step.ends() || state.result.steps >= env.step_limit() {
            return Ok(true);
        }
        let (to_go, timestep) = (state.to_go, state.result.steps);
        self.history.observe(slot, &self.goal.preprocess, &self.obs, to_go, timestep);
        Ok(false)
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
