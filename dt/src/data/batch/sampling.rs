//! Settings of a sampler, and what of them a dataset refuses.

use super::super::episodes::{Actions, Episodes, Moments};
use crate::env::ObsShape;
use crate::error::Error;

/// How a window is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Uniform over all windows: an episode counts `max(1, length - k + 1)` times.
    #[default]
    Windows,
    /// Uniform over episodes, then uniform over the windows of the episode (official, Atari and CartPole).
    Episodes,
}

/// Where padding goes when an episode is shorter than a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Before the first step.
    #[default]
    Left,
    /// After the last step (official, Atari and CartPole).
    Right,
}

/// Places of a dataset's observation entries in a wider observation shared by several tasks; all others are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Width of the shared observation.
    pub width: usize,
    /// For each entry of the dataset its place, all different.
    pub places: Vec<usize>,
}

/// What a batch is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Windows in a batch.
    pub b: usize,
    /// Steps in a window.
    pub k: usize,
    /// Frames in an image observation, oldest first; 1 for vectors.
    pub stack: usize,
    /// How windows are chosen.
    pub choice: Choice,
    /// Side of the padding.
    pub padding: Padding,
    /// Returns-to-go are divided by this.
    pub rtg_scale: f32,
    /// Timesteps are clamped below this.
    pub max_ep_len: u32,
    /// Subtracted from and divided into vector observations; `None` leaves them.
    pub moments: Option<Moments>,
    /// Rearranges vector observations after scaling; `None` leaves them.
    pub layout: Option<Layout>,
    /// Width of continuous actions, further dimensions 0; `None` is the dataset's.
    pub action_width: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
    /// Task number, so that two tasks with one seed see different draws.
    pub task: u32,
}

impl Sampling {
    /// `b` windows of `k` steps, every other setting at its default.
    pub fn new(b: usize, k: usize) -> Sampling {
        Sampling {
            b,
            k,
            stack: 1,
            choice: Choice::default(),
            padding: Padding::default(),
            rtg_scale: 1.0,
            max_ep_len: u32::MAX,
            moments: None,
            layout: None,
            action_width: None,
            seed: 0,
            task: 0,
        }
    }
}

pub(super) fn check(data: &Episodes, how: &Sampling) -> Result<(), Error> {
    // 2^20 keeps every array index of a batch far from overflow.
    for (name, value) in [("b", how.b), ("k", how.k), ("stack", how.stack)] {
        if !(1..=1 << 20).contains(&value) {
            return Err(Error::Range { name: name.into(), value: value as f64, allowed: "1..=1048576" });
        }
    }
    if !(how.rtg_scale.is_finite() && how.rtg_scale > 0.0) {
        let value = f64::from(how.rtg_scale);
        return Err(Error::Range { name: "rtg_scale".into(), value, allowed: "0 < rtg_scale < inf" });
    }
    if how.max_ep_len == 0 {
        return Err(Error::Range { name: "max_ep_len".into(), value: 0.0, allowed: "max_ep_len >= 1" });
    }
    match data.observations().shape() {
        ObsShape::Vector { dim } => check_vectors(dim, how)?,
        ObsShape::Frame { .. } if how.moments.is_some() || how.layout.is_some() => {
            let expected = "vectors, which alone have moments and a layout";
            return Err(Error::Kind { what: "observations", expected, found: "frames" });
        }
        ObsShape::Frame { .. } => {}
    }
    match (data.actions(), how.action_width) {
        (Actions::Continuous { dim, .. }, Some(width)) if width < *dim => {
            let (expected, found) = (*dim as u64, width as u64);
            Err(Error::Size { what: "action_width, at least the dataset's", expected, found })
        }
        (Actions::Discrete { .. }, Some(_)) => {
            Err(Error::Kind { what: "actions", expected: "continuous for an action_width", found: "discrete" })
        }
        _ => Ok(()),
    }
}

fn check_vectors(dim: usize, how: &Sampling) -> Result<(), Error> {
    if how.stack != 1 {
        let value = how.stack as f64;
        return Err(Error::Range { name: "stack".into(), value, allowed: "1 for vector observations" });
    }
    if let Some(moments) = &how.moments {
        for (what, values) in [("means", &moments.mean), ("standard deviations", &moments.std)] {
            if values.len() != dim {
                return Err(Error::Size { what, expected: dim as u64, found: values.len() as u64 });
            }
            if let Some(col) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::NotFinite { what, row: 0, col, value: values[col] });
            }
        }
        if let Some(&std) = moments.std.iter().find(|&&std| std <= 0.0) {
            return Err(Error::Range { name: "std".into(), value: f64::from(std), allowed: "std > 0" });
        }
    }
    if let Some(layout) = &how.layout {
        if layout.places.len() != dim {
            let (expected, found) = (dim as u64, layout.places.len() as u64);
            return Err(Error::Size { what: "places of the layout", expected, found });
        }
        let mut taken = layout.places.clone();
        taken.sort_unstable();
        let twice = taken.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        if let Some(place) = taken.last().copied().filter(|&p| p >= layout.width).or(twice) {
            let allowed = "places below the layout's width, each used once";
            return Err(Error::Range { name: "place".into(), value: place as f64, allowed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::tests::numbered;
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let data = numbered();
        let text = |chosen: &[usize], how| Sampler::new(&data, chosen, how).expect_err("refused").to_string();
        let plain = || Sampling::new(2, 2);
        assert_eq!(text(&[], plain()), "no episodes to sample from: at least one is needed");
        assert!(text(&[5], plain()).starts_with("episode 5 is outside"));
        assert!(text(&[0], Sampling::new(0, 2)).starts_with("b 0 is outside"));
        assert!(text(&[0], Sampling::new(2, usize::MAX)).starts_with("k "));
        assert!(text(&[0], Sampling { stack: 4, ..plain() }).starts_with("stack 4 is outside"));
        assert!(text(&[0], Sampling { rtg_scale: 0.0, ..plain() }).starts_with("rtg_scale 0 is outside"));
        assert!(text(&[0], Sampling { rtg_scale: f32::NAN, ..plain() }).starts_with("rtg_scale NaN"));
        assert!(text(&[0], Sampling { max_ep_len: 0, ..plain() }).starts_with("max_ep_len 0"));
        assert!(text(&[0], Sampling { action_width: Some(3), ..plain() }).starts_with("actions: expected continuous"));
        let moments = |mean: &[f32], std: &[f32]| Some(Moments { mean: mean.to_vec(), std: std.to_vec() });
        let with = |moments| Sampling { moments, ..plain() };
        assert_eq!(text(&[0], with(moments(&[0.0], &[1.0; 2]))), "means: expected 2, found 1");
        assert!(text(&[0], with(moments(&[0.0; 2], &[1.0, 0.0]))).starts_with("std 0 is outside"));
        let layout =
            |width, places: &[usize]| Sampling { layout: Some(Layout { width, places: places.to_vec() }), ..plain() };
        assert!(text(&[0], layout(3, &[1, 1])).starts_with("place 1 is outside"));
        assert!(text(&[0], layout(2, &[0, 2])).starts_with("place 2 is outside"));
    }
}
