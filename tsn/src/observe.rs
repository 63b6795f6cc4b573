//! What a learner tells its caller while it works. The library prints and writes nothing by itself.

use crate::error::Error;
use crate::fit::Checkpoint;
use crate::learner::TaskReport;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A task begins.
    Task {
        /// Its number.
        task: usize,
        /// Its name.
        name: &'a str,
    },
    /// A training step is done. On a GPU some steps are told together, in their order, once their losses were read.
    Step {
        /// Number of the task.
        task: usize,
        /// Steps done.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Loss of the batch.
        loss: f32,
        /// Gradient norm before clipping.
        norm: f32,
        /// Learning rate of the step.
        rate: f64,
    },
    /// State to keep, asked for by [`Flow::Save`] or [`Flow::Stop`].
    Checkpoint(&'a Checkpoint),
    /// A task is learned and in the bank.
    Learned(&'a TaskReport),
    /// A task was played.
    Scored {
        /// Tasks learned so far.
        after: usize,
        /// Task played.
        on: usize,
        /// Mean score.
        score: f64,
    },
}

/// What the caller wants next. Of the answers to steps that are told together the strongest counts, after the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Make a checkpoint, then go on.
    Save,
    /// Make a checkpoint, then return [`Error::Stopped`].
    Stop,
}

/// Receives events.
pub trait Observer {
    /// Called after every event; the answer matters after [`Event::Step`].
    ///
    /// # Errors
    /// An error ends the run and is returned from it.
    fn event(&mut self, event: Event<'_>) -> Result<Flow, Error>;
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event<'_>) -> Result<Flow, Error> {
        Ok(Flow::Continue)
    }
}
