//! The newest step of several running episodes, ready to be fed to a program. Nothing is allocated after `new`.

use crate::config::{Action, Config, Observation};
use crate::data::batch::{Layout, ObsBatch};
use crate::data::episodes::Moments;
use crate::env::ObsShape;
use crate::error::{Error, Result};

/// How raw observations and returns become inputs; the same as in the task's training batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Subtracted from and divided into vector observations.
    pub moments: Option<Moments>,
    /// Places of the entries in a wider shared observation.
    pub layout: Option<Layout>,
    /// Returns-to-go are divided by this.
    pub rtg_scale: f32,
    /// Timesteps are clamped below this.
    pub max_ep_len: u32,
}

impl Preprocess {
    /// Checks that observations of a shape become a row of the model's.
    pub(crate) fn check(&self, config: &Config, shape: ObsShape) -> Result<()> {
        let same = |what: &'static str, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(Error::Size { what, expected: expected as u64, found: found as u64 }),
        };
        let (len, values) = (config.observation_len() as usize, shape.values());
        if self.max_ep_len == 0 {
            return Err(Error::Range { name: "max_ep_len".into(), value: 0.0, allowed: "max_ep_len >= 1" });
        }
        match (config.observation, shape) {
            (Observation::Vector(_), ObsShape::Vector { .. }) => {}
            (Observation::Image { height, width, .. }, ObsShape::Frame { .. }) => {
                return same("pixels of a frame", height as usize * width as usize, values);
            }
            _ => {
                let (expected, found) = ("of the model's kind", "the other kind");
                return Err(Error::Kind { what: "observations of the environment", expected, found });
            }
        }
        if let Some(moments) = &self.moments {
            same("means", values, moments.mean.len())?;
            same("standard deviations", values, moments.std.len())?;
        }
        match &self.layout {
            None if values <= len => Ok(()),
            None => same("observation", len, values),
            Some(layout) => {
                same("places of the layout", values, layout.places.len())?;
                let outside = layout.places.iter().find(|place| **place >= len);
                outside.map_or(Ok(()), |place| same("width of the layout, at most", len, place + 1))
            }
        }
    }
}

/// What a program of [`crate::decision::plan_act`] has to be told before a run; row `s` belongs to episode `s`.
#[derive(Clone, Debug)]
pub struct History {
    /// The newest observation.
    pub(crate) obs: ObsBatch,
    /// The action of the step before.
    pub(crate) executed: Executed,
    /// The newest return-to-go, scaled.
    pub(crate) rtg: Vec<f32>,
    /// The newest timestep, and the one before.
    pub(crate) timesteps: Vec<u32>,
    pub(crate) timesteps_before: Vec<u32>,
    /// Flags of a window's tokens, `[slots, 3 K]`.
    pub(crate) valid: Vec<u8>,
    /// Steps seen, at most K.
    seen: Vec<usize>,
    context: usize,
    /// Elements of an observation row, and of one frame of it (the whole row for vectors).
    obs_len: usize,
    frame_len: usize,
}

/// Executed actions.
#[derive(Clone, Debug)]
pub(crate) enum Executed {
    /// `[slots]`.
    Ids(Vec<u32>),
    /// `[slots, d]`.
    Values(Vec<f32>),
}

impl History {
    /// Empty histories for `slots` episodes.
    pub fn new(config: &Config, slots: usize) -> History {
        let context = config.context as usize;
        let obs_len = config.observation_len() as usize;
        let (obs, frame_len) = match config.observation {
            Observation::Vector(_) => (ObsBatch::Vectors(vec![0.0; slots * obs_len]), obs_len),
            Observation::Image { channels, .. } => {
                (ObsBatch::Frames(vec![0; slots * obs_len]), obs_len / channels as usize)
            }
        };
        let executed = match config.action {
            Action::Discrete(_) => Executed::Ids(vec![0; slots]),
            Action::Continuous(d) => Executed::Values(vec![0.0; slots * d as usize]),
        };
        History {
            obs,
            executed,
            rtg: vec![0.0; slots],
            timesteps: vec![0; slots],
            timesteps_before: vec![0; slots],
            valid: vec![0; slots * 3 * context],
            seen: vec![0; slots],
            context,
            obs_len,
            frame_len,
        }
    }

    /// Forgets an episode.
    pub fn clear(&mut self, slot: usize) {
        self.seen[slot] = 0;
        self.valid[slot * 3 * self.context..][..3 * self.context].fill(0);
    }

    /// Moves an episode on by one step: a raw observation (pixel values for frames), the raw return still wanted and
    /// the step's number. Every running episode moves before every run.
    pub fn observe(&mut self, slot: usize, how: &Preprocess, obs: &[f32], to_go: f32, timestep: u32) {
        let row = slot * self.obs_len..(slot + 1) * self.obs_len;
        match &mut self.obs {
            ObsBatch::Vectors(values) => {
                let to = &mut values[row];
                to.fill(0.0);
                for (j, &value) in obs.iter().enumerate() {
                    let place = how.layout.as_ref().map_or(j, |layout| layout.places[j]);
                    to[place] = match &how.moments {
                        Some(moments) => (value - moments.mean[j]) / moments.std[j],
                        None => value,
                    };
                }
            }
            ObsBatch::Frames(bytes) => {
                let to = &mut bytes[row];
                // The row still holds the previous stack: drop its oldest frame.
                to.copy_within(self.frame_len.., 0);
                let frames = if self.seen[slot] > 0 { 1 } else { self.obs_len / self.frame_len };
                for frame in to.rchunks_exact_mut(self.frame_len).take(frames) {
                    frame.iter_mut().zip(obs).for_each(|(pixel, value)| *pixel = *value as u8);
                }
            }
        }
        self.rtg[slot] = to_go / how.rtg_scale;
        self.timesteps_before[slot] = self.timesteps[slot];
        self.timesteps[slot] = timestep.min(how.max_ep_len - 1);
        self.seen[slot] = (self.seen[slot] + 1).min(self.context);
        // Two tokens of the first step, three of each later one; the oldest token of a full window stays hidden.
        let (tokens, seen) = (3 * self.context, 3 * self.seen[slot] - 1);
        self.valid[slot * tokens..][..tokens][tokens - seen..].fill(1);
    }

    /// Records the action executed in the newest step.
    pub fn act_discrete(&mut self, slot: usize, action: u32) {
        if let Executed::Ids(ids) = &mut self.executed {
            ids[slot] = action;
        }
    }

    /// Records the action executed in the newest step; missing dimensions are 0.
    pub fn act_continuous(&mut self, slot: usize, action: &[f32]) {
        if let Executed::Values(values) = &mut self.executed {
            let width = values.len() / self.seen.len();
            let row = &mut values[slot * width..][..width];
            row[..action.len()].copy_from_slice(action);
            row[action.len()..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Preprocess {
        Preprocess { moments: None, layout: None, rtg_scale: 2.0, max_ep_len: 3 }
    }

    #[test]
    fn a_window_fills_from_its_end() {
        let config = Config { context: 3, ..Config::new(Observation::Vector(1), Action::Continuous(2)) };
        let mut history = History::new(&config, 2);
        for t in 0..5u32 {
            history.observe(1, &plain(), &[t as f32], 10.0 - t as f32, t);
            let seen = 3 * (t as usize + 1).min(3) - 1;
            assert!(
                history.valid[9..]
                    .iter()
                    .enumerate()
                    .all(|(at, v)| usize::from(*v == 1) == usize::from(at + seen >= 9))
            );
            history.act_continuous(1, &[t as f32]);
        }
        assert!(matches!(&history.obs, ObsBatch::Vectors(values) if *values == [0.0, 4.0]));
        assert!(matches!(&history.executed, Executed::Values(values) if *values == [0.0, 0.0, 4.0, 0.0]));
        assert_eq!((&history.rtg[..], history.timesteps[1], history.timesteps_before[1]), (&[0.0, 3.0][..], 2, 2));
        history.clear(1);
        history.observe(1, &plain(), &[7.0], 1.0, 0);
        assert_eq!(history.valid[9..], [0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(history.valid[..9], [0; 9]);
    }

    #[test]
    fn stacks_start_with_the_first_frame_repeated() {
        let image = Observation::Image { channels: 3, height: 36, width: 36 };
        let config = Config { context: 2, ..Config::new(image, Action::Discrete(2)) };
        let mut history = History::new(&config, 1);
        let n = 36 * 36;
        let stack = |history: &History| match &history.obs {
            ObsBatch::Frames(bytes) => [0, 1, 2].map(|c| bytes[c * n]),
            ObsBatch::Vectors(_) => unreachable!("an image config"),
        };
        history.observe(0, &plain(), &vec![5.0; n], 0.0, 0);
        assert_eq!(stack(&history), [5, 5, 5]);
        history.observe(0, &plain(), &vec![6.0; n], 0.0, 1);
        history.observe(0, &plain(), &vec![7.0; n], 0.0, 2);
        assert_eq!(stack(&history), [5, 6, 7]);
        history.clear(0);
        history.observe(0, &plain(), &vec![9.0; n], 0.0, 0);
        assert_eq!(stack(&history), [9, 9, 9]);
    }
}
