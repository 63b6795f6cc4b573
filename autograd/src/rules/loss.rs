//! Losses: one number `[1, 1]`.

use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::loss::{CROSS_ENTROPY, CROSS_ENTROPY_DX, MASKED_MSE, MASKED_MSE_DX};
use std::panic::Location;

impl Tape {
    /// Mean cross-entropy over rows whose target is not `2^32 - 1`, in nats; 0 if there is none.
    ///
    /// Shapes `logits[r, a]`, `target` U32 `[1, r]`, `allowed` bits `[1, a]`: other actions take no part.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn cross_entropy(&mut self, logits: Tensor, target: Tensor, allowed: Option<Tensor>) -> Result<Tensor> {
        self.line = Location::caller();
        let loss = self.make(&CROSS_ENTROPY, [1, 1]);
        self.record(&CROSS_ENTROPY, &[Some(logits), Some(target), allowed, Some(loss), None], &[])?;
        self.derive(loss, &[logits], move |tape, dloss| {
            let dx = tape.make(&CROSS_ENTROPY_DX, tape.shape(logits));
            let args = [Some(logits), Some(target), allowed, Some(dloss), Some(dx)];
            tape.record(&CROSS_ENTROPY_DX, &args, &[])?;
            tape.accumulate(logits, dx)
        });
        Ok(loss)
    }

    /// `sum over valid rows of (sum_a active (pred - target)² / sum active) / max(1, valid rows)`.
    ///
    /// Shapes `pred[r, a]`, `target[r, a]`, `valid` U8 `[1, r]`, `active` F32 `[1, a]` of 0 and 1. No gradient goes to
    /// `target`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn masked_mse(
        &mut self,
        pred: Tensor,
        target: Tensor,
        valid: Tensor,
        active: Option<Tensor>,
    ) -> Result<Tensor> {
        self.line = Location::caller();
        let loss = self.make(&MASKED_MSE, [1, 1]);
        self.record(&MASKED_MSE, &[Some(pred), Some(target), Some(valid), active, Some(loss)], &[])?;
        self.derive(loss, &[pred], move |tape, dloss| {
            let dx = tape.make(&MASKED_MSE_DX, tape.shape(pred));
            let args = [Some(pred), Some(target), Some(valid), active, Some(dloss), Some(dx)];
            tape.record(&MASKED_MSE_DX, &args, &[])?;
            tape.accumulate(pred, dx)
        });
        Ok(loss)
    }
}
