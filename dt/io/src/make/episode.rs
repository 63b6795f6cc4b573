//! One episode: the pilot decides, the tier disturbs, what happened is kept.

use super::{Error, Pilot, Tier};
use crate::bridge::Bridge;
use dt::autograd::engine::kernels::philox::{Rng, Stream};
use dt::env::{ActionSpace, Envs, Moves, ObsShape, Step};

/// What an episode left; of observations and actions the kind that the environment has.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    pub obs: Vec<f32>,
    pub pixels: Vec<u8>,
    pub ids: Vec<u32>,
    pub values: Vec<f32>,
    pub rewards: Vec<f32>,
    pub terminated: bool,
    pub success: Option<bool>,
    pub lives: Option<Vec<u8>>,
}

/// Plays an episode of at most `limit` steps; nothing if `go_on`, asked after every step, says no.
pub(super) fn play(
    envs: &mut Bridge,
    pilot: Pilot,
    tier: &Tier,
    seed: u64,
    number: u32,
    limit: u32,
    go_on: impl Fn() -> bool,
) -> Result<Option<Taken>, Error> {
    // As in dt::env::expert: place 0 deals the tiers, every episode has its own.
    let mut rng = Rng::new(seed, Stream::Data, [0, number + 1]);
    let frames = matches!(envs.obs_shape(), ObsShape::Frame { .. });
    let mut obs = vec![0.0; envs.obs_shape().values()];
    let (mut taken, mut steps) = (Taken::default(), [Step::default()]);
    let mut lives = Vec::new();
    envs.reset(&[0], &[rng.u64()], &mut obs)?;
    loop {
        match frames {
            // Whole numbers from 0 to 255 already.
            true => taken.pixels.extend(obs.iter().map(|pixel| *pixel as u8)),
            false => taken.obs.extend_from_slice(&obs),
        }
        match (pilot, envs.action_space()) {
            (Pilot::Planner, ActionSpace::Discrete(n)) => {
                let random = rng.unit() < tier.random;
                let drawn = rng.below(u64::from(n)) as u32;
                // A planner that is never listened to is not asked.
                let advice = if tier.random < 1.0 { envs.advise(&[0])?[0] } else { drawn };
                let id = if random { drawn } else { advice };
                taken.ids.push(id);
                envs.step(&[0], Moves::Discrete(&[id]), &mut obs, &mut steps)?;
            }
            (Pilot::Arm(arm), _) => {
                let mut action = vec![0.0; arm.actions()];
                arm.act(&obs, &mut action);
                disturb(&mut action, tier, &mut rng);
                taken.values.extend_from_slice(&action);
                envs.step(&[0], Moves::Continuous(&action), &mut obs, &mut steps)?;
            }
            (Pilot::Planner, ActionSpace::Box(_)) => {
                return Err(Error::NoController { env: "a game with continuous actions".into() });
            }
        }
        let step = steps[0];
        taken.rewards.push(step.reward);
        taken.terminated = step.terminated;
        taken.success = step.success.map(|now| now || taken.success == Some(true)).or(taken.success);
        lives.extend(step.lives.map(|lives| lives.min(255) as u8));
        if !go_on() {
            return Ok(None);
        }
        if step.ends() || taken.rewards.len() as u64 >= u64::from(limit) {
            break;
        }
    }
    // Those after a step are those before the next.
    if lives.len() == taken.rewards.len() {
        lives.rotate_right(1);
        lives[0] = lives.get(1).copied().unwrap_or(lives[0]);
        taken.lives = Some(lives);
    }
    Ok(Some(taken))
}

/// Adds the tier's noise to an action, or draws another one, and keeps it inside -1 to 1.
fn disturb(action: &mut [f32], tier: &Tier, rng: &mut Rng) {
    let random = rng.unit() < tier.random;
    for value in action {
        let noise = tier.noise * rng.normal();
        let drawn = rng.uniform(-1.0, 1.0);
        *value = if random { drawn as f32 } else { (f64::from(*value) + noise).clamp(-1.0, 1.0) as f32 };
    }
}
