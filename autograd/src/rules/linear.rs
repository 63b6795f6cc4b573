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
                self.record(&GEMM, &[Some(x), Some(weight), b, Some(y)], &[])?;
            }
            // No product has a dense weight and a masked bias; a convolution of 1 x 1 images is one.
            (None, Some(_)) => {
                y = self.make(&CONV, [rows, outputs]);
                let image = [inputs, 1, 1, 1, 1, 1];
                self.record(&CONV, &[Some(x), Some(weight), None, b, bias_mask, Some(y)], &image)?;
            }
            (Some(_), _) => {
                y = self.make(&MASKED_GEMM, [rows, outputs]);
                self.record(&MASKED_GEMM, &[Some(x), Some(weight), mask, b, bias_mask, Some(y)], &[])?;
            }
        }
        let from = [vec![x], self.param_sources(w, bias)].concat();
        self.derive(y, &from, move |tape, dy| linear_dx(tape, x, w, bias, dy));
        Ok(y)
    }
}

fn linear_dx(tape: &mut Tape, x: Tensor, w: ParamId, bias: Option<ParamId>, dy: Tensor) -> Result<()> {
    let (weight, mask) = (tape.handles(w).w, tape.handles(w).mask);
    if let Some(bias) = bias {
        tape.bias_grad(bias, dy, 1)?;
    }
    if mask.is_some() {
        tape.weight_grad(&MASKED_GEMM_DW, w, &[Some(dy), Some(x), Some(weight)], &[])?;
    } else if tape.wants(weight) {
        let dw = tape.make(&GEMM_DW, tape.shape(weight));
        tape.record(&GEMM_DW, &[Some(dy), Some(x), Some(dw)], &[])?;
        tape.accumulate(weight, dw)?;
    }
    if !tape.wants(x) {
        return Ok(());
    }
    let shape = tape.shape(x);
    let dx = match mask {
        Some(_) => {
            let dx = tape.make(&MASKED_GEMM_DX, shape);
            tape.record(&MASKED_GEMM_DX, &[Some(dy), Some(weight), mask, Some(dx)], &[])?;
            dx
        }
        None => {
            let dx = tape.make(&GEMM_DX, shape);
            tape.record(&GEMM_DX, &[Some(dy), Some(weight), Some(dx)], &[])?;
            dx
        }
    };
    tape.accumulate(x, dx)
}
