//! Products with dense and masked weights.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::conv::CONV;
use engine::kernels::ops::gemm::{GEMM, GEMM_DW, GEMM_DX};
use engine::kernels::ops::masked_gemm::{MASKED_GEMM, MASKED_GEMM_DW, MASKED_GEMM_DX};
use std::panic::Location;

impl Tape {
    /// `y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask`, shapes `x[r, i]`, `w[o, i]`, `bias[1, o]`, `y[r, o]`.
    ///
    /// Weight and bias each have their own mask or none; the contract is picked from them.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, [`engine::Error::Unwritten`] for a learned mask before [`Tape::form_masks`].
    #[track_caller]
    pub fn linear(&mut self, x: Tensor, w: ParamId, bias: Option<ParamId>) -> Result<Tensor> {
        self.line = Location::caller();
        let y = self.product(x, w, bias, None)?;
        let from = [vec![x], self.param_sources(w, bias)].concat();
        self.derive(y, &from, move |tape, dy| {
            if let Some(bias) = bias {
                tape.bias_grad(bias, dy, 1)?;
            }
            product_dw(tape, x, w, dy)?;
            product_dx(tape, x, w, dy)
        });
        Ok(y)
    }

    /// `y = gelu(x (up ⊙ mask)ᵀ) (down ⊙ mask)ᵀ`, shapes `x[r, i]`, `up[h, i]`, `down[o, h]`, `y[r, o]`.
    ///
    /// [`Tape::linear`], [`Tape::gelu`] and [`Tape::linear`], with the GELU and its gradient inside the products: the slope is
    /// kept in place of what went into it.
    ///
    /// # Errors
    /// As [`Tape::linear`].
    #[track_caller]
    pub fn feed_forward(&mut self, x: Tensor, up: ParamId, down: ParamId) -> Result<Tensor> {
        self.line = Location::caller();
        let from = [vec![x], self.param_sources(up, None), self.param_sources(down, None)].concat();
        if !from.iter().any(|&t| self.wants(t)) {
            let wide = self.linear(x, up, None)?;
            let wide = self.gelu(wide)?;
            return self.linear(wide, down, None);
        }
        let (weight, _) = self.weight(GEMM.name, up)?;
        let slope = self.make(&GEMM, [self.shape(x)[0], self.shape(weight)[0]]);
        let wide = self.product(x, up, None, Some(slope))?;
        let y = self.product(wide, down, None, None)?;
        self.derive(y, &from, move |tape, dy| {
            product_dw(tape, wide, down, dy)?;
            if [vec![x], tape.param_sources(up, None)].concat().iter().all(|&t| !tape.wants(t)) {
                return Ok(());
            }
            let dwide = product_back(tape, dy, down, tape.shape(wide), Some(slope))?;
            product_dw(tape, x, up, dwide)?;
            product_dx(tape, x, up, dwide)
        });
        Ok(y)
    }

    /// Records a product, and with `slope` the GELU of it.
    fn product(&mut self, x: Tensor, w: ParamId, bias: Option<ParamId>, slope: Option<Tensor>) -> Result<Tensor> {
        let (weight, mask) = self.weight(GEMM.name, w)?;
        let (b, bias_mask) = match bias {
            Some(bias) => self.weight(GEMM.name, bias).map(|(b, mask)| (Some(b), mask))?,
            None => (None, None),
        };
        let ([rows, inputs], outputs) = (self.shape(x), self.shape(weight)[0]);
        let y;
        match (mask, bias_mask) {
            (None, None) => {
                y = self.make(&GEMM, [rows, outputs]);
                self.record(&GEMM, &[Some(x), Some(weight), b, Some(y), slope], &[])?;
            }
            // No product has a dense weight and a masked bias; a convolution of 1 x 1 images is one.
            (None, Some(_)) => {
                debug_assert!(slope.is_none(), "a product that ends in a GELU has no bias");
                y = self.make(&CONV, [rows, outputs]);
                let image = [inputs, 1, 1, 1, 1, 1];
                self.record(&CONV, &[Some(x), Some(weight), None, b, bias_mask, Some(y)], &image)?;
            }
            (Some(_), _) => {
                y = self.make(&MASKED_GEMM, [rows, outputs]);
                self.record(&MASKED_GEMM, &[Some(x), Some(weight), mask, b, bias_mask, Some(y), slope], &[])?;
            }
        }
        Ok(y)
    }
}

/// Gradient of the weight of a product, and of its score.
fn product_dw(tape: &mut Tape, x: Tensor, w: ParamId, dy: Tensor) -> Result<()> {
    let (weight, mask) = (tape.handles(w).w, tape.handles(w).mask);
    if mask.is_some() {
        return tape.weight_grad(&MASKED_GEMM_DW, w, &[Some(dy), Some(x), Some(weight)], &[]);
    }
    if !tape.wants(weight) {
        return Ok(());
    }
    let dw = tape.make(&GEMM_DW, tape.shape(weight));
    tape.record(&GEMM_DW, &[Some(dy), Some(x), Some(dw)], &[])?;
    tape.accumulate(weight, dw)
}

/// Gradient of the input of a product, if it wants one.
fn product_dx(tape: &mut Tape, x: Tensor, w: ParamId, dy: Tensor) -> Result<()> {
    if !tape.wants(x) {
        return Ok(());
    }
    let dx = product_back(tape, dy, w, tape.shape(x), None)?;
    tape.accumulate(x, dx)
}

/// `dy (w ⊙ mask)`, times the slope if there is one.
fn product_back(tape: &mut Tape, dy: Tensor, w: ParamId, shape: [u32; 2], slope: Option<Tensor>) -> Result<Tensor> {
    let (weight, mask) = (tape.handles(w).w, tape.handles(w).mask);
    let dx;
    if mask.is_some() {
        dx = tape.make(&MASKED_GEMM_DX, shape);
        tape.record(&MASKED_GEMM_DX, &[Some(dy), Some(weight), mask, Some(dx), slope], &[])?;
    } else {
        dx = tape.make(&GEMM_DX, shape);
        tape.record(&GEMM_DX, &[Some(dy), Some(weight), Some(dx), slope], &[])?;
    }
    Ok(dx)
}
