//! Layer norm.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::layernorm::{LAYERNORM, LAYERNORM_DX};
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
    let mut wanted = |t: Option<Tensor>| {
        let t = t.filter(|&t| tape.wants(t))?;
        Some((t, tape.make(&LAYERNORM_DX, tape.shape(t))))
    };
    let (dw, db) = (wanted(Some(w)), wanted(b));
    // In x + f(LN(x)) the residual's gradient is there already: the kernel adds it, no call of its own.
    let so_far = tape.grad_ref(x);
    // The contract always writes dx; it stays unused if only parameters are trained.
    let dx = tape.make(&LAYERNORM_DX, tape.shape(x));
    let [own_dw, own_db] = [dw, db].map(|d| d.map(|(_, d)| d));
    let args = [Some(dy), Some(x), Some(w), Some(stats), so_far, Some(dx), own_dw, own_db];
    tape.record(&LAYERNORM_DX, &args, &[])?;
    if tape.wants(x) {
        *tape.grad_mut(x) = Some(dx);
    }
    for (t, d) in [dw, db].into_iter().flatten() {
        tape.accumulate(t, d)?;
    }
    Ok(())
}
