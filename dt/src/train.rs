//! The plans of a model (training step, loss, masks), and how a batch gets into them. Decisions: [`crate::decision`].

use crate::config::{Config, Spec};
use crate::data::batch::{ActionBatch, Batch, ObsBatch};
use crate::model::{Params, Windows, input, record, record_loss};
use autograd::engine::kernels::philox::{Stream, philox};
use autograd::engine::{Plan, Program, Result};
use autograd::{AdamW, Param, Tape, adamw_step};

/// Names of the outputs.
pub mod output {
    /// The batch's loss, f32 `[1, 1]`.
    pub const LOSS: &str = "loss";
    /// Global gradient norm over trainable entries before clipping, f32 `[1, 1]`.
    pub const GRAD_NORM: &str = "grad_norm";
    /// Losses of the last steps, the newest last, f32 `[n, 1]`: a state, and no part of what is trained.
    pub const LOSSES: &str = "losses";
    /// Gradient norms of the same steps.
    pub const GRAD_NORMS: &str = "grad_norms";
    /// Logits or predicted actions.
    pub const OUTPUT: &str = "output";
    /// Encoder outputs, `[b * k, width]`.
    pub const LATENT: &str = "latent";
    /// Prefix of gradients: `grad.<name of the parameter>`, f32 in its shape.
    pub const GRAD: &str = "grad.";
}

/// One training step: masks from scores, forward, loss, backward, clip, AdamW.
///
/// # Errors
/// Those of recording.
pub fn plan_step(config: &Config, batch: u32, adamw: &AdamW, choose: impl Fn(&Spec) -> Param) -> Result<Plan> {
    plan_step_remembering(1, config, batch, adamw, choose)
}

/// The same, and with `steps > 1` loss and gradient norm of so many last steps stay in the program, for a host that does not
/// read after every one.
///
/// # Errors
/// Those of recording.
pub fn plan_step_remembering(
    steps: u32,
    config: &Config,
    batch: u32,
    adamw: &AdamW,
    choose: impl Fn(&Spec) -> Param,
) -> Result<Plan> {
    let mut tape = Tape::new();
    let params = Params::declare(&mut tape, config, choose);
    tape.form_masks()?;
    let windows = Windows { batch, steps: config.context, dropout: config.dropout };
    let forward = record(&mut tape, config, &params, windows)?;
    let loss = record_loss(&mut tape, config, forward.output)?;
    tape.backward(loss)?;
    let norm = tape.adamw(adamw)?;
    if steps > 1 {
        tape.remember(output::LOSSES, loss, steps)?;
        tape.remember(output::GRAD_NORMS, norm, steps)?;
    }
    tape.output(loss, output::LOSS);
    tape.finish()
}

/// The loss of a batch without dropout, with the predictions and latents behind it.
///
/// # Errors
/// Those of recording.
pub fn plan_loss(config: &Config, batch: u32, choose: impl Fn(&Spec) -> Param) -> Result<Plan> {
    let mut tape = Tape::new();
    let params = Params::declare(&mut tape, config, choose);
    let windows = Windows { batch, steps: config.context, dropout: 0.0 };
    let forward = record(&mut tape, config, &params, windows)?;
    let loss = record_loss(&mut tape, config, forward.output)?;
    tape.output(loss, output::LOSS);
    tape.output(forward.output, output::OUTPUT);
    tape.output(forward.latent, output::LATENT);
    tape.finish()
}

/// The loss of a batch without dropout, and its gradient for every parameter that is not frozen, without an update.
///
/// The gradient of a masked weight is zero where its mask is. A parameter that the loss does not reach has no output.
///
/// # Errors
/// Those of recording; among them, that every parameter is frozen.
pub fn plan_gradients(config: &Config, batch: u32, choose: impl Fn(&Spec) -> Param) -> Result<Plan> {
    let mut tape = Tape::new();
    let params = Params::declare(&mut tape, config, choose);
    tape.form_masks()?;
    let windows = Windows { batch, steps: config.context, dropout: 0.0 };
    let forward = record(&mut tape, config, &params, windows)?;
    let loss = record_loss(&mut tape, config, forward.output)?;
    tape.backward(loss)?;
    tape.output(loss, output::LOSS);
    for spec in config.parameters() {
        if let Some(grad) = tape.grad(params.named(&spec.name)) {
            tape.output(grad, &format!("{}{}", output::GRAD, spec.name));
        }
    }
    tape.finish()
}

/// Forms masks from scores and nothing else: what consolidation runs on the final scores.
///
/// # Errors
/// Those of recording.
pub fn plan_masks(config: &Config, choose: impl Fn(&Spec) -> Param) -> Result<Plan> {
    let mut tape = Tape::new();
    Params::declare(&mut tape, config, choose);
    tape.form_masks()?;
    tape.finish()
}

/// Writes a batch into the inputs of a program; targets only if the program has a loss.
///
/// # Errors
/// [`autograd::engine::Error::Data`] if the batch has other sizes than the plan.
pub fn feed(program: &mut Program, batch: &Batch) -> Result<()> {
    match &batch.obs {
        ObsBatch::Vectors(values) => program.write(input::OBS, values)?,
        ObsBatch::Frames(bytes) => program.write(input::OBS, bytes)?,
    }
    program.write(input::RTG, &batch.rtg)?;
    program.write(input::TIMESTEPS, &batch.timesteps)?;
    program.write(input::VALID, &batch.token_valid)?;
    let learns = program.has(input::TARGET);
    match &batch.actions {
        ActionBatch::Discrete { ids, targets } => {
            program.write(input::ACTIONS, ids)?;
            if learns {
                program.write(input::TARGET, targets)?;
            }
        }
        ActionBatch::Continuous { values } => {
            program.write(input::ACTIONS, values)?;
            if learns {
                program.write(input::TARGET, values)?;
                program.write(input::STEP_VALID, &batch.valid)?;
            }
        }
    }
    Ok(())
}

/// Writes what changes from step to step besides the batch: random state, learning rate, bias corrections.
///
/// `step` counts from 0 within a task; `adam_steps` is the number of updates the moments have seen, this one included.
///
/// # Errors
/// [`autograd::engine::Error::NoBuffer`] if the program does not train.
pub fn feed_step(
    program: &mut Program,
    options: &AdamW,
    seed: u64,
    place: [u32; 2],
    lr: f64,
    adam_steps: u64,
) -> Result<()> {
    if program.has("rng") {
        // The kernels' counter has room for the step alone, so the task goes into the key.
        let [task, step] = place;
        let key = philox([seed as u32, (seed >> 32) as u32, task, 0], [Stream::Dropout as u32, 0]);
        program.write("rng", &[key[0], key[1], step, 0])?;
    }
    program.write("step", &adamw_step(lr, options.beta1, options.beta2, adam_steps))
}

/// How the learning rate goes over a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Peak rate.
    pub rate: f64,
    /// Steps of linear rise from 0.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// Rate at the end as a fraction of the peak; 1 keeps it constant.
    pub floor: f64,
}

impl Schedule {
    /// Rate of a step, counted from 0: linear warm-up, then half a cosine down to the floor.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let wave = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.rate * (self.floor + (1.0 - self.floor) * wave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let constant = Schedule { rate: 1e-3, warmup: 0, steps: 10, floor: 1.0 };
        assert!((0..12).all(|s| constant.at(s) == 1e-3));
        let cosine = Schedule { rate: 1.0, warmup: 4, steps: 104, floor: 0.05 };
        assert_eq!([cosine.at(0), cosine.at(3), cosine.at(4)], [0.25, 1.0, 1.0]);
        assert!((cosine.at(54) - 0.525).abs() < 1e-12 && (cosine.at(104) - 0.05).abs() < 1e-12);
        assert!((1..120).all(|s| s < 4 || cosine.at(s + 1) <= cosine.at(s)));
    }
}
