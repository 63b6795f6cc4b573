//! The reverse walk over a tape.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::pointwise::{ADD, FILL};
use std::panic::Location;

impl Tape {
    /// Records the gradient of `loss [1, 1]` with respect to every trainable parameter and watched input.
    ///
    /// Calls are recorded in reverse order of their forward calls, so sums of gradients have a fixed order.
    ///
    /// # Errors
    /// [`engine::Error::Call`] if `loss` is not `[1, 1]`, if nothing that wants a gradient leads to it, or if this
    /// tape was differentiated before: add up several losses first.
    #[track_caller]
    pub fn backward(&mut self, loss: Tensor) -> Result<()> {
        self.line = Location::caller();
        let fail = |tape: &Tape, what: String| Err(tape.error("backward", what));
        let ([rows, cols], name) = (self.shape(loss), self.name(loss).to_owned());
        if [rows, cols] != [1, 1] {
            return fail(self, format!("loss \"{name}\" is {rows} x {cols}, expected 1 x 1"));
        }
        if self.differentiated {
            return fail(self, "is already recorded; add the losses and call it once".into());
        }
        if !self.wants(loss) {
            return fail(self, format!("no trainable parameter and no watched input leads to loss \"{name}\""));
        }
        self.differentiated = true;
        let one = self.make(&FILL, [1, 1]);
        self.record(&FILL, &[Some(one)], &[1f32.to_bits()])?;
        self.accumulate(loss, one)?;
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            self.line = node.line;
            if let Some(dy) = self.grad_ref(node.y) {
                (node.rule)(self, dy)?;
            }
        }
        Ok(())
    }

    /// Gradient of a parameter's weight, if it has one.
    pub fn grad(&self, p: ParamId) -> Option<Tensor> {
        self.grad_ref(self.handles(p).w)
    }

    /// Straight-through gradient of a parameter's score, if it has one.
    pub fn score_grad(&self, p: ParamId) -> Option<Tensor> {
        self.handles(p).score.and_then(|score| self.grad_ref(score))
    }

    /// Gradient of a tensor, if it has one.
    pub fn grad_of(&self, t: Tensor) -> Option<Tensor> {
        self.grad_ref(t)
    }

    /// Adds to the gradient of `t`. The first contribution is taken as it is; gradients are never written twice, so
    /// several tensors may share one.
    pub(crate) fn accumulate(&mut self, t: Tensor, contribution: Tensor) -> Result<()> {
        if !self.wants(t) {
            return Ok(());
        }
        let sum = match self.grad_ref(t) {
            None => contribution,
            Some(so_far) => {
                let sum = self.make(&ADD, self.shape(t));
                self.record(&ADD, &[Some(so_far), Some(contribution), Some(sum)], &[])?;
                sum
            }
        };
        *self.grad_mut(t) = Some(sum);
        Ok(())
    }
}
