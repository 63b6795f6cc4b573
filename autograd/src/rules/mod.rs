//! One file per kind of op: the tape method that records the forward call, and the function that records its gradient.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod decision;
pub(crate) mod embed;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod tokens;

use crate::param::{ParamId, ScoreArgs};
use crate::tape::{Tape, Tensor};
use engine::kernels::ops::gemm::BIAS_DW;
use engine::kernels::ops::masked_gemm::MASKED_BIAS_DW;
use engine::{Contract, Result};

impl Tape {
    /// Records the weight gradient of a maskable parameter and, if its score learns, the straight-through one.
    ///
    /// `op` takes `lead`, then mask, score, candidates, `dw` and `ds`.
    fn weight_grad(
        &mut self,
        op: &'static Contract,
        p: ParamId,
        lead: &[Option<Tensor>],
        scalars: &[u32],
    ) -> Result<()> {
        let (w, mask) = (self.handles(p).w, self.handles(p).mask);
        if !self.wants(w) {
            return Ok(());
        }
        let ScoreArgs { score, candidates } = self.score_args(p);
        let dw = self.make(op, self.shape(w));
        let ds = score.map(|s| self.make(op, self.shape(s)));
        let args = [lead, &[mask, score, candidates, Some(dw), ds]].concat();
        self.record(op, &args, scalars)?;
        self.accumulate(w, dw)?;
        match (score, ds) {
            (Some(score), Some(ds)) => self.accumulate(score, ds),
            _ => Ok(()),
        }
    }

    /// Records the gradient of a bias that was added to `inner` columns for each of its entries.
    fn bias_grad(&mut self, bias: ParamId, dy: Tensor, inner: u32) -> Result<()> {
        let (b, mask) = (self.handles(bias).w, self.handles(bias).mask);
        if mask.is_some() {
            return self.weight_grad(&MASKED_BIAS_DW, bias, &[Some(dy), Some(b)], &[inner]);
        }
        if !self.wants(b) {
            return Ok(());
        }
        let db = self.make(&BIAS_DW, self.shape(b));
        self.record(&BIAS_DW, &[Some(dy), Some(db)], &[inner])?;
        self.accumulate(b, db)
    }

    /// What may want a gradient behind a weight and a bias.
    fn param_sources(&self, w: ParamId, bias: Option<ParamId>) -> Vec<Tensor> {
        let bias = bias.into_iter().flat_map(|b| self.sources(b));
        self.sources(w).chain(bias).collect()
    }
}
