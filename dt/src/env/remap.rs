//! Continuous actions whose dimensions mean something else: tasks that contradict each other, made from one data set.

use super::{ActionSpace, Envs, Moves, ObsShape, Step};
use crate::data::episodes::{Actions, Episodes};
use crate::error::Error;

/// Another meaning of the dimensions of an action. Done twice, each gives back what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remap {
    /// Every dimension with the opposite sign.
    Negated,
    /// The first two dimensions in each other's place.
    Swapped,
}

/// Every meaning and its name in task specs.
const NAMES: [(&str, Remap); 2] = [("negated", Remap::Negated), ("swapped", Remap::Swapped)];

impl Remap {
    /// The meaning of a name.
    ///
    /// # Errors
    /// [`Error::Unknown`] lists the names.
    pub fn parse(name: &str) -> Result<Remap, Error> {
        let known = || Error::Unknown { what: "meaning of actions", name: name.into(), known: "negated, swapped" };
        NAMES.iter().find(|(word, _)| *word == name).map(|(_, remap)| *remap).ok_or_else(known)
    }

    /// Rewrites actions `values[n, dim]` in place.
    ///
    /// # Errors
    /// [`Error::Size`] if there are not two dimensions to swap.
    pub fn apply(self, values: &mut [f32], dim: usize) -> Result<(), Error> {
        match self {
            Remap::Negated => values.iter_mut().for_each(|value| *value = -*value),
            Remap::Swapped if dim < 2 => {
                return Err(Error::Size { what: "action dimensions to swap", expected: 2, found: dim as u64 });
            }
            Remap::Swapped => values.chunks_exact_mut(dim).for_each(|row| row.swap(0, 1)),
        }
        Ok(())
    }

    /// The same trajectories, logged in this meaning.
    ///
    /// # Errors
    /// [`Error::Kind`] for discrete actions; as [`Remap::apply`].
    pub fn episodes(self, mut episodes: Episodes) -> Result<Episodes, Error> {
        match episodes.actions_mut() {
            Actions::Continuous { dim, values } => self.apply(values, *dim)?,
            Actions::Discrete { .. } => {
                let what = "actions with another meaning";
                return Err(Error::Kind { what, expected: "continuous", found: "discrete" });
            }
        }
        Ok(episodes)
    }
}

/// Environments that take their actions in another meaning.
pub struct Remapped {
    envs: Box<dyn Envs>,
    remap: Remap,
    moved: Vec<f32>,
}

impl Remapped {
    /// Environments that undo the meaning before they move.
    pub fn new(envs: Box<dyn Envs>, remap: Remap) -> Remapped {
        Remapped { envs, remap, moved: Vec::new() }
    }
}

impl Envs for Remapped {
    fn slots(&self) -> usize {
        self.envs.slots()
    }

    fn obs_shape(&self) -> ObsShape {
        self.envs.obs_shape()
    }

    fn action_space(&self) -> ActionSpace {
        self.envs.action_space()
    }

    fn step_limit(&self) -> u32 {
        self.envs.step_limit()
    }

    fn fire(&self) -> Option<u32> {
        self.envs.fire()
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), Error> {
        self.envs.reset(slots, seeds, obs)
    }

    fn step(&mut self, slots: &[usize], moves: Moves<'_>, obs: &mut [f32], steps: &mut [Step]) -> Result<(), Error> {
        let Moves::Continuous(values) = moves else {
            let what = "actions with another meaning";
            return Err(Error::Kind { what, expected: "continuous", found: "discrete" });
        };
        self.moved.clear();
        self.moved.extend_from_slice(values);
        self.remap.apply(&mut self.moved, values.len() / slots.len().max(1))?;
        self.envs.step(slots, Moves::Continuous(&self.moved), obs, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::episodes::{Observations, Rewards};
    use crate::env::{Action, Env, Native};

    /// Observes its last action.
    struct Echo;

    impl Env for Echo {
        fn obs_shape(&self) -> ObsShape {
            ObsShape::Vector { dim: 3 }
        }

        fn action_space(&self) -> ActionSpace {
            ActionSpace::Box(3)
        }

        fn step_limit(&self) -> u32 {
            5
        }

        fn reset(&mut self, _: u64, obs: &mut [f32]) -> Result<(), Error> {
            obs.fill(0.0);
            Ok(())
        }

        fn step(&mut self, action: Action<'_>, obs: &mut [f32]) -> Result<Step, Error> {
            let Action::Continuous(values) = action else { panic!("a box") };
            obs.copy_from_slice(values);
            Ok(Step::default())
        }
    }

    fn logged(values: &[f32]) -> Episodes {
        let observations = Observations::Vectors { dim: 1, values: vec![0.0; 2] };
        let actions = Actions::Continuous { dim: 3, values: values.to_vec() };
        Episodes::new(observations, actions, vec![0.0; 2], &[2], Rewards::AsStored).expect("valid")
    }

    #[test]
    fn an_environment_undoes_what_was_done_to_the_data() {
        let raw = [0.1, -0.2, 0.3, 0.4, 0.5, -0.6];
        for (remap, first) in [(Remap::Negated, [-0.1, 0.2, -0.3]), (Remap::Swapped, [-0.2, 0.1, 0.3])] {
            let episodes = remap.episodes(logged(&raw)).expect("continuous");
            let Actions::Continuous { values, .. } = episodes.actions() else { panic!("continuous") };
            assert_eq!(values[..3], first);
            let mut envs = Remapped::new(Box::new(Native::new(vec![Echo, Echo]).expect("alike")), remap);
            let (mut obs, mut steps) = ([0.0; 6], [Step::default(); 2]);
            envs.step(&[0, 1], Moves::Continuous(values), &mut obs, &mut steps).expect("moves");
            assert_eq!(obs, raw);
        }
    }

    #[test]
    fn what_has_no_other_meaning_is_refused() {
        assert!(Remap::parse("mirrored").expect_err("unknown").to_string().contains("negated, swapped"));
        assert_eq!(Remap::parse("swapped"), Ok(Remap::Swapped));
        assert!(Remap::Swapped.apply(&mut [0.5], 1).expect_err("one dimension").to_string().contains('2'));
        let observations = Observations::Vectors { dim: 1, values: vec![0.0] };
        let actions = Actions::Discrete { count: 2, ids: vec![1] };
        let discrete = Episodes::new(observations, actions, vec![0.0], &[1], Rewards::AsStored).expect("valid");
        assert!(Remap::Negated.episodes(discrete).expect_err("discrete").to_string().contains("discrete"));
        let mut envs = Remapped::new(Box::new(Native::new(vec![Echo]).expect("one")), Remap::Negated);
        assert!(envs.step(&[0], Moves::Discrete(&[0]), &mut [0.0; 3], &mut [Step::default()]).is_err());
    }
}
