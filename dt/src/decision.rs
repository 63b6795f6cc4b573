//! Decisions of running episodes, at the cost of what a step changes.
//!
//! The program keeps a window of K steps for each episode, and the host gives it one step before each run. A window
//! holds what depends on a token alone: its embedding and its first projection to q, k and v. So an observation is
//! encoded once, not in each of the K windows that hold it. Deeper values change when the oldest step leaves, and are
//! computed anew. The last block computes one query and one row per window.
//!
//! Tokens of a window, oldest first: `a[t-K], R[t-K+1], s[t-K+1], a[t-K+1], ..., R[t], s[t]`. The first is never valid:
//! it makes a step's three newest tokens a whole move of the window. Everything that the state `s[t]` may see is as in
//! training, so outputs agree with those of [`crate::model::record`] to rounding.

use crate::config::{Config, Spec};
use crate::data::batch::ObsBatch;
use crate::encoder::EPS;
use crate::history::{Executed, History};
use crate::model::{Embedded, Params, embed, finish_block, head, input, time_table};
use crate::train::output;
use autograd::engine::{DType, Plan, Program, Result};
use autograd::{Param, Tape};

/// One decision for each of `slots` histories.
///
/// The windows hold values made with the weights of their time: write weights and masks first, then start episodes.
///
/// # Errors
/// Those of recording.
pub fn plan_act(config: &Config, slots: u32, choose: impl Fn(&Spec) -> Param) -> Result<Plan> {
    let mut tape = Tape::new();
    let params = Params::declare(&mut tape, config, choose);
    let (width, tokens) = (config.width, 3 * config.context);
    let valid = tape.input(input::VALID, DType::U8, slots, tokens);
    let Embedded { rtg, state, action, .. } = embed(&mut tape, config, &params, slots)?;
    let table = time_table(&mut tape, config);
    let mut at = |name: &str| {
        let timesteps = tape.input(name, DType::U32, 1, slots);
        match table {
            None => tape.embed(timesteps, params.weight("dt.te")),
            Some(table) => tape.embed_fixed(timesteps, table),
        }
    };
    let [before, now] = [at(input::TIMESTEPS_BEFORE)?, at(input::TIMESTEPS)?];
    let newest = [tape.add(action, before)?, tape.add(rtg, now)?, tape.add(state, now)?];
    let newest = tape.interleave(newest, None)?;
    let newest = tape.layernorm(newest, params.weight("dt.ln_e"), None, EPS)?;
    let mut x = tape.slide("window.tokens", newest, slots, tokens)?;
    for l in 0..config.layers {
        // The first block's projections depend on one token each.
        let (rows, from) = if l == 0 { (3, newest) } else { (tokens, x) };
        let normed = tape.layernorm(from, params.block(l, "ln1"), None, EPS)?;
        let weight = params.block(l, "attn.c_attn");
        let all = |tape: &mut Tape, new| match l {
            0 => tape.slide("window.projected", new, slots, tokens),
            _ => Ok(new),
        };
        let mixed = if l + 1 < config.layers {
            let qkv = tape.linear(normed, weight, None)?;
            let qkv = all(&mut tape, qkv)?;
            tape.attention(qkv, valid, config.heads, 0.0)?
        } else {
            let kv = tape.linear_part(normed, weight, width..3 * width)?;
            let kv = all(&mut tape, kv)?;
            let last = tape.select(normed, rows, rows - 1)?;
            let q = tape.linear_part(last, weight, 0..width)?;
            x = tape.select(x, tokens, tokens - 1)?;
            tape.attend(q, kv, valid, config.heads)?
        };
        x = finish_block(&mut tape, &params, l, mixed, x, 0.0)?;
    }
    let (_, y) = head(&mut tape, &params, x)?;
    tape.output(y, output::OUTPUT);
    tape.finish()
}

/// Writes the newest step of each history into a program of [`plan_act`]. A run takes it into the windows, so exactly
/// one run follows.
///
/// # Errors
/// [`autograd::engine::Error::Data`] if there are more or fewer histories than slots.
pub fn feed_newest(program: &mut Program, history: &History) -> Result<()> {
    match &history.obs {
        ObsBatch::Vectors(values) => program.write(input::OBS, values)?,
        ObsBatch::Frames(bytes) => program.write(input::OBS, bytes)?,
    }
    match &history.executed {
        Executed::Ids(ids) => program.write(input::ACTIONS, ids)?,
        Executed::Values(values) => program.write(input::ACTIONS, values)?,
    }
    program.write(input::RTG, &history.rtg)?;
    program.write(input::TIMESTEPS, &history.timesteps)?;
    program.write(input::TIMESTEPS_BEFORE, &history.timesteps_before)?;
    program.write(input::VALID, &history.valid)
}
