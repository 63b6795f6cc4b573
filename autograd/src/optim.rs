//! AdamW over all trainable entries, after one clip of their common gradient norm.

use crate::param::Trainable;
use crate::tape::{Tape, Tensor};
use engine::kernels::ops::adamw::{ADAMW, CLIP, SUMSQ};
use engine::kernels::ops::consolidate::{PATH_INTEGRAL, PULL};
use engine::{DType, Life, Result, Slice};
use std::panic::Location;

/// Options of [`Tape::adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay: a step shrinks an entry by `lr * weight_decay`. Scores decay too.
    pub weight_decay: f32,
    /// Largest L2 norm of all gradients together; `None` does not clip.
    pub max_norm: Option<f32>,
    /// Learning rate of scores relative to that of weights.
    pub score_lr_scale: f32,
    /// Strength of the pull of every weight `<name>` towards the state `<name>.anchor`, entry by entry as much as the
    /// state `<name>.importance` says. Scores are not pulled. `None` records no pull.
    pub pull: Option<f32>,
    /// Adds up in the state `<name>.path` how much the updates of every weight lowered the loss, to first order, the
    /// pull left out. `<name>.last` must hold the weight before the first update.
    pub path_integral: bool,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-4,
            max_norm: Some(1.0),
            score_lr_scale: 1.0,
            pull: None,
            path_integral: false,
        }
    }
}

/// The input `step` F32 `[1, 4]` for update number `t` (from 1): `(lr, 1 - beta1^t, 1 - beta2^t, 0)`, computed in f64.
pub fn adamw_step(lr: f64, beta1: f32, beta2: f32, t: u64) -> [f32; 4] {
    let correction = |beta: f32| (1.0 - f64::from(beta).powf(t as f64)) as f32;
    [lr as f32, correction(beta1), correction(beta2), 0.0]
}

/// One tensor to update.
struct Update {
    name: String,
    p: Tensor,
    g: Tensor,
    trainable: Option<Tensor>,
    lr_scale: f32,
    is_score: bool,
}

impl Tape {
    /// Records one AdamW step of every parameter and score that has a gradient.
    ///
    /// Entries outside `<name>.free` of a [`Trainable::Free`] parameter are not written and do not count in the norm.
    /// Adds the input `step` (see [`adamw_step`]), the moments as states, and the output `grad_norm` `[1, 1]`: the norm
    /// before clipping, pull included. Returns that output.
    ///
    /// # Errors
    /// [`engine::Error::Call`] if nothing has a gradient.
    ///
    /// Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    #[track_caller]
    pub fn adamw(&mut self, options: &AdamW) -> Result<Tensor> {
        self.line = Location::caller();
        let mut updates = self.updates(options);
        if updates.is_empty() {
            return Err(self.error(ADAMW.name, "no parameter has a gradient; call backward first".into()));
        }
        // The gradients of the loss alone; what follows may change those of the updates.
        let path: Vec<_> = match options.path_integral {
            true => updates.iter().filter(|u| !u.is_score).map(|u| (u.name.clone(), u.p, u.g)).collect(),
            false => Vec::new(),
        };
        if let Some(strength) = options.pull {
            for update in updates.iter_mut().filter(|u| !u.is_score) {
                let [importance, anchor] = self.companions(update.p, &update.name, [".importance", ".anchor"]);
                let pulled = self.make(&PULL, self.shape(update.p));
                let args = [update.g, importance, update.p, anchor, pulled].map(Some);
                self.record(&PULL, &args, &[strength.to_bits()])?;
                update.g = pulled;
            }
        }
        let sums = self.buffer(SUMSQ.name, DType::F32, [1, updates.len() as u32], Life::Temp, false);
        for (at, update) in (0..).zip(&updates) {
            let column = Slice { at, cols: 1, ..self.slice(sums) };
            let column = self.tensor(column, Life::Temp, false);
            self.record(&SUMSQ, &[Some(update.g), update.trainable, Some(column)], &[])?;
        }
        let norm = self.buffer("grad_norm", DType::F32, [1, 1], Life::Output, false);
        let factor = self.make(&CLIP, [1, 1]);
        let max_norm = options.max_norm.unwrap_or(f32::INFINITY);
        self.record(&CLIP, &[Some(sums), Some(norm), Some(factor)], &[max_norm.to_bits()])?;
        let clip = options.max_norm.map(|_| factor);
        let step = self.input("step", DType::F32, 1, 4);
        for Update { name, p, g, trainable, lr_scale, .. } in updates {
            let [m, v] = self.companions(p, &name, [".m", ".v"]);
            let AdamW { beta1, beta2, eps, weight_decay, .. } = *options;
            let scalars = [beta1, beta2, eps, weight_decay, lr_scale].map(f32::to_bits);
            self.record(&ADAMW, &[Some(g), trainable, Some(step), clip, Some(p), Some(m), Some(v)], &scalars)?;
        }
        for (name, p, g) in path {
            let [last, path] = self.companions(p, &name, [".last", ".path"]);
            self.record(&PATH_INTEGRAL, &[g, p, last, path].map(Some), &[])?;
        }
        Ok(norm)
    }

    /// State buffers in the shape of a parameter, `<name><suffix>` each.
    fn companions(&mut self, p: Tensor, name: &str, suffixes: [&str; 2]) -> [Tensor; 2] {
        let [rows, cols] = self.shape(p);
        suffixes.map(|suffix| self.state(&format!("{name}{suffix}"), DType::F32, rows, cols))
    }

    fn updates(&self, options: &AdamW) -> Vec<Update> {
        let mut updates = Vec::new();
        for h in &self.params {
            let name = &h.param.name;
            if let Some(g) = self.grad_ref(h.w) {
                let trainable = h.free.filter(|_| h.param.trainable == Trainable::Free);
                updates.push(Update { name: name.clone(), p: h.w, g, trainable, lr_scale: 1.0, is_score: false });
            }
            if let Some((score, g)) = h.score.and_then(|s| Some((s, self.grad_ref(s)?))) {
                let lr_scale = options.score_lr_scale;
                let name = format!("{name}.score");
                updates.push(Update { name, p: score, g, trainable: None, lr_scale, is_score: true });
            }
        }
        updates
    }
}
