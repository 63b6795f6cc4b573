//! A controller for CartPole and the demonstrations made with it.
//!
//! The controller is the discrete linear-quadratic regulator of the CartPole linearised at rest, turned into two
//! actions by its sign. Demonstrations disturb it: each action is replaced by a uniform random one with a probability
//! that differs between episodes, so that a dataset holds good and bad episodes and a return to condition on.

use autograd::engine::kernels::philox::{Rng, Stream};

use super::cartpole::{CartPole, CartPoleParams, STEP_LIMIT};
use super::{Action, Env};
use crate::data::episodes::{Actions, Episodes, Observations, Rewards};
use crate::error::Error;

/// State cost of the regulator, diagonal: m², (m/s)², rad², (rad/s)².
const STATE_COST: [f64; 4] = [1.0, 1.0, 10.0, 1.0];
/// Cost of a force, 1/N².
const FORCE_COST: f64 = 0.01;

/// Sign of a linear feedback on the state: `force = -gain · state`, pushed with the action that has its sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controller {
    /// N per m, m/s, rad, rad/s.
    pub gain: [f64; 4],
    flipped: bool,
}

impl Controller {
    /// The regulator of given physics, by iterating the Riccati equation to its fixed point.
    ///
    /// With `A`, `B` of `next = A state + B force` (explicit Euler, linearised at rest) the cost-to-go `P` follows
    /// `P ← Q + K R Kᵀ + Cᵀ P C`, `C = A - B K`, `K = (R + Bᵀ P B)⁻¹ Bᵀ P A`. This form keeps `P` symmetric; the
    /// shorter `Q + Aᵀ P C` lets rounding grow along the falling pole.
    pub fn new(params: &CartPoleParams) -> Controller {
        let (a, b) = linearised(params);
        let mut cost: [[f64; 4]; 4] =
            std::array::from_fn(|i| std::array::from_fn(|j| if i == j { STATE_COST[i] } else { 0.0 }));
        let mut gain = [0.0; 4];
        // Converges within a few thousand rounds for every admissible step length; the bound only ends a bad case.
        for _ in 0..20_000 {
            let cost_b: [f64; 4] = std::array::from_fn(|i| dot(&cost[i], &b));
            let scale = FORCE_COST + dot(&b, &cost_b);
            let next_gain: [f64; 4] = std::array::from_fn(|j| (0..4).map(|i| cost_b[i] * a[i][j]).sum::<f64>() / scale);
            let closed: [[f64; 4]; 4] = std::array::from_fn(|i| std::array::from_fn(|j| a[i][j] - b[i] * next_gain[j]));
            let ahead: [[f64; 4]; 4] =
                std::array::from_fn(|i| std::array::from_fn(|j| (0..4).map(|k| cost[i][k] * closed[k][j]).sum()));
            cost = std::array::from_fn(|i| {
                std::array::from_fn(|j| {
                    let own = if i == j { STATE_COST[i] } else { 0.0 };
                    own + FORCE_COST * next_gain[i] * next_gain[j]
                        + (0..4).map(|k| closed[k][i] * ahead[k][j]).sum::<f64>()
                })
            });
            let moved = (0..4).map(|j| (next_gain[j] - gain[j]).abs()).fold(0.0, f64::max);
            gain = next_gain;
            if moved < 1e-11 * gain.iter().fold(0.0, |most: f64, g| most.max(g.abs())) {
                break;
            }
        }
        Controller { gain, flipped: params.force_mag < 0.0 }
    }

    /// A controller with a given gain.
    pub fn from_gain(gain: [f64; 4], params: &CartPoleParams) -> Controller {
        Controller { gain, flipped: params.force_mag < 0.0 }
    }

    /// The action of a state: 1 when the force wanted is positive, the other way round where the actions are swapped.
    pub fn action(&self, state: &[f64; 4]) -> u32 {
        u32::from((-dot(&self.gain, state) > 0.0) != self.flipped)
    }
}

fn dot(x: &[f64; 4], y: &[f64; 4]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// `A` and `B` of `next = A state + B force` for small angles and speeds.
fn linearised(p: &CartPoleParams) -> ([[f64; 4]; 4], [f64; 4]) {
    let (mass, pole) = (p.total_mass(), p.polemass_length());
    let inertia = p.length * (4.0 / 3.0 - p.masspole / mass);
    // θ̈ = (g θ - F/m) / inertia,  ẍ = F/m - pole θ̈ / m
    let (angle_by_angle, angle_by_force) = (p.gravity / inertia, -1.0 / (mass * inertia));
    let (x_by_angle, x_by_force) = (-pole * angle_by_angle / mass, 1.0 / mass - pole * angle_by_force / mass);
    let t = p.tau;
    let a =
        [[1.0, t, 0.0, 0.0], [0.0, 1.0, t * x_by_angle, 0.0], [0.0, 0.0, 1.0, t], [0.0, 0.0, t * angle_by_angle, 1.0]];
    (a, [0.0, t * x_by_force, 0.0, t * angle_by_force])
}

/// A share of the episodes and the probability with which the controller's action is kept in them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Probability that a step does the controller's action.
    pub keep: f64,
    /// Weight of this share; episodes are divided in proportion.
    pub weight: f64,
}

/// The usual mix: a tenth undisturbed, half at 0.7, a fifth at 0.4, a fifth random.
pub const USUAL_MIX: [Share; 4] = [
    Share { keep: 1.0, weight: 0.1 },
    Share { keep: 0.7, weight: 0.5 },
    Share { keep: 0.4, weight: 0.2 },
    Share { keep: 0.0, weight: 0.2 },
];

/// Episodes of a disturbed controller, with what the undisturbed one would have done.
#[derive(Clone, Debug)]
pub struct Demonstrations {
    /// The data to learn from.
    pub episodes: Episodes,
    /// For each episode the probability with which the controller's action was kept.
    pub keep: Vec<f64>,
    /// For each row the undisturbed controller's action.
    pub controller: Vec<u32>,
}

/// Makes `count` episodes of at most 500 steps; equal seeds give equal bits.
///
/// Start states, shuffling and disturbances come from the data stream of `seed`, apart from all evaluation seeds.
///
/// # Errors
/// [`Error::Empty`] without episodes or shares, [`Error::Range`] for a probability outside `0..=1`, a weight that is
/// not positive and finite, or bad physics.
pub fn generate(params: &CartPoleParams, seed: u64, count: usize, mix: &[Share]) -> Result<Demonstrations, Error> {
    generate_up_to(STEP_LIMIT, params, seed, count, mix)
}

/// The same, each episode cut after `most` steps.
///
/// # Errors
/// As [`generate`], and [`Error::Empty`] for no steps.
pub fn generate_up_to(
    most: u32,
    params: &CartPoleParams,
    seed: u64,
    count: usize,
    mix: &[Share],
) -> Result<Demonstrations, Error> {
    if most == 0 {
        return Err(Error::Empty { what: "steps to generate" });
    }
    let mut env = CartPole::new(*params)?;
    let controller = Controller::new(params);
    let keep = shuffled_shares(seed, count, mix)?;

    let (mut obs, mut ids, mut lengths, mut undisturbed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (episode, &keep) in keep.iter().enumerate() {
        // Place 0 of the stream shuffles; every episode has its own place, so one more episode moves no other.
        let mut rng = Rng::new(seed, Stream::Data, [0, episode as u32 + 1]);
        let mut seen = [0.0f32; 4];
        env.reset(rng.u64(), &mut seen)?;
        let mut length = 0u32;
        loop {
            let wanted = controller.action(&env.state());
            let action = if rng.unit() < keep { wanted } else { rng.below(2) as u32 };
            obs.extend_from_slice(&seen);
            ids.push(action);
            undisturbed.push(wanted);
            length += 1;
            if env.step(Action::Discrete(action), &mut seen)?.ends() || length == most {
                break;
            }
        }
        debug_assert!(length <= STEP_LIMIT, "the environment truncates at its limit");
        lengths.push(length);
    }
    let rewards = vec![1.0; ids.len()];
    let episodes = Episodes::new(
        Observations::Vectors { dim: 4, values: obs },
        Actions::Discrete { count: 2, ids },
        rewards,
        &lengths,
        Rewards::AsStored,
    )?;
    Ok(Demonstrations { episodes, keep, controller: undisturbed })
}

/// One keep probability per episode: shares in proportion (largest remainders), then shuffled.
fn shuffled_shares(seed: u64, count: usize, mix: &[Share]) -> Result<Vec<f64>, Error> {
    if count == 0 {
        return Err(Error::Empty { what: "episodes to generate" });
    }
    if mix.is_empty() {
        return Err(Error::Empty { what: "shares in the mix" });
    }
    for share in mix {
        if !(0.0..=1.0).contains(&share.keep) {
            return Err(Error::Range { name: "keep".into(), value: share.keep, allowed: "0..=1" });
        }
        if !(share.weight > 0.0 && share.weight <= 1e6) {
            return Err(Error::Range { name: "weight".into(), value: share.weight, allowed: "0 < weight <= 1000000" });
        }
    }
    let weights: Vec<f64> = mix.iter().map(|share| share.weight).collect();
    Ok(deal(seed, count, &weights).into_iter().map(|i| mix[i].keep).collect())
}

/// A number of a share for each of `count` episodes: as many of each as its weight says (largest remainders), shuffled by
/// the data stream of `seed`. Weights must be positive and finite, and there must be one.
pub fn deal(seed: u64, count: usize, weights: &[f64]) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    // A hair is added before rounding down, because 0.7 / (0.7 + 0.3) of 10 must be 7.
    let exact = |weight: f64| weight / total * count as f64 + 1e-9;
    let mut counts: Vec<usize> = weights.iter().map(|weight| exact(*weight) as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&i, &j| exact(weights[j]).fract().total_cmp(&exact(weights[i]).fract()));
    let missing = count.saturating_sub(counts.iter().sum());
    order.iter().cycle().take(missing).for_each(|&i| counts[i] += 1);

    let mut dealt: Vec<usize> =
        counts.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n)).take(count).collect();
    let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
    for last in (1..dealt.len()).rev() {
        dealt.swap(last, rng.below(last as u64 + 1) as usize);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::super::cartpole::{Derived, conflict, families, variants};
    use super::*;

    #[test]
    fn undisturbed_controller_balances_every_variant() {
        for variant in variants().into_iter().chain(conflict()).chain(families()) {
            for derived in [Derived::Refreshed, Derived::Stale] {
                let params = variant.params(derived).expect("valid");
                let mut env = CartPole::new(params).expect("valid");
                let controller = Controller::new(&params);
                for seed in 0..20 {
                    let mut obs = [0.0; 4];
                    env.reset(seed, &mut obs).expect("reset");
                    let mut steps = 0;
                    loop {
                        steps += 1;
                        let action = controller.action(&env.state());
                        if env.step(Action::Discrete(action), &mut obs).expect("running").ends() {
                            break;
                        }
                    }
                    assert_eq!(steps, STEP_LIMIT, "{} {derived:?} seed {seed}", variant.name);
                }
            }
        }
    }

    /// The linear model against a difference quotient of the real dynamics.
    #[test]
    fn linearisation_matches_the_environment() {
        for variant in variants() {
            for derived in [Derived::Refreshed, Derived::Stale] {
                let params = variant.params(derived).expect("valid");
                let (a, b) = linearised(&params);
                let small = CartPoleParams { force_mag: 1e-6, ..params };
                let mut env = CartPole::new(small).expect("valid");
                let mut obs = [0.0; 4];
                for j in 0..4 {
                    let mut ends = [[0.0; 4]; 2];
                    for (end, sign) in ends.iter_mut().zip([-1.0, 1.0]) {
                        let mut state = [0.0; 4];
                        state[j] = sign * 1e-6;
                        env.start(state).expect("finite");
                        env.step(Action::Discrete(1), &mut obs).expect("running");
                        *end = env.state();
                    }
                    for i in 0..4 {
                        let slope = (ends[1][i] - ends[0][i]) / 2e-6;
                        assert!((slope - a[i][j]).abs() < 1e-6, "{} a[{i}][{j}]: {slope}", variant.name);
                    }
                }
                env.start([0.0; 4]).expect("finite");
                env.step(Action::Discrete(1), &mut obs).expect("running");
                for (got, want) in env.state().iter().zip(b) {
                    assert!((got / 1e-6 - want).abs() < 1e-6, "{} {got} for {want}", variant.name);
                }
            }
        }
    }

    #[test]
    fn shares_are_exact_and_shuffled() {
        let keep = shuffled_shares(3, 200, &USUAL_MIX).expect("valid");
        for (share, n) in USUAL_MIX.iter().zip([20, 100, 40, 40]) {
            assert_eq!(keep.iter().filter(|&&k| k == share.keep).count(), n);
        }
        assert!(keep[..20].iter().any(|&k| k != 1.0), "not shuffled");
        for count in 1..40 {
            assert_eq!(shuffled_shares(3, count, &USUAL_MIX).expect("valid").len(), count);
        }
        assert!(shuffled_shares(3, 0, &USUAL_MIX).is_err() && shuffled_shares(3, 1, &[]).is_err());
        assert!(shuffled_shares(3, 1, &[Share { keep: 1.5, weight: 1.0 }]).is_err());
        assert!(shuffled_shares(3, 1, &[Share { keep: 0.5, weight: f64::NAN }]).is_err());
    }

    #[test]
    fn generation_repeats_and_records_the_controller() {
        let params = CartPoleParams::default();
        let one = generate(&params, 9, 20, &USUAL_MIX).expect("valid");
        let two = generate(&params, 9, 20, &USUAL_MIX).expect("valid");
        assert_eq!(one.episodes, two.episodes);
        assert_ne!(one.episodes, generate(&params, 10, 20, &USUAL_MIX).expect("valid").episodes);
        let cut = generate_up_to(9, &params, 9, 20, &USUAL_MIX).expect("valid");
        for episode in 0..20 {
            let (whole, cut) = (one.episodes.rows_of(episode), cut.episodes.rows_of(episode));
            assert_eq!(cut.len(), whole.len().min(9));
        }
        assert!(generate_up_to(0, &params, 9, 20, &USUAL_MIX).is_err());
        let Actions::Discrete { ids, .. } = one.episodes.actions() else { panic!("CartPole is discrete") };
        let mut agreement = [0usize; 2];
        for (episode, &keep) in one.keep.iter().enumerate() {
            let rows = one.episodes.rows_of(episode);
            if keep == 1.0 {
                assert_eq!((rows.len(), &ids[rows.clone()]), (500, &one.controller[rows]));
            } else if keep == 0.7 {
                agreement[0] += rows.clone().filter(|&row| ids[row] == one.controller[row]).count();
                agreement[1] += rows.len();
            }
        }
        // Kept with 0.7, and half of the random ones agree by chance.
        let share = agreement[0] as f64 / agreement[1] as f64;
        assert!((share - 0.85).abs() < 0.03, "agreement {share}");
    }
}
