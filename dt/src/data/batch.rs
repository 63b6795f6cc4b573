//! Windows of K steps, drawn and written into staging arrays.
//!
//! A batch depends on `(seed, task, step)` only: any step's batch can be made alone, so a resumed run continues with
//! the bits of an uninterrupted one. Filling allocates nothing.

use autograd::engine::kernels::philox::{Rng, Stream};

use super::episodes::{Actions, Episodes};
use crate::env::ObsShape;
use crate::error::Error;
use sampling::check;

mod fill;
mod sampling;

pub use sampling::{Choice, Layout, Padding, Sampling};

/// Target id of a padded step: no class, so no loss.
pub const NO_TARGET: u32 = u32::MAX;

/// Observations of a batch; rows are steps.
#[derive(Clone, Debug, PartialEq)]
pub enum ObsBatch {
    /// `[b*k, width]`, scaled; padded rows are 0.
    Vectors(Vec<f32>),
    /// `[b*k, stack*height*width]`, 0 to 255, oldest frame first; padded rows are 0.
    Frames(Vec<u8>),
}

/// Actions of a batch; rows are steps.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionBatch {
    /// Ids go in, targets are compared with.
    Discrete {
        /// `[b*k]`, 0 at padding.
        ids: Vec<u32>,
        /// `[b*k]`, [`NO_TARGET`] at padding.
        targets: Vec<u32>,
    },
    /// Actions are their own targets; whether a row counts is in [`Batch::valid`].
    Continuous {
        /// `[b*k, width]`, 0 at padding.
        values: Vec<f32>,
    },
}

/// Staging arrays of `b` windows of `k` steps; row `w*k + i` is step `i` of window `w`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Observations.
    pub obs: ObsBatch,
    /// Actions and targets.
    pub actions: ActionBatch,
    /// `[b*k]` returns-to-go over `rtg_scale`, 0 at padding.
    pub rtg: Vec<f32>,
    /// `[b*k]` step number in the episode, clamped, 0 at padding.
    pub timesteps: Vec<u32>,
    /// `[b*k]` 1 for a real step, 0 for padding.
    pub valid: Vec<u8>,
    /// `[b, 3*k]` the same for each step's three tokens.
    pub token_valid: Vec<u8>,
}

/// Draws windows from some episodes of a dataset.
#[derive(Clone, Debug)]
pub struct Sampler<'e> {
    data: &'e Episodes,
    how: Sampling,
    chosen: Vec<usize>,
    /// Windows up to and including each chosen episode.
    windows: Vec<u64>,
    /// Episode and first row of the consecutive windows that cover each chosen row once.
    tiles: Vec<(usize, usize)>,
}

impl<'e> Sampler<'e> {
    /// A sampler over the episodes in `chosen`.
    ///
    /// # Errors
    /// [`Error::Empty`] without episodes, [`Error::Range`] naming a bad setting or episode, [`Error::Size`] and
    /// [`Error::Kind`] where settings do not fit the data.
    pub fn new(data: &'e Episodes, chosen: &[usize], how: Sampling) -> Result<Sampler<'e>, Error> {
        check(data, &how)?;
        if chosen.is_empty() {
            return Err(Error::Empty { what: "episodes to sample from" });
        }
        if let Some(&episode) = chosen.iter().find(|&&episode| episode >= data.count()) {
            let allowed = "the episodes of the dataset";
            return Err(Error::Range { name: "episode".into(), value: episode as f64, allowed });
        }
        let mut total = 0;
        let windows = chosen.iter().map(|&episode| {
            total += windows_of(data.rows_of(episode).len(), how.k);
            total
        });
        let windows = windows.collect();
        let tile = |&episode: &usize| data.rows_of(episode).step_by(how.k).map(move |row| (episode, row));
        let tiles = chosen.iter().flat_map(tile).collect();
        Ok(Sampler { data, how, chosen: chosen.to_vec(), windows, tiles })
    }

    /// Staging arrays of the right size.
    pub fn batch(&self) -> Batch {
        let rows = self.how.b * self.how.k;
        let obs = match self.data.observations().shape() {
            ObsShape::Vector { .. } => ObsBatch::Vectors(vec![0.0; rows * self.obs_width()]),
            ObsShape::Frame { .. } => ObsBatch::Frames(vec![0; rows * self.obs_width()]),
        };
        let actions = match self.data.actions() {
            Actions::Discrete { .. } => ActionBatch::Discrete { ids: vec![0; rows], targets: vec![NO_TARGET; rows] },
            Actions::Continuous { .. } => ActionBatch::Continuous { values: vec![0.0; rows * self.action_width()] },
        };
        Batch {
            obs,
            actions,
            rtg: vec![0.0; rows],
            timesteps: vec![0; rows],
            valid: vec![0; rows],
            token_valid: vec![0; 3 * rows],
        }
    }

    /// Values of one observation in a batch: the layout's width, or `stack * height * width`.
    pub fn obs_width(&self) -> usize {
        match &self.how.layout {
            Some(layout) => layout.width,
            None => self.data.observations().shape().values() * self.how.stack,
        }
    }

    /// Values of one continuous action in a batch; 1 for discrete ones.
    pub fn action_width(&self) -> usize {
        match self.data.actions() {
            Actions::Discrete { .. } => 1,
            Actions::Continuous { dim, .. } => self.how.action_width.unwrap_or(*dim),
        }
    }

    /// Windows there are to draw from.
    pub fn window_count(&self) -> u64 {
        self.windows.last().copied().unwrap_or(0)
    }

    /// Tells whether every batch so far holds what the dataset holds: rows on disk may turn unreadable.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn intact(&self) -> Result<(), Error> {
        self.data.intact()
    }

    /// Draws the batch of a training step.
    ///
    /// # Panics
    /// If `batch` comes from a sampler of other sizes.
    pub fn fill(&self, batch: &mut Batch, step: u32) {
        let mut rng = Rng::new(self.how.seed, Stream::Batch, [self.how.task, step]);
        for slot in 0..self.how.b {
            self.fill_slot(batch, slot, &mut rng);
        }
    }

    /// Draws one window into a slot of a batch that several samplers share.
    ///
    /// # Panics
    /// If `slot` is not below `b` or `batch` comes from a sampler of other sizes.
    pub fn fill_slot(&self, batch: &mut Batch, slot: usize, rng: &mut Rng) {
        let (episode, start) = self.draw(rng);
        self.write(batch, slot, episode, start);
    }

    /// How often a window is drawn from here where several samplers share a batch: once for every window, or for every
    /// episode if those are drawn uniformly.
    pub fn weight(&self) -> u64 {
        match self.how.choice {
            Choice::Windows => self.window_count(),
            Choice::Episodes => self.chosen.len() as u64,
        }
    }

    /// Batches that [`Sampler::fill_tile`] has.
    pub fn tile_batches(&self) -> usize {
        self.tiles.len().div_ceil(self.how.b)
    }

    /// Batch `index` of a fixed list that contains each chosen row exactly once: every episode cut into consecutive
    /// windows. For measuring on held-out episodes; slots of the last batch that are left over are padding.
    ///
    /// # Panics
    /// If `index` is not below [`Sampler::tile_batches`] or `batch` comes from a sampler of other sizes.
    pub fn fill_tile(&self, batch: &mut Batch, index: usize) {
        let tiles = &self.tiles[index * self.how.b..];
        for slot in 0..self.how.b {
            match tiles.get(slot) {
                Some(&(episode, row)) => self.write(batch, slot, episode, row - self.data.rows_of(episode).start),
                None => self.clear(batch, slot, 0, self.how.k),
            }
        }
    }

    /// Row of the dataset behind each step of [`Sampler::fill_tile`]'s batch `index`; `None` at padding.
    pub fn tile_rows(&self, index: usize) -> impl Iterator<Item = Option<usize>> + '_ {
        let k = self.how.k;
        (0..self.how.b).flat_map(move |slot| {
            let tile = self.tiles.get(index * self.how.b + slot).copied();
            (0..k).map(move |i| {
                let (episode, row) = tile?;
                let real = k.min(self.data.rows_of(episode).end - row);
                let at = if self.how.padding == Padding::Left { k - real } else { 0 };
                (at..at + real).contains(&i).then(|| row + i - at)
            })
        })
    }

    /// An episode and the step its window starts with.
    fn draw(&self, rng: &mut Rng) -> (usize, usize) {
        match self.how.choice {
            Choice::Windows => {
                let window = rng.below(self.window_count());
                let place = self.windows.partition_point(|&upto| upto <= window);
                let before = if place == 0 { 0 } else { self.windows[place - 1] };
                (self.chosen[place], (window - before) as usize)
            }
            Choice::Episodes => {
                let episode = self.chosen[rng.below(self.chosen.len() as u64) as usize];
                (episode, rng.below(windows_of(self.data.rows_of(episode).len(), self.how.k)) as usize)
            }
        }
    }
}

/// Windows of an episode: one if it is shorter than a window.
fn windows_of(length: usize, k: usize) -> u64 {
    (length + 1).saturating_sub(k).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::super::episodes::{Observations, Rewards};
    use super::*;

    const LENGTHS: [u32; 5] = [3, 7, 1, 12, 4];

    /// Observation `[episode, step]`, reward 1, action `step % 3`: every row says where it comes from.
    pub(super) fn numbered() -> Episodes {
        let mut values = Vec::new();
        let mut ids = Vec::new();
        for (episode, &n) in LENGTHS.iter().enumerate() {
            for step in 0..n {
                values.extend([episode as f32, step as f32]);
                ids.push(step % 3);
            }
        }
        let rewards = vec![1.0; ids.len()];
        let observations = Observations::Vectors { dim: 2, values };
        Episodes::new(observations, Actions::Discrete { count: 3, ids }, rewards, &LENGTHS, Rewards::AsStored)
            .expect("valid")
    }

    pub(super) fn vectors(batch: &Batch) -> &[f32] {
        let ObsBatch::Vectors(values) = &batch.obs else { panic!("vectors") };
        values
    }

    /// Checks every slot against what its observations say.
    fn audit(batch: &Batch, how: &Sampling) {
        let k = how.k;
        let ActionBatch::Discrete { ids, targets } = &batch.actions else { panic!("discrete") };
        for slot in 0..how.b {
            let rows = slot * k..(slot + 1) * k;
            let real: Vec<usize> = rows.clone().filter(|&r| batch.valid[r] == 1).collect();
            if let (Some(&first), Some(&last)) = (real.first(), real.last()) {
                assert_eq!(last - first + 1, real.len(), "real steps are together");
                match how.padding {
                    Padding::Left => assert_eq!(last, rows.end - 1),
                    Padding::Right => assert_eq!(first, rows.start),
                }
                let episode = vectors(batch)[2 * first];
                let start = vectors(batch)[2 * first + 1];
                for (i, &r) in real.iter().enumerate() {
                    let step = start + i as f32;
                    assert_eq!(vectors(batch)[2 * r..2 * r + 2], [episode, step], "one episode, consecutive steps");
                    assert_eq!(batch.timesteps[r], (step as u32).min(how.max_ep_len - 1));
                    assert_eq!(batch.rtg[r], (LENGTHS[episode as usize] as f32 - step) / how.rtg_scale);
                    assert_eq!((ids[r], targets[r]), (step as u32 % 3, step as u32 % 3));
                }
            }
            for r in rows {
                let valid = batch.valid[r];
                assert_eq!(batch.token_valid[3 * r..3 * r + 3], [valid; 3]);
                if valid == 0 {
                    assert_eq!(vectors(batch)[2 * r..2 * r + 2], [0.0; 2]);
                    assert_eq!((batch.rtg[r], batch.timesteps[r], ids[r], targets[r]), (0.0, 0, 0, NO_TARGET));
                }
            }
        }
    }

    #[test]
    fn windows_stay_in_one_episode_on_both_padding_sides() {
        let data = numbered();
        for padding in [Padding::Left, Padding::Right] {
            for choice in [Choice::Windows, Choice::Episodes] {
                for k in [1, 2, 5, 12, 20] {
                    let how =
                        Sampling { padding, choice, rtg_scale: 4.0, max_ep_len: 9, seed: 3, ..Sampling::new(16, k) };
                    let sampler = Sampler::new(&data, &[0, 1, 2, 3, 4], how.clone()).expect("valid");
                    let mut batch = sampler.batch();
                    for step in 0..20 {
                        sampler.fill(&mut batch, step);
                        audit(&batch, &how);
                        let real = batch.valid.iter().filter(|&&v| v == 1).count();
                        assert!(real >= 16, "a slot is empty");
                    }
                }
            }
        }
    }

    #[test]
    fn any_step_can_be_made_alone() {
        let data = numbered();
        let how = Sampling { seed: 11, task: 2, ..Sampling::new(8, 4) };
        let sampler = Sampler::new(&data, &[1, 3, 4], how.clone()).expect("valid");
        let mut steps = Vec::new();
        let mut batch = sampler.batch();
        for step in 0..10 {
            sampler.fill(&mut batch, step);
            steps.push(batch.clone());
        }
        let mut fresh = sampler.batch();
        sampler.fill(&mut fresh, 7);
        assert_eq!(fresh, steps[7]);
        assert_ne!(steps[6], steps[7]);
        let other = Sampler::new(&data, &[1, 3, 4], Sampling { task: 3, ..how }).expect("valid");
        other.fill(&mut fresh, 7);
        assert_ne!(fresh, steps[7], "tasks draw apart");
    }

    #[test]
    fn draws_follow_the_choice() {
        let data = numbered();
        for (choice, want) in [(Choice::Windows, [1.0, 5.0, 1.0, 10.0, 2.0]), (Choice::Episodes, [1.0; 5])] {
            let how = Sampling { choice, ..Sampling::new(100, 3) };
            let sampler = Sampler::new(&data, &[0, 1, 2, 3, 4], how).expect("valid");
            assert_eq!(sampler.window_count(), 19);
            let mut batch = sampler.batch();
            let mut counts = [0.0; 5];
            for step in 0..200 {
                sampler.fill(&mut batch, step);
                for slot in 0..100 {
                    counts[vectors(&batch)[2 * (slot * 3 + 2)] as usize] += 1.0 / 20_000.0;
                }
            }
            let total: f64 = want.iter().sum();
            for (got, want) in counts.iter().zip(want) {
                assert!((got - want / total).abs() < 0.015, "{choice:?} {counts:?}");
            }
        }
    }

    #[test]
    fn tiles_cover_every_row_once() {
        let data = numbered();
        let how = Sampling::new(4, 5);
        let sampler = Sampler::new(&data, &[0, 1, 3], how.clone()).expect("valid");
        assert_eq!(sampler.tile_batches(), 2, "1 + 2 + 3 windows");
        let mut seen = Vec::new();
        let mut batch = sampler.batch();
        for index in 0..2 {
            sampler.fill_tile(&mut batch, index);
            audit(&batch, &how);
            let rows = (0..20).filter(|&r| batch.valid[r] == 1);
            seen.extend(rows.map(|r| (vectors(&batch)[2 * r] as u32, vectors(&batch)[2 * r + 1] as u32)));
        }
        seen.sort_unstable();
        let want: Vec<_> = [0u32, 1, 3].iter().flat_map(|&e| (0..LENGTHS[e as usize]).map(move |s| (e, s))).collect();
        assert_eq!(seen, want);
    }
}
