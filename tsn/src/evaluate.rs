//! Plays and measures finished tasks: one decision program and one loss program for all of them.

use crate::error::Error;
use crate::fit::{frozen, scalar};
use crate::state::State;
use crate::task::Task;
use autograd::engine::{Device, Program};
use dt::autograd;
use dt::config::Config;
use dt::data::batch::{ActionBatch, Batch, NO_TARGET, Sampler};
use dt::data::episodes::Piece;
use dt::decision::plan_act;
use dt::env::ObsShape;
use dt::model::input;
use dt::rollout::{Episode, Goal, argmax, rollout};
use dt::train::{feed, output, plan_loss};

/// Programs that hold one task at a time.
pub struct Evaluator {
    config: Config,
    device: Device,
    masked: bool,
    batch: u32,
    act: Option<(u32, Program)>,
    loss: Program,
}

/// A task's loss on some batches, and what the encoder made of their states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Mean loss over valid steps.
    pub loss: f64,
    /// Valid steps.
    pub steps: u64,
    /// Share of valid steps whose greedy action is not the logged one (discrete), or NaN.
    pub disagreement: f64,
    /// Encoder outputs of valid steps, `[steps, width]`.
    pub latents: Vec<f32>,
}

impl Evaluator {
    /// Programs for a model, with masks or without; the loss is measured on batches of `batch` windows.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn new(device: &Device, config: &Config, masked: bool, batch: u32) -> Result<Evaluator, Error> {
        let mut loss = plan_loss(config, batch, |spec| frozen(spec, masked))?.bind(device)?;
        let mut time = State::default();
        time.put_time(config);
        time.load(&mut loss)?;
        Ok(Evaluator { config: *config, device: device.clone(), masked, batch, act: None, loss })
    }

    /// Windows in a batch of the loss program.
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// Plays a task from a number of seeds under a state; as many episodes at a time as there are seeds, up to 20.
    ///
    /// # Errors
    /// [`Error::NoEnvironment`] for a task that is only data; those of the environment.
    pub fn play(&mut self, state: &State, task: &Task, seeds: &[u64]) -> Result<Vec<Episode>, Error> {
        let Some(maker) = &task.environment else {
            return Err(Error::NoEnvironment { task: task.name.clone() });
        };
        let slots = seeds.len().clamp(1, 20) as u32;
        if self.act.as_ref().is_none_or(|(size, _)| *size != slots) {
            let mut program = plan_act(&self.config, slots, |spec| frozen(spec, self.masked))?.bind(&self.device)?;
            let mut time = State::default();
            time.put_time(&self.config);
            time.load(&mut program)?;
            self.act = Some((slots, program));
        }
        let Some((_, program)) = &mut self.act else { unreachable!("made above") };
        state.load(program)?;
        let mut envs = maker(slots as usize)?;
        let goal = Goal { fire: task.fire(&*envs), ..task.goal(&self.config) };
        Ok(rollout(program, &self.config, &mut *envs, seeds, &goal)?)
    }

    /// Loss over the first `most` batches of a list: `fill(batch, index)` makes batch `index`.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn measure(
        &mut self,
        state: &State,
        sampler: &Sampler<'_>,
        most: usize,
        fill: impl Fn(&mut Batch, usize),
    ) -> Result<Measured, Error> {
        state.load(&mut self.loss)?;
        let mut batch = sampler.batch();
        let mut total = Measured::default();
        let (mut sum, mut wrong) = (0.0, 0u64);
        for index in 0..most {
            fill(&mut batch, index);
            sampler.intact()?;
            feed(&mut self.loss, &batch)?;
            self.loss.run()?;
            let steps = batch.valid.iter().filter(|v| **v == 1).count() as u64;
            sum += f64::from(scalar(&self.loss, output::LOSS)?) * steps as f64;
            total.steps += steps;
            wrong += self.disagreeing(state, &batch)?;
            self.collect_latents(&batch, &mut total.latents)?;
        }
        total.loss = sum / total.steps.max(1) as f64;
        total.disagreement = match batch.actions {
            ActionBatch::Discrete { .. } => wrong as f64 / total.steps.max(1) as f64,
            ActionBatch::Continuous { .. } => f64::NAN,
        };
        Ok(total)
    }

    /// Loss on every held-out step of a task.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn held_out(&mut self, state: &State, sampler: &Sampler<'_>) -> Result<Measured, Error> {
        self.measure(state, sampler, sampler.tile_batches(), |batch, index| sampler.fill_tile(batch, index))
    }

    /// Outputs on one batch: what must stay bit-identical when later tasks are learned.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn outputs(&mut self, state: &State, batch: &Batch) -> Result<Vec<f32>, Error> {
        state.load(&mut self.loss)?;
        feed(&mut self.loss, batch)?;
        self.loss.run()?;
        Ok(self.loss.read_vec(output::OUTPUT)?)
    }

    /// Share of held-out steps where the greedy action is not the undisturbed controller's; `None` without controller.
    ///
    /// # Errors
    /// [`Error::Data`], [`Error::Engine`].
    pub fn controller_disagreement(
        &mut self,
        state: &State,
        task: &Task,
        sampler: &Sampler<'_>,
    ) -> Result<Option<f64>, Error> {
        let observations = task.episodes.observations();
        let (Some(controller), ObsShape::Vector { .. }) = (&task.controller, observations.shape()) else {
            return Ok(None);
        };
        let mut wanted = Vec::new();
        observations.visit(|piece| {
            if let Piece::Values(values) = piece {
                wanted.extend(controller(values));
            }
        })?;
        state.load(&mut self.loss)?;
        let mut batch = sampler.batch();
        let width = self.config.action.outputs() as usize;
        let (mut wrong, mut steps) = (0u64, 0u64);
        for index in 0..sampler.tile_batches() {
            sampler.fill_tile(&mut batch, index);
            sampler.intact()?;
            feed(&mut self.loss, &batch)?;
            self.loss.run()?;
            let outputs = self.allowed_outputs(state)?;
            let rows = sampler.tile_rows(index);
            for (row, output) in rows.zip(outputs.chunks_exact(width)) {
                let Some(row) = row else { continue };
                steps += 1;
                wrong += u64::from(argmax(output) != wanted[row]);
            }
        }
        Ok(Some(wrong as f64 / steps.max(1) as f64))
    }

    /// Outputs of the last batch; actions that the state's task does not have never win.
    fn allowed_outputs(&self, state: &State) -> Result<Vec<f32>, Error> {
        let mut outputs: Vec<f32> = self.loss.read_vec(output::OUTPUT)?;
        let allowed = state.words(input::ALLOWED).unwrap_or_default();
        let width = self.config.action.outputs() as usize;
        for (at, value) in outputs.iter_mut().enumerate() {
            let action = at % width;
            if allowed.get(action / 32).is_some_and(|word| word >> (action % 32) & 1 == 0) {
                *value = f32::NEG_INFINITY;
            }
        }
        Ok(outputs)
    }

    fn disagreeing(&self, state: &State, batch: &Batch) -> Result<u64, Error> {
        let ActionBatch::Discrete { targets, .. } = &batch.actions else { return Ok(0) };
        let outputs = self.allowed_outputs(state)?;
        let width = self.config.action.outputs() as usize;
        let differs = |(row, target): (&[f32], &u32)| *target != NO_TARGET && argmax(row) != *target;
        Ok(outputs.chunks_exact(width).zip(targets).filter(|pair| differs((pair.0, pair.1))).count() as u64)
    }

    fn collect_latents(&self, batch: &Batch, latents: &mut Vec<f32>) -> Result<(), Error> {
        let all: Vec<f32> = self.loss.read_vec(output::LATENT)?;
        let rows = all.chunks_exact(self.config.width as usize).zip(&batch.valid);
        rows.filter(|(_, valid)| **valid == 1).for_each(|(row, _)| latents.extend_from_slice(row));
        Ok(())
    }
}
