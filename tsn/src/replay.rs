//! Batches from several tasks at once: what cumulative and joint training learn from.

use crate::error::Error;
use crate::options::{Options, Strategy};
use crate::task::Task;
use autograd::engine::kernels::philox::{Rng, Stream};
use dt::autograd;
use dt::config::Config;
use dt::data::batch::{Batch, Sampler};
use dt::data::episodes::Actions;
use dt::env::ObsShape;

/// Draws the windows of a training step.
pub(crate) struct Windows<'t> {
    /// The new task's first.
    samplers: Vec<Sampler<'t>>,
    /// Draws up to and including each of the samplers after the first.
    upto: Vec<u64>,
    /// Slots of a batch that always go to the new task.
    main: usize,
    batch: usize,
    place: (u64, u32),
}

impl<'t> Windows<'t> {
    /// Windows of task `number` and, where the strategy wants them, of its `company`: every earlier task for
    /// [`Strategy::Cumulative`], all other tasks for [`Strategy::MultiTask`].
    ///
    /// # Errors
    /// [`Error::Data`] where settings do not fit the data.
    pub(crate) fn new(
        config: &Config,
        options: &Options,
        task: &'t Task,
        company: &[&'t Task],
        number: usize,
    ) -> Result<Windows<'t>, Error> {
        let (batch, place) = (options.batch, (options.seed, number as u32));
        let sampler = |task: &'t Task| task.sampler(config, options, batch, number as u32);
        let mut samplers = vec![sampler(task)?];
        let mut main = batch as usize;
        match options.strategy {
            Strategy::Cumulative if !company.is_empty() => {
                main = ((f64::from(batch) * (1.0 - options.baseline.mix)).round_ties_even() as usize).max(1);
                for (task, kept) in company.iter().zip(kept(company, options)) {
                    if !kept.is_empty() {
                        let how = task.sampling(config, options, batch, number as u32);
                        samplers.push(Sampler::new(&task.episodes, &kept, how)?);
                    }
                }
            }
            Strategy::MultiTask => {
                main = 0;
                for task in company {
                    samplers.push(sampler(task)?);
                }
                samplers.push(sampler(task)?);
            }
            _ => {}
        }
        let joint = options.strategy == Strategy::MultiTask;
        let mut total = 0;
        let upto = samplers[1..].iter().map(|sampler| {
            total += if joint { 1 } else { sampler.weight() };
            total
        });
        Ok(Windows { upto: upto.collect(), samplers, main, batch: batch as usize, place })
    }

    /// Staging arrays of the right size.
    pub(crate) fn batch(&self) -> Batch {
        self.samplers[0].batch()
    }

    /// Tells whether every batch so far holds what the datasets hold.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub(crate) fn intact(&self) -> Result<(), Error> {
        self.samplers.iter().try_for_each(|sampler| Ok(sampler.intact()?))
    }

    /// Draws the batch of a step. A task alone is drawn from as [`Sampler::fill`] does.
    pub(crate) fn fill(&self, batch: &mut Batch, step: u32) {
        let Some(&total) = self.upto.last() else { return self.samplers[0].fill(batch, step) };
        let (seed, task) = self.place;
        let mut rng = Rng::new(seed, Stream::Batch, [task, step]);
        for slot in 0..self.batch {
            let from = match slot < self.main {
                true => 0,
                false => {
                    let draw = rng.below(total);
                    1 + self.upto.partition_point(|upto| *upto <= draw)
                }
            };
            self.samplers[from].fill_slot(batch, slot, &mut rng);
        }
    }
}

/// Bytes of the trajectories that [`Strategy::Cumulative`] keeps of earlier tasks, as they are in memory; 0 for other
/// strategies.
pub fn buffer_bytes(earlier: &[Task], options: &Options) -> u64 {
    if options.strategy != Strategy::Cumulative {
        return 0;
    }
    let earlier: Vec<&Task> = earlier.iter().collect();
    let bytes = kept(&earlier, options).into_iter().zip(&earlier).map(|(episodes, task)| {
        let rows: usize = episodes.iter().map(|episode| task.episodes.rows_of(*episode).len()).sum();
        let observation = match task.episodes.observations().shape() {
            ObsShape::Vector { dim } => 4 * dim,
            frame => frame.values(),
        };
        let action = match task.episodes.actions() {
            Actions::Discrete { .. } => 4,
            Actions::Continuous { dim, .. } => 4 * dim,
        };
        // Reward and return-to-go are 4 bytes each.
        (rows * (observation + action + 8)) as u64
    });
    bytes.sum()
}

/// Training episodes of each earlier task that a buffer of limited size holds: a uniform sample of all of them, in the
/// order in which they came (reservoir sampling; Vitter, 1985, algorithm R). Deterministic in the seed and the tasks.
pub(crate) fn kept(earlier: &[&Task], options: &Options) -> Vec<Vec<usize>> {
    let room = options.baseline.buffer;
    let mut rng = Rng::new(options.seed, Stream::Replay, [0, 0]);
    let mut buffer: Vec<(usize, usize)> = Vec::new();
    let all =
        earlier.iter().enumerate().flat_map(|(t, task)| task.split.train.iter().map(move |episode| (t, *episode)));
    for (seen, item) in all.enumerate() {
        match buffer.len() < room {
            true => buffer.push(item),
            false => {
                let at = rng.below(seen as u64 + 1) as usize;
                if let Some(slot) = buffer.get_mut(at) {
                    *slot = item;
                }
            }
        }
    }
    buffer.sort_unstable();
    let mut kept = vec![Vec::new(); earlier.len()];
    buffer.into_iter().for_each(|(t, episode)| kept[t].push(episode));
    kept
}
