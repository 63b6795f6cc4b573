//! GELU, addition, dropout.

use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::dropout::{DROPOUT, DROPOUT_DX};
use engine::kernels::ops::pointwise::{ADD, GELU, GELU_DX};
use std::panic::Location;

impl Tape {
    /// `y = x / 2 (1 + erf(x / sqrt 2))`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] if `x` is not F32.
    #[track_caller]
    pub fn gelu(&mut self, x: Tensor) -> Result<Tensor> {
        self.line = Location::caller();
        let y = self.make(&GELU, self.shape(x));
        self.record(&GELU, &[Some(x), Some(y)], &[])?;
        self.derive(y, &[x], move |tape, dy| {
            let dx = tape.make(&GELU_DX, tape.shape(x));
            tape.record(&GELU_DX, &[Some(x), Some(dy), Some(dx)], &[])?;
            tape.accumulate(x, dx)
        });
        Ok(y)
    }

    /// `y = a + b`, all `[r, c]`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.line = Location::caller();
        self.sum(a, b)
    }

    /// `y = x ⊙ keep / (1 - drop)`; `x` itself if `drop` is 0.
    ///
    /// Element `e` of the `n`th dropout of a tape draws Philox number `(step, n, e)`; the host writes the input `rng`
    /// U32 `[1, 4]`: seed low, seed high, step, 0.
    ///
    /// # Errors
    /// [`engine::Error::Call`] if `drop` is outside 0..1.
    #[track_caller]
    pub fn dropout(&mut self, x: Tensor, drop: f32) -> Result<Tensor> {
        self.line = Location::caller();
        match self.dropout_use(DROPOUT.name, drop)? {
            None => Ok(x),
            Some(draw) => self.drop(x, None, drop, draw),
        }
    }

    /// `y = residual + x ⊙ keep / (1 - drop)`, all `[r, c]`, in one call.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, or if `drop` is outside 0..1.
    #[track_caller]
    pub fn dropout_add(&mut self, x: Tensor, residual: Tensor, drop: f32) -> Result<Tensor> {
        self.line = Location::caller();
        match self.dropout_use(DROPOUT.name, drop)? {
            None => self.sum(x, residual),
            Some(draw) => self.drop(x, Some(residual), drop, draw),
        }
    }

    fn sum(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let y = self.make(&ADD, self.shape(a));
        self.record(&ADD, &[Some(a), Some(b), Some(y)], &[])?;
        self.derive(y, &[a, b], move |tape, dy| {
            tape.accumulate(a, dy)?;
            tape.accumulate(b, dy)
        });
        Ok(y)
    }

    fn drop(&mut self, x: Tensor, residual: Option<Tensor>, drop: f32, (rng, call): (Tensor, u32)) -> Result<Tensor> {
        let scalars = [drop.to_bits(), call];
        let y = self.make(&DROPOUT, self.shape(x));
        self.record(&DROPOUT, &[Some(x), residual, Some(rng), Some(y)], &scalars)?;
        let from: Vec<Tensor> = [Some(x), residual].into_iter().flatten().collect();
        self.derive(y, &from, move |tape, dy| {
            if let Some(residual) = residual {
                tape.accumulate(residual, dy)?;
            }
            if !tape.wants(x) {
                return Ok(());
            }
            let dx = tape.make(&DROPOUT_DX, tape.shape(x));
            tape.record(&DROPOUT_DX, &[Some(dy), Some(rng), Some(dx)], &scalars)?;
            tape.accumulate(x, dx)
        });
        Ok(y)
    }
}
