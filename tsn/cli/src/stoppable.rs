//! Environments whose episodes end when the user asks to stop: playing one task can take minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tsn::dt::Error;
use tsn::dt::env::{ActionSpace, Envs, Moves, ObsShape, Step};
use tsn::task::Maker;

/// Makes what a maker makes; once `stop` is set, that fails, and so does their next step.
pub(crate) fn stoppable(maker: Maker, stop: &Arc<AtomicBool>) -> Maker {
    let stop = Arc::clone(stop);
    Box::new(move |slots| {
        go_on(&stop)?;
        Ok(Box::new(Stoppable { envs: maker(slots)?, stop: Arc::clone(&stop) }))
    })
}

/// An error once `stop` is set.
fn go_on(stop: &AtomicBool) -> Result<(), Error> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Environment { name: "the environment".into(), reason: "asked to stop".into() }),
        false => Ok(()),
    }
}

struct Stoppable {
    envs: Box<dyn Envs>,
    stop: Arc<AtomicBool>,
}

impl Envs for Stoppable {
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
        go_on(&self.stop)?;
        self.envs.reset(slots, seeds, obs)
    }

    fn step(&mut self, slots: &[usize], moves: Moves<'_>, obs: &mut [f32], steps: &mut [Step]) -> Result<(), Error> {
        go_on(&self.stop)?;
        self.envs.step(slots, moves, obs, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsn::dt::env::Native;
    use tsn::dt::env::cartpole::{CartPole, CartPoleParams};

    #[test]
    fn a_stop_ends_an_episode_that_has_begun() {
        let maker: Maker = Box::new(|slots| {
            let all = (0..slots).map(|_| CartPole::new(CartPoleParams::default())).collect::<Result<_, Error>>()?;
            Ok(Box::new(Native::new(all)?))
        });
        let stop = Arc::default();
        let mut envs = stoppable(maker, &stop)(1).expect("an environment");
        let (mut obs, mut steps) = ([0.0; 4], [Step::default()]);
        envs.reset(&[0], &[1], &mut obs).expect("a start");
        envs.step(&[0], Moves::Discrete(&[0]), &mut obs, &mut steps).expect("a step");
        stop.store(true, Ordering::Relaxed);
        let error = envs.step(&[0], Moves::Discrete(&[0]), &mut obs, &mut steps).expect_err("a stop");
        assert!(error.to_string().contains("stop"), "{error}");
        assert!(stoppable(Box::new(|_| unreachable!("after the stop")), &stop)(1).is_err());
    }
}
