//! Interleaving the tokens of a step, and selecting rows.

use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::tokens::{INTERLEAVE, INTERLEAVE_DX, SELECT, SELECT_DX};
use std::panic::Location;

impl Tape {
    /// `y[3 r + j] = tokens[j][r] + time[r]`, shapes `tokens[j][r, c]`, `time[r, c]`, `y[3 r, c]`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn interleave(&mut self, tokens: [Tensor; 3], time: Option<Tensor>) -> Result<Tensor> {
        self.line = Location::caller();
        let [rows, cols] = self.shape(tokens[0]);
        // A product that does not fit is refused by the contract, which wants exactly 3 r rows.
        let y = self.make(&INTERLEAVE, [rows.saturating_mul(3), cols]);
        let [x0, x1, x2] = tokens.map(Some);
        self.record(&INTERLEAVE, &[x0, x1, x2, time, Some(y)], &[])?;
        let from: Vec<Tensor> = tokens.into_iter().chain(time).collect();
        self.derive(y, &from, move |tape, dy| {
            let parts = tokens.map(|_| tape.make(&INTERLEAVE_DX, [rows, cols]));
            let dtime = time.filter(|&t| tape.wants(t)).map(|_| tape.make(&INTERLEAVE_DX, [rows, cols]));
            let [dx0, dx1, dx2] = parts.map(Some);
            tape.record(&INTERLEAVE_DX, &[Some(dy), dx0, dx1, dx2, dtime], &[])?;
            for (x, dx) in tokens.into_iter().zip(parts) {
                tape.accumulate(x, dx)?;
            }
            match (time, dtime) {
                (Some(time), Some(dtime)) => tape.accumulate(time, dtime),
                _ => Ok(()),
            }
        });
        Ok(y)
    }

    /// `y[r] = x[r * stride + offset]`, shapes `x[r * stride, c]`, `y[r, c]`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] if rows are not a multiple of `stride` or `offset` is not below it.
    #[track_caller]
    pub fn select(&mut self, x: Tensor, stride: u32, offset: u32) -> Result<Tensor> {
        self.line = Location::caller();
        let [rows, cols] = self.shape(x);
        let scalars = [stride, offset];
        let y = self.make(&SELECT, [rows.checked_div(stride).unwrap_or(0), cols]);
        self.record(&SELECT, &[Some(x), Some(y)], &scalars)?;
        self.derive(y, &[x], move |tape, dy| {
            let dx = tape.make(&SELECT_DX, tape.shape(x));
            tape.record(&SELECT_DX, &[Some(dy), Some(dx)], &scalars)?;
            tape.accumulate(x, dx)
        });
        Ok(y)
    }
}
