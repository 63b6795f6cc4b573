//! The last K steps of several running episodes, ready to be fed to a program. Nothing is allocated after `new`.

use crate::config::{Action, Config, Observation};
use crate::data::batch::{ActionBatch, Batch, Layout, NO_TARGET, ObsBatch};
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

/// Windows of running episodes, left padded: the current step is the last.
#[derive(Clone, Debug)]
pub struct History {
    batch: Batch,
    steps: usize,
    /// Elements of an observation row, and of one frame of it (the whole row for vectors).
    obs_len: usize,
    frame_len: usize,
    action_len: usize,
}

impl History {
    /// Empty histories for `slots` episodes.
    pub fn new(config: &Config, slots: usize) -> History {
        let steps = config.context as usize;
        let rows = slots * steps;
        let obs_len = config.observation_len() as usize;
        let (obs, frame_len) = match config.observation {
            Observation::Vector(_) => (ObsBatch::Vectors(vec![0.0; rows * obs_len]), obs_len),
            Observation::Image { channels, .. } => {
                (ObsBatch::Frames(vec![0; rows * obs_len]), obs_len / channels as usize)
            }
        };
        let (actions, action_len) = match config.action {
            Action::Discrete(_) => (ActionBatch::Discrete { ids: vec![0; rows], targets: vec![NO_TARGET; rows] }, 1),
            Action::Continuous(d) => (ActionBatch::Continuous { values: vec![0.0; rows * d as usize] }, d as usize),
        };
        let batch = Batch {
            obs,
            actions,
            rtg: vec![0.0; rows],
            timesteps: vec![0; rows],
            valid: vec![0; rows],
            token_valid: vec![0; 3 * rows],
        };
        History { batch, steps, obs_len, frame_len, action_len }
    }

    /// The windows as a batch.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Forgets an episode.
    pub fn clear(&mut self, slot: usize) {
        let rows = slot * self.steps..(slot + 1) * self.steps;
        self.batch.valid[rows.clone()].fill(0);
        self.batch.token_valid[rows.start * 3..rows.end * 3].fill(0);
    }

    /// Moves an episode on by one step: a raw observation (pixel values for frames), the raw return still wanted and
    /// the step's number. Its action is 0 until [`History::act_discrete`] or [`History::act_continuous`].
    pub fn observe(&mut self, slot: usize, how: &Preprocess, obs: &[f32], to_go: f32, timestep: u32) {
        let (first, last) = (slot * self.steps, (slot + 1) * self.steps - 1);
        let shift = |width: usize| (first + 1) * width..(last + 1) * width;
        let row = last * self.obs_len;
        match &mut self.batch.obs {
            ObsBatch::Vectors(values) => {
                values.copy_within(shift(self.obs_len), first * self.obs_len);
                let to = &mut values[row..row + self.obs_len];
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
                bytes.copy_within(shift(self.obs_len), first * self.obs_len);
                let begun = self.batch.valid[last] == 1;
                let to = &mut bytes[row..row + self.obs_len];
                // The last row still holds the previous stack: drop its oldest frame.
                to.copy_within(self.frame_len.., 0);
                let frames = if begun { 1 } else { self.obs_len / self.frame_len };
                for frame in to.rchunks_exact_mut(self.frame_len).take(frames) {
                    frame.iter_mut().zip(obs).for_each(|(pixel, value)| *pixel = *value as u8);
                }
            }
        }
        match &mut self.batch.actions {
            ActionBatch::Discrete { ids, .. } => {
                ids.copy_within(shift(1), first);
                ids[last] = 0;
            }
            ActionBatch::Continuous { values } => {
                values.copy_within(shift(self.action_len), first * self.action_len);
                values[last * self.action_len..][..self.action_len].fill(0.0);
            }
        }
        self.batch.rtg.copy_within(shift(1), first);
        self.batch.rtg[last] = to_go / how.rtg_scale;
        self.batch.timesteps.copy_within(shift(1), first);
        self.batch.timesteps[last] = timestep.min(how.max_ep_len - 1);
        self.batch.valid.copy_within(shift(1), first);
        self.batch.valid[last] = 1;
        self.batch.token_valid.copy_within(shift(3), first * 3);
        self.batch.token_valid[last * 3..][..3].fill(1);
    }

    /// Records the action executed in the current step.
    pub fn act_discrete(&mut self, slot: usize, action: u32) {
        if let ActionBatch::Discrete { ids, .. } = &mut self.batch.actions {
            ids[(slot + 1) * self.steps - 1] = action;
        }
    }

    /// Records the action executed in the current step; missing dimensions are 0.
    pub fn act_continuous(&mut self, slot: usize, action: &[f32]) {
        if let ActionBatch::Continuous { values } = &mut self.batch.actions {
            let at = ((slot + 1) * self.steps - 1) * self.action_len;
            values[at..at + action.len()].copy_from_slice(action);
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
    fn a_window_slides() {
        let config = Config { context: 3, ..Config::new(Observation::Vector(1), Action::Discrete(2)) };
        let mut history = History::new(&config, 2);
        for t in 0..5u32 {
            history.observe(1, &plain(), &[t as f32], 10.0 - t as f32, t);
            history.act_discrete(1, t % 2);
        }
        let batch = history.batch();
        assert_eq!(batch.obs, ObsBatch::Vectors(vec![0.0, 0.0, 0.0, 2.0, 3.0, 4.0]));
        assert_eq!(batch.rtg[3..], [4.0, 3.5, 3.0]);
        assert_eq!(batch.timesteps[3..], [2, 2, 2]);
        assert_eq!(batch.valid, [0, 0, 0, 1, 1, 1]);
        assert!(matches!(&batch.actions, ActionBatch::Discrete { ids, .. } if ids[3..] == [0, 1, 0]));
        history.clear(1);
        history.observe(1, &plain(), &[7.0], 1.0, 0);
        assert_eq!(history.batch().valid, [0, 0, 0, 0, 0, 1]);
        assert_eq!(history.batch().token_valid[9..], [0, 0, 0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn stacks_start_with_the_first_frame_repeated() {
        let image = Observation::Image { channels: 3, height: 36, width: 36 };
        let config = Config { context: 2, ..Config::new(image, Action::Discrete(2)) };
        let mut history = History::new(&config, 1);
        let n = 36 * 36;
        let stack = |history: &History| match &history.batch().obs {
            ObsBatch::Frames(bytes) => [0, 1, 2].map(|c| bytes[(3 + c) * n]),
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
