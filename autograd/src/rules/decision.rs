//! Windows that slide, and what only decisions record: attention of the last token, part of a weight. No gradients.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::kernels::ops::attend::ATTEND;
use engine::kernels::ops::gemm::GEMM;
use engine::kernels::ops::masked_gemm::MASKED_GEMM;
use engine::kernels::ops::tokens::SLIDE;
use engine::{DType, Life, Result, Slice};
use std::ops::Range;
use std::panic::Location;

impl Tape {
    /// The state `name`, `[b * rows, c]`: `b` windows, each moved up by its share of the rows of `x[b * n, c]`, which
    /// become its last. Zero at first.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, or if `x` takes a gradient.
    #[track_caller]
    pub fn slide(&mut self, name: &str, x: Tensor, b: u32, rows: u32) -> Result<Tensor> {
        self.line = Location::caller();
        self.without_gradient(SLIDE.name, &[x])?;
        let cols = self.shape(x)[1];
        let window = self.state(name, DType::F32, b.saturating_mul(rows), cols);
        self.record(&SLIDE, &[Some(x), Some(window)], &[b])?;
        Ok(window)
    }

    /// The state `name`, `[rows, c]`: what the last `rows` runs gave for `x[1, c]`, the newest last. Nothing flows back from it.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn remember(&mut self, name: &str, x: Tensor, rows: u32) -> Result<()> {
        self.line = Location::caller();
        let cols = self.shape(x)[1];
        let window = self.state(name, DType::F32, rows, cols);
        self.record(&SLIDE, &[Some(x), Some(window)], &[1])
    }

    /// Attention of one query per sequence: `q[b, c]`, keys and values of all heads `kv[b * t, 2 c]`, `valid` U8
    /// `[b, t]` marks keys that may be seen, `y[b, c]`. A query without a visible key gives zeros.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, or if `q` or `kv` takes a gradient.
    #[track_caller]
    pub fn attend(&mut self, q: Tensor, kv: Tensor, valid: Tensor, heads: u32) -> Result<Tensor> {
        self.line = Location::caller();
        self.without_gradient(ATTEND.name, &[q, kv])?;
        let y = self.make(&ATTEND, self.shape(q));
        self.record(&ATTEND, &[Some(q), Some(kv), Some(valid), Some(y)], &[heads])?;
        Ok(y)
    }

    /// [`Tape::linear`] with some rows of a weight: `y[r, n] = x[r, i] (w ⊙ mask)[outputs]ᵀ`, `n` outputs.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, if `outputs` leaves the weight, or if `x` or the weight takes a gradient;
    /// [`engine::Error::Unwritten`] for a learned mask before [`Tape::form_masks`].
    #[track_caller]
    pub fn linear_part(&mut self, x: Tensor, w: ParamId, outputs: Range<u32>) -> Result<Tensor> {
        self.line = Location::caller();
        let (weight, mask) = self.weight(GEMM.name, w)?;
        self.without_gradient(GEMM.name, &[x, weight])?;
        let rows = self.shape(weight)[0];
        if outputs.start > outputs.end || outputs.end > rows {
            return Err(self.error(GEMM.name, format!("outputs {outputs:?} are outside 0..{rows}")));
        }
        let y = self.make(&GEMM, [self.shape(x)[0], outputs.len() as u32]);
        let weight = self.some_rows(weight, &outputs);
        match mask.map(|mask| self.some_rows(mask, &outputs)) {
            None => self.record(&GEMM, &[Some(x), Some(weight), None, Some(y)], &[])?,
            mask => self.record(&MASKED_GEMM, &[Some(x), Some(weight), mask, None, None, Some(y)], &[])?,
        }
        Ok(y)
    }

    fn some_rows(&mut self, x: Tensor, rows: &Range<u32>) -> Tensor {
        let slice = self.slice(x);
        let part = Slice {
            at: slice.at.saturating_add(rows.start.saturating_mul(slice.ld)),
            rows: rows.len() as u32,
            ..slice
        };
        self.tensor(part, Life::State, false)
    }

    fn without_gradient(&self, op: &'static str, all: &[Tensor]) -> Result<()> {
        match all.iter().find(|x| self.wants(**x)) {
            Some(x) => Err(self.error(op, format!("\"{}\" takes a gradient, which does not pass", self.name(*x)))),
            None => Ok(()),
        }
    }
}
