//! Lists of tasks: the built-in CartPole suites with generated data, and the one model that fits a list.

use crate::error::Error;
use crate::options::Profile;
use crate::task::Task;
use dt::config::{Action, Config, Observation, Time};
use dt::data::batch::Layout;
use dt::data::episodes::{Actions, Episodes};
use dt::env::cartpole::{CartPole, CartPoleParams, Derived, STEP_LIMIT, Variant, conflict, families, variants};
use dt::env::expert::{Controller, Demonstrations, USUAL_MIX, generate};
use dt::env::{Envs, Native, ObsShape};

/// Suites whose data can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Two tasks that contradict each other and one that resembles the first: forgetting shows at once.
    Demo,
    /// The two contradicting tasks.
    CartPoleConflict,
    /// Seven variants of the physics that share one good policy.
    CartPole7,
    /// Two contradicting families of four variants each, in turn.
    CartPoleFamilies,
}

/// Every suite, in the order of help texts.
pub const SUITES: [Suite; 4] = [Suite::Demo, Suite::CartPoleConflict, Suite::CartPole7, Suite::CartPoleFamilies];

impl Suite {
    /// Name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Demo => "demo",
            Suite::CartPoleConflict => "cartpole_conflict",
            Suite::CartPole7 => "cartpole7",
            Suite::CartPoleFamilies => "cartpole_families",
        }
    }

    /// The suite of a name.
    ///
    /// # Errors
    /// [`Error::Option`] lists the names.
    pub fn parse(name: &str) -> Result<Suite, Error> {
        SUITES.into_iter().find(|s| s.name() == name).ok_or_else(|| Error::Option {
            name: "suite",
            found: name.to_owned(),
            allowed: SUITES.map(Suite::name).join(", "),
        })
    }

    /// Names, evaluation seeds and physics of its tasks.
    pub fn variants(self) -> Vec<Variant> {
        match self {
            Suite::Demo => [&conflict()[..], &variants()[6..]].concat(),
            Suite::CartPoleConflict => conflict().to_vec(),
            Suite::CartPole7 => variants().to_vec(),
            Suite::CartPoleFamilies => families().to_vec(),
        }
    }

    /// Its tasks with `episodes` generated episodes each. Deterministic in the seed.
    ///
    /// # Errors
    /// [`Error::Data`] for no episodes.
    pub fn generate(self, derived: Derived, seed: u64, episodes: usize) -> Result<Vec<Task>, Error> {
        let one = |(number, variant): (usize, Variant)| {
            let params = variant.params(derived)?;
            // Each task has data of its own, also where two variants have the same physics.
            let Demonstrations { episodes, .. } =
                generate(&params, seed.wrapping_mul(1000).wrapping_add(number as u64), episodes, &USUAL_MIX)?;
            cartpole_task(variant.name, variant.seed, episodes, params)
        };
        self.variants().into_iter().enumerate().map(one).collect()
    }
}

/// A task of logged CartPole episodes, played in the native dynamics.
///
/// # Errors
/// [`Error::Data`] for physics that do not work.
pub fn cartpole_task(name: &str, seed: u64, episodes: Episodes, params: CartPoleParams) -> Result<Task, Error> {
    CartPole::new(params)?;
    let mut task = Task::new(name, seed, episodes)?;
    task.step_limit = Some(STEP_LIMIT);
    task.environment = Some(Box::new(move |slots| {
        let envs: Result<_, _> = (0..slots).map(|_| CartPole::new(params)).collect();
        Ok(Box::new(Native::new(envs?)?) as Box<dyn Envs>)
    }));
    task.controller = Some(Box::new(move |obs: &[f32]| {
        let controller = Controller::new(&params);
        let rows = obs.chunks_exact(4);
        rows.map(|o| controller.action(&[o[0], o[1], o[2], o[3]].map(f64::from))).collect()
    }));
    Ok(task)
}

/// The standard model for a list of tasks: wide enough for every observation and action. Vector tasks of other widths
/// than the widest get a layout (their own entries first) unless they have one; profile `official` also sets the tasks'
/// scales.
///
/// # Errors
/// [`Error::Option`] if tasks have observations or actions of different kinds; [`Error::Data`] for sizes no model has.
pub fn config_for(tasks: &mut [Task], profile: Profile) -> Result<Config, Error> {
    let mixed = |name, first: String, other: &Task, found: String| Error::Option {
        name,
        found: format!("{found} in task \"{}\"", other.name),
        allowed: format!("{first} as in the first task"),
    };
    let Some(first) = tasks.first() else {
        return Err(Error::Option { name: "tasks", found: "none".into(), allowed: "at least one".into() });
    };
    let shape = |task: &Task| task.episodes.observations().shape();
    let observation = match shape(first) {
        ObsShape::Vector { .. } => {
            let mut width = 0;
            for task in tasks.iter() {
                let ObsShape::Vector { dim } = shape(task) else {
                    return Err(mixed("observations", "vectors".into(), task, "frames".into()));
                };
                width = width.max(task.layout.as_ref().map_or(dim, |layout| layout.width));
            }
            Observation::Vector(width as u32)
        }
        ObsShape::Frame { height, width } => {
            if let Some(task) = tasks.iter().find(|t| shape(t) != shape(first)) {
                let found = format!("{:?}", shape(task));
                return Err(mixed("observations", format!("frames of {height} x {width}"), task, found));
            }
            Observation::Image { channels: 4, height: height as u32, width: width as u32 }
        }
    };
    let action = match first.episodes.actions() {
        Actions::Discrete { .. } => Action::Discrete(0),
        Actions::Continuous { .. } => Action::Continuous(0),
    };
    let mut most = 1;
    for task in tasks.iter() {
        most = most.max(match (action, task.episodes.actions()) {
            (Action::Discrete(_), Actions::Discrete { count, .. }) => *count,
            (Action::Continuous(_), Actions::Continuous { dim, .. }) => *dim as u32,
            _ => return Err(mixed("actions", format!("{action:?}"), task, "another kind".into())),
        });
    }
    let longest = tasks.iter().map(|t| t.episodes.longest()).max().unwrap_or(1);
    // Not what an environment says: a model must not depend on the simulators of the machine it is trained on.
    let limit = tasks.iter().filter_map(|t| t.step_limit).max().unwrap_or(0);
    let action = match action {
        Action::Discrete(_) => Action::Discrete(most),
        Action::Continuous(_) => Action::Continuous(most),
    };
    let config = Config {
        max_ep_len: (longest as u32).max(limit) + 1,
        time: if profile == Profile::Official { Time::Learned } else { Time::Sinusoidal },
        ..Config::new(observation, action)
    };
    if let Observation::Vector(width) = observation {
        for task in tasks.iter_mut().filter(|t| t.layout.is_none()) {
            let ObsShape::Vector { dim } = task.episodes.observations().shape() else { continue };
            if dim < width as usize {
                task.layout = Some(Layout { width: width as usize, places: (0..dim).collect() });
            }
        }
        tasks.iter_mut().filter_map(|t| t.layout.as_mut()).for_each(|layout| layout.width = width as usize);
    }
    if profile == Profile::Official {
        official_scales(tasks, config.action);
    }
    config.validate()?;
    Ok(config)
}

/// The reference implementation's inputs (method.md 3.2, 3.3): with discrete actions raw observations and one scale of
/// returns over all tasks; with continuous ones standardised observations and the scale 1000.
fn official_scales(tasks: &mut [Task], action: Action) {
    let largest = tasks.iter().map(|task| task.episodes.rtg_scale()).fold(1.0, f32::max);
    for task in tasks {
        task.standardise = matches!(action, Action::Continuous(_));
        task.rtg_scale = Some(if task.standardise { 1000.0 } else { largest });
    }
}

/// The shared layout of the Panda tasks: robot (7), object (12), time (1), achieved (3) and desired goal (3), with or
/// without the time. `None` for other environments and lengths.
///
/// The environment decides, not the length alone: PickAndPlace without time is as long as Push with it.
pub fn panda_layout(env_id: &str, dim: usize) -> Option<Layout> {
    let task = env_id.rsplit(':').next()?.strip_prefix("Panda")?;
    let (robot, object) = match task.split("Dense").next()?.split('-').next()? {
        "Reach" => (6, 0),
        "Push" | "Slide" => (6, 12),
        "PickAndPlace" => (7, 12),
        _ => return None,
    };
    let time = match dim.checked_sub(robot + object + 6)? {
        0 => 20..20,
        1 => 19..20,
        _ => return None,
    };
    let places = (0..robot).chain(7..7 + object).chain(time).chain(20..26).collect();
    Some(Layout { width: 26, places })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_depend_on_what_a_panda_task_lacks() {
        let places = |env: &str, dim| panda_layout(env, dim).map(|layout| layout.places);
        let chain = |parts: &[std::ops::Range<usize>]| Some(parts.iter().cloned().flatten().collect::<Vec<usize>>());
        assert_eq!(places("PandaReachDense-v3", 12), chain(&[0..6, 20..26]));
        assert_eq!(places("PandaReach-v3", 13), chain(&[0..6, 19..26]));
        assert_eq!(places("PandaPushDense-v3", 24), chain(&[0..6, 7..19, 20..26]));
        assert_eq!(places("PandaPushDense-v3", 25), chain(&[0..6, 7..26]));
        assert_eq!(places("panda_gym:PandaPickAndPlaceDense-v3", 25), chain(&[0..19, 20..26]));
        assert_eq!(places("PandaPickAndPlaceDense-v3", 26), Some((0..26).collect()));
        for (env, dim) in
            [("PandaReachDense-v3", 24), ("PandaReachDense-v3", 3), ("PandaFlip-v3", 25), ("Reach-v1", 12)]
        {
            assert_eq!(places(env, dim), None, "{env} {dim}");
        }
    }

    #[test]
    fn the_official_profile_shares_one_scale_and_takes_raw_observations() {
        let make = || Suite::CartPoleConflict.generate(Derived::Stale, 3, 10).unwrap();
        let mut tasks = make();
        config_for(&mut tasks, Profile::Official).unwrap();
        assert!(tasks.iter().all(|t| t.rtg_scale() == 500.0 && t.moments().is_none()));
        let mut tasks = make();
        config_for(&mut tasks, Profile::Corrected).unwrap();
        assert!(tasks.iter().all(|t| t.rtg_scale() == t.episodes.rtg_scale() && t.moments().is_some()));
    }
}
