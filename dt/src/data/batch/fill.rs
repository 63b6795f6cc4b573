//! Windows written into the slots of a batch.

use super::super::disk::DiskRows;
use super::super::episodes::{Actions, Episodes, Observations};
use super::{ActionBatch, Batch, NO_TARGET, ObsBatch, Padding, Sampler};
use std::ops::Range;

impl Sampler<'_> {
    /// Writes the window of an episode that starts with step `start` into a slot.
    pub(super) fn write(&self, batch: &mut Batch, slot: usize, episode: usize, start: usize) {
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
    pub(super) fn clear(&self, batch: &mut Batch, slot: usize, from: usize, to: usize) {
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

#[cfg(test)]
mod tests {
    use super::super::super::episodes::Rewards;
    use super::super::tests::vectors;
    use super::super::{Layout, Sampling};
    use super::*;

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
}
