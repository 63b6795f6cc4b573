//! The Decision Transformer, recorded on a tape. Source: method.md section 2.

use crate::config::{Action, Config, Spec, Time};
use crate::encoder::{EPS, encode};
use autograd::engine::{DType, Result};
use autograd::{Param, ParamId, Tape, Tensor};
use std::collections::BTreeMap;

/// Names of the inputs that [`record`] creates; the host fills them each step.
pub mod input {
    /// Observations: f32 `[b * k, n]` or u8 `[b * k, channels * height * width]`.
    pub const OBS: &str = "obs";
    /// Returns-to-go, scaled: f32 `[b * k, 1]`.
    pub const RTG: &str = "rtg";
    /// Executed actions: u32 `[1, b * k]` or f32 `[b * k, d]`.
    pub const ACTIONS: &str = "actions";
    /// Absolute timesteps: u32 `[1, b * k]`.
    pub const TIMESTEPS: &str = "timesteps";
    /// Timesteps of the steps before, decisions only: u32 `[1, b]`.
    pub const TIMESTEPS_BEFORE: &str = "timesteps_before";
    /// 1 at tokens of real steps: u8 `[b, 3 * k]`.
    pub const VALID: &str = "valid";
    /// The fixed time table (state): f32 `[max_ep_len, width]`.
    pub const TIME: &str = "time";
    /// What to predict: u32 `[1, b * k]`, 2^32 - 1 at padding, or f32 `[b * k, d]`.
    pub const TARGET: &str = "target";
    /// 1 at real steps (continuous loss): u8 `[1, b * k]`.
    pub const STEP_VALID: &str = "step_valid";
    /// The task's own actions (discrete loss, state): bits `[1, n]`.
    pub const ALLOWED: &str = "allowed";
    /// 1 at the task's own action dimensions (continuous loss, state): f32 `[1, d]`.
    pub const ACTIVE: &str = "active";
}

/// Sizes of one recording.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Windows.
    pub batch: u32,
    /// Steps in each.
    pub steps: u32,
    /// Dropout probability; 0 in evaluation.
    pub dropout: f32,
}

/// Handles of a recorded forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Logits or predicted actions.
    pub output: Tensor,
    /// Encoder outputs, `[b * k, width]`: the latents of the affinity measures.
    pub latent: Tensor,
    /// Hidden states after the last norm, where the head reads them.
    pub hidden: Tensor,
}

/// The parameters of a recording, by name.
#[derive(Debug)]
pub struct Params(BTreeMap<String, ParamId>);

impl Params {
    /// Declares every parameter of a configuration; `choose` says how each is masked and trained.
    pub fn declare(tape: &mut Tape, config: &Config, choose: impl Fn(&Spec) -> Param) -> Params {
        Params(config.parameters().iter().map(|s| (s.name.clone(), tape.param(choose(s)))).collect())
    }

    /// The parameter of a full name.
    ///
    /// # Panics
    /// If the configuration has none of that name: a broken invariant, names come from [`Config::parameters`].
    pub fn named(&self, name: &str) -> ParamId {
        *self.0.get(name).unwrap_or_else(|| panic!("no parameter is called {name}"))
    }

    pub(crate) fn weight(&self, layer: &str) -> ParamId {
        self.named(&format!("{layer}.weight"))
    }

    pub(crate) fn block(&self, block: u32, layer: &str) -> ParamId {
        self.named(&format!("dt.h.{block}.{layer}.weight"))
    }

    pub(crate) fn bias(&self, layer: &str) -> ParamId {
        self.named(&format!("{layer}.bias"))
    }
}

/// Records the forward pass of `windows.batch` windows and creates its inputs.
///
/// # Errors
/// Those of recording: a shape error is a mistake in the configuration.
pub fn record(tape: &mut Tape, config: &Config, params: &Params, windows: Windows) -> Result<Forward> {
    let Windows { batch, steps, dropout } = windows;
    let rows = batch * steps;
    let valid = tape.input(input::VALID, DType::U8, batch, 3 * steps);
    let Embedded { latent, rtg, state, action } = embed(tape, config, params, rows)?;
    let timesteps = tape.input(input::TIMESTEPS, DType::U32, 1, rows);
    let time = match time_table(tape, config) {
        None => tape.embed(timesteps, params.weight("dt.te"))?,
        Some(table) => tape.embed_fixed(timesteps, table)?,
    };
    let tokens = tape.interleave([rtg, state, action], Some(time))?;
    let tokens = tape.layernorm(tokens, params.weight("dt.ln_e"), None, EPS)?;
    let mut x = tape.dropout(tokens, dropout)?;
    for l in 0..config.layers {
        let normed = tape.layernorm(x, params.block(l, "ln1"), None, EPS)?;
        let qkv = tape.linear(normed, params.block(l, "attn.c_attn"), None)?;
        let mixed = tape.attention(qkv, valid, config.heads, dropout)?;
        x = finish_block(tape, params, l, mixed, x, dropout)?;
    }
    // Rows are normalised one by one, so the rows that the head reads can be taken out before the norm.
    let x = tape.select(x, 3, 1)?;
    let (hidden, output) = head(tape, params, x)?;
    Ok(Forward { output, latent, hidden })
}

/// What goes into the tokens of some steps, without their times: `[r, width]` each.
pub(crate) struct Embedded {
    pub(crate) latent: Tensor,
    pub(crate) rtg: Tensor,
    pub(crate) state: Tensor,
    pub(crate) action: Tensor,
}

/// Creates the inputs of `rows` steps but their times, and embeds them.
pub(crate) fn embed(tape: &mut Tape, config: &Config, params: &Params, rows: u32) -> Result<Embedded> {
    let obs_dtype = match config.observation {
        crate::config::Observation::Vector(_) => DType::F32,
        crate::config::Observation::Image { .. } => DType::U8,
    };
    let obs = tape.input(input::OBS, obs_dtype, rows, config.observation_len());
    let rtg = tape.input(input::RTG, DType::F32, rows, 1);
    let latent = encode(tape, config, params, obs)?;
    let state = tape.linear(latent, params.weight("dt.se"), None)?;
    let rtg = tape.linear(rtg, params.weight("dt.re"), None)?;
    let action = match config.action {
        Action::Discrete(_) => {
            let ids = tape.input(input::ACTIONS, DType::U32, 1, rows);
            tape.embed(ids, params.weight("dt.ae"))?
        }
        Action::Continuous(d) => {
            let actions = tape.input(input::ACTIONS, DType::F32, rows, d);
            tape.linear(actions, params.weight("dt.ae"), None)?
        }
    };
    Ok(Embedded { latent, rtg, state, action })
}

/// The fixed time table; `None` if the model learns one.
pub(crate) fn time_table(tape: &mut Tape, config: &Config) -> Option<Tensor> {
    let fixed = config.time == Time::Sinusoidal;
    fixed.then(|| tape.state(input::TIME, DType::F32, config.max_ep_len, config.width))
}

/// A block after its attention: projection and feed-forward, each onto the residual `x`.
pub(crate) fn finish_block(
    tape: &mut Tape,
    params: &Params,
    block: u32,
    mixed: Tensor,
    x: Tensor,
    dropout: f32,
) -> Result<Tensor> {
    let projected = tape.linear(mixed, params.block(block, "attn.c_proj"), None)?;
    let x = tape.dropout_add(projected, x, dropout)?;
    let normed = tape.layernorm(x, params.block(block, "ln2"), None, EPS)?;
    let narrow = tape.feed_forward(normed, params.block(block, "mlp.fc"), params.block(block, "mlp.proj"))?;
    tape.dropout_add(narrow, x, dropout)
}

/// The last norm and the head, on the rows that it reads: hidden states and outputs.
pub(crate) fn head(tape: &mut Tape, params: &Params, x: Tensor) -> Result<(Tensor, Tensor)> {
    let hidden = tape.layernorm(x, params.weight("dt.ln_f"), None, EPS)?;
    let output = tape.linear(hidden, params.weight("dt.act_head"), Some(params.bias("dt.act_head")))?;
    Ok((hidden, output))
}

/// Records the loss of a forward pass over every state (method.md 3.5) and creates its inputs.
///
/// # Errors
/// Those of recording.
pub fn record_loss(tape: &mut Tape, config: &Config, output: Tensor) -> Result<Tensor> {
    let [rows, _] = tape.shape(output);
    match config.action {
        Action::Discrete(n) => {
            let target = tape.input(input::TARGET, DType::U32, 1, rows);
            let allowed = tape.state(input::ALLOWED, DType::Bits, 1, n);
            tape.cross_entropy(output, target, Some(allowed))
        }
        Action::Continuous(d) => {
            let target = tape.input(input::TARGET, DType::F32, rows, d);
            let valid = tape.input(input::STEP_VALID, DType::U8, 1, rows);
            let active = tape.state(input::ACTIVE, DType::F32, 1, d);
            tape.masked_mse(output, target, valid, Some(active))
        }
    }
}
