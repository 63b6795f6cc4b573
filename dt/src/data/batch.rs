//! Windows of K steps, drawn and written into staging arrays.
//!
//! A batch depends on `(seed, task, step)` only: any step's batch can be made alone, so a resumed run continues with
//! the bits of an uninterrupted one. Filling allocates nothing.

use std::ops::Range;

use autograd::engine::kernels::philox::{Rng, Stream};

use super::disk::DiskRows;
use super::episodes::{Actions, Episodes, Moments, Observations};
use crate::env::ObsShape;
use crate::error::Error;

/// Target id of a padded step: no class, so no loss.
pub const NO_TARGET: u32 = u32::MAX;

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

    /// Writes the window of an episode that starts with step `start` into a slot.
    fn write(&self, batch: &mut Batch, slot: usize, episode: usize, start: usize) {
        let k = self.how.k;
        let rows = self.data.rows_of(episode);
        let from = rows.start + start;
        let real = k.min(rows.end - from);
        let at = match self.how.padding {
            Padding::Left => k - real,
            Padding::Right => 0,
        };
        self.clear(batch, slot, 0, at);
        self.clear(batch, slot, at + real, k);

        let out = slot * k + at;
        if let Observations::Disk(disk) = self.data.observations() {
            self.write_from_disk(disk, &mut batch.obs, out, rows.start, from..from + real);
        }
        for i in 0..real {
            let (row, out) = (from + i, out + i);
            batch.rtg[out] = self.data.returns_to_go()[row] / self.how.rtg_scale;
            let timestep = u32::try_from(start + i).unwrap_or(u32::MAX);
            batch.timesteps[out] = timestep.min(self.how.max_ep_len - 1);
            batch.valid[out] = 1;
            batch.token_valid[3 * out..3 * out + 3].fill(1);
            if let Observations::Vectors { .. } | Observations::Frames { .. } = self.data.observations() {
                self.write_observation(&mut batch.obs, out, rows.start, row);
            }
            match (&mut batch.actions, self.data.actions()) {
                (ActionBatch::Discrete { ids, targets }, Actions::Discrete { ids: from, .. }) => {
                    ids[out] = from[row];
                    targets[out] = from[row];
                }
                (ActionBatch::Continuous { values }, Actions::Continuous { dim, values: from }) => {
                    let width = self.action_width();
                    let (action, rest) = values[out * width..(out + 1) * width].split_at_mut(*dim);
                    action.copy_from_slice(&from[row * dim..(row + 1) * dim]);
                    rest.fill(0.0);
                }
                _ => panic!("the batch comes from a sampler of another dataset: actions differ in kind"),
            }
        }
    }

    fn write_observation(&self, obs: &mut ObsBatch, out: usize, first: usize, row: usize) {
        let width = self.obs_width();
        match (obs, self.data.observations()) {
            (ObsBatch::Vectors(to), Observations::Vectors { dim, values }) => {
                let to = &mut to[out * width..(out + 1) * width];
                if self.how.layout.is_some() {
                    to.fill(0.0);
                }
                for (j, &value) in values[row * dim..(row + 1) * dim].iter().enumerate() {
                    self.write_value(to, j, value);
                }
            }
            (ObsBatch::Frames(to), Observations::Frames { height, width: w, bytes }) => {
                Episodes::stack(bytes, first, row, &mut to[out * width..(out + 1) * width], height * w);
            }
            _ => panic!("the batch comes from a sampler of another dataset: observations differ in kind"),
        }
    }

    /// Scales entry `j` of an observation and puts it in its place.
    #[inline(always)]
    fn write_value(&self, to: &mut [f32], j: usize, value: f32) {
        let place = self.how.layout.as_ref().map_or(j, |layout| layout.places[j]);
        to[place] = match &self.how.moments {
            Some(moments) => (value - moments.mean[j]) / moments.std[j],
            None => value,
        };
    }

    /// Writes the observations of consecutive rows of the episode that begins at row `first`; every frame is read once.
    fn write_from_disk(&self, disk: &DiskRows, obs: &mut ObsBatch, out: usize, first: usize, rows: Range<usize>) {
        let (width, n) = (self.obs_width(), disk.shape().values());
        let from = out * width;
        match obs {
            ObsBatch::Vectors(to) => {
                let to = &mut to[from..from + rows.len() * width];
                if self.how.layout.is_some() {
                    to.fill(0.0);
                }
                // On the stack: filling allocates nothing.
                let mut piece = [0.0; 1024];
                let (mut at, end) = (rows.start * n, rows.end * n);
                while at < end {
                    let piece = &mut piece[..1024.min(end - at)];
                    disk.read_values(at, piece);
                    for (value, entry) in piece.iter().zip(at - rows.start * n..) {
                        let row = entry / n * width;
                        self.write_value(&mut to[row..row + width], entry % n, *value);
                    }
                    at += piece.len();
                }
            }
            ObsBatch::Frames(to) => {
                let to = &mut to[from..from + rows.len() * width];
                for (i, row) in rows.enumerate() {
                    // All but the newest frame of a stack are in the stack of the row before.
                    let known = if i == 0 { 0 } else { self.how.stack - 1 };
                    let (before, stack) = to[..(i + 1) * width].split_at_mut(i * width);
                    if known > 0 {
                        stack[..known * n].copy_from_slice(&before[before.len() - known * n..]);
                    }
                    for j in known..self.how.stack {
                        let source = (row + j + 1).saturating_sub(self.how.stack).max(first);
                        disk.read_pixels(source * n, &mut stack[j * n..(j + 1) * n]);
                    }
                }
            }
        }
    }

    /// Makes steps `from..to` of a slot padding.
    fn clear(&self, batch: &mut Batch, slot: usize, from: usize, to: usize) {
        let rows = slot * self.how.k + from..slot * self.how.k + to;
        let wide = |width: usize| rows.start * width..rows.end * width;
        match &mut batch.obs {
            ObsBatch::Vectors(values) => values[wide(self.obs_width())].fill(0.0),
            ObsBatch::Frames(bytes) => bytes[wide(self.obs_width())].fill(0),
        }
        match &mut batch.actions {
            ActionBatch::Discrete { ids, targets } => {
                ids[rows.clone()].fill(0);
                targets[rows.clone()].fill(NO_TARGET);
            }
            ActionBatch::Continuous { values } => values[wide(self.action_width())].fill(0.0),
        }
        batch.rtg[rows.clone()].fill(0.0);
        batch.timesteps[rows.clone()].fill(0);
        batch.valid[rows.clone()].fill(0);
        batch.token_valid[wide(3)].fill(0);
    }
}

/// Windows of an episode: one if it is shorter than a window.
fn windows_of(length: usize, k: usize) -> u64 {
    (length + 1).saturating_sub(k).max(1) as u64
}

fn check(data: &Episodes, how: &Sampling) -> Result<(), Error> {
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
    use super::super::episodes::Rewards;
    use super::*;

    const LENGTHS: [u32; 5] = [3, 7, 1, 12, 4];

    /// Observation `[episode, step]`, reward 1, action `step % 3`: every row says where it comes from.
    fn numbered() -> Episodes {
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

    fn vectors(batch: &Batch) -> &[f32] {
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

    #[test]
    fn scaling_layout_and_wider_actions() {
        let observations = Observations::Vectors { dim: 2, values: vec![1.0, 10.0, 3.0, 10.0] };
        let actions = Actions::Continuous { dim: 1, values: vec![0.5, -0.5] };
        let data = Episodes::new(observations, actions, vec![0.0; 2], &[2], Rewards::AsStored).expect("valid");
        let how = Sampling {
            moments: data.moments(),
            layout: Some(Layout { width: 4, places: vec![3, 1] }),
            action_width: Some(2),
            ..Sampling::new(1, 3)
        };
        let sampler = Sampler::new(&data, &[0], how).expect("valid");
        let mut batch = sampler.batch();
        sampler.fill(&mut batch, 0);
        assert_eq!(vectors(&batch), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(batch.actions, ActionBatch::Continuous { values: vec![0.0, 0.0, 0.5, 0.0, -0.5, 0.0] });
        assert_eq!(batch.valid, [0, 1, 1]);
    }

    #[test]
    fn frames_are_stacked_by_index() {
        let bytes: Vec<u8> = (1..=5).flat_map(|i| [i; 6]).collect();
        let observations = Observations::Frames { height: 2, width: 3, bytes };
        let actions = Actions::Discrete { count: 2, ids: vec![0; 5] };
        let data = Episodes::new(observations, actions, vec![0.0; 5], &[2, 3], Rewards::AsStored).expect("valid");
        let how = Sampling { stack: 4, ..Sampling::new(1, 3) };
        let sampler = Sampler::new(&data, &[1], how).expect("valid");
        let mut batch = sampler.batch();
        sampler.fill(&mut batch, 0);
        let ObsBatch::Frames(bytes) = &batch.obs else { panic!("frames") };
        let stacks: Vec<u8> = bytes.chunks(6).map(|frame| frame[0]).collect();
        assert_eq!(stacks, [3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 5], "never a frame of the episode before");
    }

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
