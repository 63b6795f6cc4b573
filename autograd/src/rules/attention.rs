//! Causal attention.

use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::attention::{ATTENTION, ATTENTION_DX};
use std::panic::Location;

impl Tape {
    /// Causal attention of `b` sequences of `t` tokens, `r = b * t`.
    ///
    /// `qkv[r, 3 * heads * d]` holds q, k, v of all heads, `valid` U8 `[b, t]` marks keys that may be seen,
    /// `y[r, heads * d]`. Probabilities are dropped with probability `drop`. A query without a visible key gives zeros.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, or if `drop` is outside 0..1.
    #[track_caller]
    pub fn attention(&mut self, qkv: Tensor, valid: Tensor, heads: u32, drop: f32) -> Result<Tensor> {
        self.line = Location::caller();
        let (rng, call) = self.dropout_use(ATTENTION.name, drop)?.unzip();
        let [rows, cols] = self.shape(qkv);
        let y = self.make(&ATTENTION, [rows, cols / 3]);
        let stats = self.make(&ATTENTION, [rows, heads]);
        let scalars = [heads, drop.to_bits(), call.unwrap_or(0)];
        self.record(&ATTENTION, &[Some(qkv), Some(valid), rng, Some(y), Some(stats)], &scalars)?;
        self.derive(y, &[qkv], move |tape, dy| {
            let dqkv = tape.make(&ATTENTION_DX, tape.shape(qkv));
            let args = [Some(qkv), Some(valid), rng, Some(y), Some(stats), Some(dy), Some(dqkv)];
            tape.record(&ATTENTION_DX, &args, &scalars)?;
            tape.accumulate(qkv, dqkv)
        });
        Ok(y)
    }
}
