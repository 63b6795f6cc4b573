//! Layer norm.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::layernorm::{LAYERNORM, LAYERNORM_DW, LAYERNORM_DX};
use std::panic::Location;

impl Tape {
    /// `y = (x - mean) * rstd * w + b` over the last axis, shapes `x[r, c]`, `w[1, c]`, `b[1, c]`, biased variance.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, or if `w` or `b` has a mask.
    #[track_caller]
    pub fn layernorm(&mut self, x: Tensor, w: ParamId, b: Option<ParamId>, eps: f32) -> Result<Tensor> {
        self.line = Location::caller();
        for p in [Some(w), b].into_iter().flatten() {
            if self.handles(p).mask.is_some() {
                let name = &self.handles(p).param.name;
                let what = format!("\"{name}\" has a mask; its parameters must be dense");
                return Err(self.error(LAYERNORM.name, what));
            }
        }
        let (weight, bias) = (self.handles(w).w, b.map(|b| self.handles(b).w));
        let y = self.make(&LAYERNORM, self.shape(x));
        let stats = self.make(&LAYERNORM, [self.shape(x)[0], 2]);
        self.record(&LAYERNORM, &[Some(x), Some(weight), bias, Some(y), Some(stats)], &[eps.to_bits()])?;
        let from = [vec![x], self.param_sources(w, b)].concat();
        self.derive(y, &from, move |tape, dy| layernorm_dx(tape, x, (weight, bias), stats, dy));
        Ok(y)
    }
}

fn layernorm_dx(tape: &mut Tape, x: Tensor, (w, b): (Tensor, Option<Tensor>), stats: Tensor, dy: Tensor) -> Result<()> {
    let b = b.filter(|&b| tape.wants(b));
    if tape.wants(w) || b.is_some() {
        // The contract always writes dw; it stays unused if only the bias is trained.
        let dw = tape.make(&LAYERNORM_DW, tape.shape(w));
        let db = b.map(|b| tape.make(&LAYERNORM_DW, tape.shape(b)));
        tape.record(&LAYERNORM_DW, &[Some(dy), Some(x), Some(stats), Some(dw), db], &[])?;
        tape.accumulate(w, dw)?;
        if let (Some(b), Some(db)) = (b, db) {
            tape.accumulate(b, db)?;
        }
    }
    if tape.wants(x) {
        // In x + f(LN(x)) the residual's gradient is there already: the kernel adds it, no call of its own.
        let so_far = tape.grad_ref(x);
        let dx = tape.make(&LAYERNORM_DX, tape.shape(x));
        tape.record(&LAYERNORM_DX, &[Some(dy), Some(x), Some(w), Some(stats), so_far, Some(dx)], &[])?;
        *tape.grad_mut(x) = Some(dx);
    }
    Ok(())
}
