//! CartPole with the arithmetic of gymnasium's `CartPole-v1`, and the task lists made of it.
//!
//! State `[x, ẋ, θ, θ̇]` in m, m/s, rad, rad/s; explicit Euler in f64, observations rounded to f32.
//!
//! Source: Barto, Sutton and Anderson (1983); operation order of Farama-Foundation/Gymnasium,
//! `gymnasium/envs/classic_control/cartpole.py`, because one rounding more changes a rollout.

use super::pcg::Pcg64;
use super::{Action, ActionSpace, Env, ObsShape, Step};
use crate::error::Error;

/// Where the cart leaves the track, in m.
pub const X_LIMIT: f64 = 2.4;
/// Where the pole counts as fallen, in rad: 12 degrees.
pub const ANGLE_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;
/// Steps of an episode.
pub const STEP_LIMIT: u32 = 500;

/// Whether the constants derived from masses and lengths follow a change of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Derived {
    /// `total_mass` and `polemass_length` are computed from the parameters.
    #[default]
    Refreshed,
    /// They keep their default values 1.1 and 0.05, as in the reference benchmark.
    Stale,
}

/// Physics of one variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CartPoleParams {
    /// m/s².
    pub gravity: f64,
    /// kg.
    pub masscart: f64,
    /// kg.
    pub masspole: f64,
    /// Half the length of the pole, m.
    pub length: f64,
    /// Push of one step, N; negative swaps the meaning of the two actions.
    pub force_mag: f64,
    /// Length of a step, s.
    pub tau: f64,
    /// How the derived constants are made.
    pub derived: Derived,
}

impl Default for CartPoleParams {
    fn default() -> Self {
        CartPoleParams {
            gravity: 9.8,
            masscart: 1.0,
            masspole: 0.1,
            length: 0.5,
            force_mag: 10.0,
            tau: 0.02,
            derived: Derived::Refreshed,
        }
    }
}

const NAMES: &str = "gravity, masscart, masspole, length, force_mag, tau";

impl CartPoleParams {
    /// The defaults with some parameters changed, by name.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is none of the six; [`Error::Range`] for a value that is not finite or absurd.
    pub fn with<'a>(changes: impl IntoIterator<Item = (&'a str, f64)>, derived: Derived) -> Result<Self, Error> {
        let mut params = CartPoleParams { derived, ..CartPoleParams::default() };
        for (name, value) in changes {
            let slot = match name {
                "gravity" => &mut params.gravity,
                "masscart" => &mut params.masscart,
                "masspole" => &mut params.masspole,
                "length" => &mut params.length,
                "force_mag" => &mut params.force_mag,
                "tau" => &mut params.tau,
                _ => return Err(Error::Unknown { what: "CartPole parameter", name: name.into(), known: NAMES }),
            };
            *slot = value;
        }
        params.check()?;
        Ok(params)
    }

    /// Refuses values no cart has: they would turn the state into NaN or the pole into a projectile.
    fn check(&self) -> Result<(), Error> {
        let rules = [
            ("gravity", self.gravity, 0.0, 1e3, "0 < gravity <= 1000 m/s2"),
            ("masscart", self.masscart, 0.0, 1e3, "0 < masscart <= 1000 kg"),
            ("masspole", self.masspole, 0.0, 1e3, "0 < masspole <= 1000 kg"),
            ("length", self.length, 0.0, 1e2, "0 < length <= 100 m"),
            ("force_mag", self.force_mag.abs(), 0.0, 1e4, "0 < |force_mag| <= 10000 N"),
            ("tau", self.tau, 0.0, 0.5, "0 < tau <= 0.5 s"),
        ];
        for (name, value, above, most, allowed) in rules {
            // NaN fails both comparisons.
            if !(value > above && value <= most) {
                let value = if name == "force_mag" { self.force_mag } else { value };
                return Err(Error::Range { name: name.into(), value, allowed });
            }
        }
        // Stale constants with a heavy pole can make the effective inertia vanish; 4/3 m_pole/m_total is below it else.
        if 4.0 / 3.0 - self.masspole / self.total_mass() <= 0.05 {
            let allowed = "masspole < 1.28 total_mass, the range of the dynamics with stale constants";
            return Err(Error::Range { name: "masspole".into(), value: self.masspole, allowed });
        }
        Ok(())
    }

    /// Mass of cart and pole, kg.
    pub fn total_mass(&self) -> f64 {
        match self.derived {
            Derived::Refreshed => self.masspole + self.masscart,
            Derived::Stale => 1.1,
        }
    }

    /// Mass of the pole times half its length, kg m.
    pub fn polemass_length(&self) -> f64 {
        match self.derived {
            Derived::Refreshed => self.masspole * self.length,
            Derived::Stale => 0.05,
        }
    }
}

/// A task of a benchmark: a name, an evaluation seed, and what differs from the default physics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// Name as in task specs and reports.
    pub name: &'static str,
    /// Task seed: evaluation episode `e` starts from `seed + e`.
    pub seed: u64,
    /// Changed parameters.
    pub changes: &'static [(&'static str, f64)],
}

impl Variant {
    /// Its physics.
    ///
    /// # Errors
    /// As [`CartPoleParams::with`]; the variants of this file have none.
    pub fn params(&self, derived: Derived) -> Result<CartPoleParams, Error> {
        CartPoleParams::with(self.changes.iter().copied(), derived)
    }
}

/// CartPole CL-7: seven variants that share one good policy, in benchmark order.
pub fn variants() -> [Variant; 7] {
    [
        Variant { name: "A_default", seed: 0, changes: &[] },
        Variant { name: "B_heavier_pole", seed: 1, changes: &[("masspole", 0.2)] },
        Variant { name: "C_stronger_gravity", seed: 2, changes: &[("gravity", 12.0)] },
        Variant { name: "D_longer_pole", seed: 3, changes: &[("length", 1.2)] },
        Variant { name: "E_weaker_force", seed: 4, changes: &[("force_mag", 7.5)] },
        Variant { name: "F_faster_dynamics", seed: 5, changes: &[("tau", 0.015)] },
        Variant { name: "G_combo", seed: 6, changes: &[("gravity", 11.0), ("length", 1.1), ("force_mag", 8.5)] },
    ]
}

/// Two tasks that contradict each other: the second swaps the actions, so no single policy solves both.
pub fn conflict() -> [Variant; 2] {
    [
        Variant { name: "P_default", seed: 0, changes: &[] },
        Variant { name: "Q_flipped_actions", seed: 1, changes: &[("force_mag", -10.0)] },
    ]
}

/// Two families that contradict each other, in turn: variants of the physics, and the like with swapped actions.
pub fn families() -> [Variant; 8] {
    [
        Variant { name: "A_default", seed: 0, changes: &[] },
        Variant { name: "A_flipped", seed: 1, changes: &[("force_mag", -10.0)] },
        Variant { name: "D_flipped", seed: 2, changes: &[("length", 1.2), ("force_mag", -10.0)] },
        Variant { name: "G_combo", seed: 3, changes: &[("gravity", 11.0), ("length", 1.1), ("force_mag", 8.5)] },
        Variant { name: "D_longer_pole", seed: 4, changes: &[("length", 1.2)] },
        Variant { name: "G_flipped", seed: 5, changes: &[("gravity", 11.0), ("length", 1.1), ("force_mag", -8.5)] },
        Variant { name: "E_weaker_force", seed: 6, changes: &[("force_mag", 7.5)] },
        Variant { name: "E_flipped", seed: 7, changes: &[("force_mag", -7.5)] },
    ]
}

/// The environment: two actions (0 pushes left, 1 right), reward 1 a step.
#[derive(Clone, Debug)]
pub struct CartPole {
    params: CartPoleParams,
    state: [f64; 4],
    steps: u32,
    running: bool,
}

impl CartPole {
    /// An environment of given physics; [`Env::reset`] starts an episode.
    ///
    /// # Errors
    /// [`Error::Range`] naming the parameter.
    pub fn new(params: CartPoleParams) -> Result<CartPole, Error> {
        params.check()?;
        Ok(CartPole { params, state: [0.0; 4], steps: 0, running: false })
    }

    /// The state in f64, which no observation shows.
    pub fn state(&self) -> [f64; 4] {
        self.state
    }

    /// Starts an episode from a given state.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a state that is not a state.
    pub fn start(&mut self, state: [f64; 4]) -> Result<(), Error> {
        if let Some(col) = state.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { what: "state", row: 0, col, value: state[col] as f32 });
        }
        *self = CartPole { params: self.params, state, steps: 0, running: true };
        Ok(())
    }

    fn observe(&self, obs: &mut [f32]) -> Result<(), Error> {
        if obs.len() != 4 {
            return Err(Error::Size { what: "observation values", expected: 4, found: obs.len() as u64 });
        }
        obs.iter_mut().zip(self.state).for_each(|(out, value)| *out = value as f32);
        Ok(())
    }
}

/// One explicit Euler step under a force in N.
fn euler(p: &CartPoleParams, [x, x_dot, theta, theta_dot]: [f64; 4], force: f64) -> [f64; 4] {
    let (sin, cos) = (theta.sin(), theta.cos());
    let (mass, pole) = (p.total_mass(), p.polemass_length());
    let push = (force + pole * (theta_dot * theta_dot) * sin) / mass;
    let theta_acc = (p.gravity * sin - cos * push) / (p.length * (4.0 / 3.0 - p.masspole * (cos * cos) / mass));
    let x_acc = push - pole * theta_acc * cos / mass;
    [x + p.tau * x_dot, x_dot + p.tau * x_acc, theta + p.tau * theta_dot, theta_dot + p.tau * theta_acc]
}

impl Env for CartPole {
    fn obs_shape(&self) -> ObsShape {
        ObsShape::Vector { dim: 4 }
    }

    fn action_space(&self) -> ActionSpace {
        ActionSpace::Discrete(2)
    }

    fn step_limit(&self) -> u32 {
        STEP_LIMIT
    }

    /// Start state uniform in `[-0.05, 0.05]⁴`, bit for bit gymnasium's for the same seed.
    fn reset(&mut self, seed: u64, obs: &mut [f32]) -> Result<(), Error> {
        let mut rng = Pcg64::new(seed);
        self.start(std::array::from_fn(|_| rng.uniform(-0.05, 0.05)))?;
        self.observe(obs)
    }

    fn step(&mut self, action: Action<'_>, obs: &mut [f32]) -> Result<Step, Error> {
        let force = match action {
            Action::Discrete(0) => -self.params.force_mag,
            Action::Discrete(1) => self.params.force_mag,
            Action::Discrete(n) => return Err(Error::Action { row: 0, value: i64::from(n), count: 2 }),
            Action::Continuous(_) => {
                return Err(Error::Kind { what: "CartPole action", expected: "discrete", found: "continuous" });
            }
        };
        if !self.running {
            return Err(Error::Order { called: "CartPole step", first: "a reset" });
        }
        self.state = euler(&self.params, self.state, force);
        self.steps += 1;
        let terminated = self.state[0].abs() > X_LIMIT || self.state[2].abs() > ANGLE_LIMIT;
        let truncated = self.steps >= STEP_LIMIT;
        self.running = !(terminated || truncated);
        self.observe(obs)?;
        Ok(Step { reward: 1.0, terminated, truncated, success: None, lives: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_constants_follow_or_stay() {
        let b = variants()[1];
        let fresh = b.params(Derived::Refreshed).expect("valid");
        let stale = b.params(Derived::Stale).expect("valid");
        assert_eq!((fresh.total_mass(), fresh.polemass_length()), (1.2, 0.1));
        assert_eq!((stale.total_mass(), stale.polemass_length()), (1.1, 0.05));
        let plain = CartPoleParams::default();
        assert_eq!((plain.total_mass(), plain.polemass_length()), (1.1, 0.05));
    }

    #[test]
    fn bad_parameters_are_named() {
        let text =
            |name, value| CartPoleParams::with([(name, value)], Derived::Refreshed).expect_err("refused").to_string();
        assert!(text("mass_pole", 0.2).contains("`mass_pole`") && text("mass_pole", 0.2).contains("masspole"));
        for (name, values) in [
            ("gravity", [f64::NAN, 0.0, -9.8, 1e9]),
            ("masscart", [f64::INFINITY, 0.0, -1.0, 1e9]),
            ("masspole", [f64::NAN, 0.0, -0.1, 1e9]),
            ("length", [f64::NAN, 0.0, -0.5, 1e9]),
            ("force_mag", [f64::NAN, 0.0, f64::NEG_INFINITY, -1e9]),
            ("tau", [f64::NAN, 0.0, -0.02, 1.0]),
        ] {
            for value in values {
                assert!(text(name, value).starts_with(&format!("{name} {value} is outside")), "{}", text(name, value));
            }
        }
        assert!(CartPoleParams::with([("masspole", 1.5)], Derived::Stale).is_err(), "inertia changes sign");
        assert!(CartPoleParams::with([("masspole", 1.5)], Derived::Refreshed).is_ok());
    }

    #[test]
    fn every_variant_is_valid() {
        for variant in variants().into_iter().chain(conflict()).chain(families()) {
            for derived in [Derived::Refreshed, Derived::Stale] {
                CartPole::new(variant.params(derived).expect("valid")).expect("valid");
            }
        }
    }

    #[test]
    fn calls_in_the_wrong_order_are_errors() {
        let mut env = CartPole::new(CartPoleParams::default()).expect("valid");
        let mut obs = [0.0; 4];
        assert!(matches!(env.step(Action::Discrete(0), &mut obs), Err(Error::Order { .. })));
        assert!(matches!(env.reset(0, &mut obs[..3]), Err(Error::Size { expected: 4, found: 3, .. })));
        env.reset(0, &mut obs).expect("reset");
        assert!(matches!(env.step(Action::Discrete(2), &mut obs), Err(Error::Action { value: 2, count: 2, .. })));
        assert!(matches!(env.step(Action::Continuous(&[0.0]), &mut obs), Err(Error::Kind { .. })));
        let mut steps = 0;
        while !env.step(Action::Discrete(1), &mut obs).expect("running").ends() {
            steps += 1;
        }
        assert!(steps < 20, "pushing one way must drop the pole");
        assert!(matches!(env.step(Action::Discrete(0), &mut obs), Err(Error::Order { .. })));
        assert!(matches!(env.start([0.0, f64::NAN, 0.0, 0.0]), Err(Error::NotFinite { col: 1, .. })));
    }
}
