//! Rows of a table by id.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::embed::{EMBED, EMBED_DW};
use std::panic::Location;

impl Tape {
    /// `y[r] = (table ⊙ mask)[min(ids[r], v - 1)]`, shapes `ids` U32 `[1, r]`, `table[v, c]`, `y[r, c]`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, [`engine::Error::Unwritten`] for a learned mask before [`Tape::form_masks`].
    #[track_caller]
    pub fn embed(&mut self, ids: Tensor, table: ParamId) -> Result<Tensor> {
        self.line = Location::caller();
        let (w, mask) = self.weight(EMBED.name, table)?;
        let y = self.gather(ids, w, mask)?;
        let from = self.param_sources(table, None);
        self.derive(y, &from, move |tape, dy| {
            let w = tape.score_args(table).score.map(|_| w);
            tape.weight_grad(&EMBED_DW, table, &[Some(dy), Some(ids), w], &[])
        });
        Ok(y)
    }

    /// The same with a table that takes no gradient, such as a fixed time embedding.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes.
    #[track_caller]
    pub fn embed_fixed(&mut self, ids: Tensor, table: Tensor) -> Result<Tensor> {
        self.line = Location::caller();
        self.gather(ids, table, None)
    }

    fn gather(&mut self, ids: Tensor, w: Tensor, mask: Option<Tensor>) -> Result<Tensor> {
        let y = self.make(&EMBED, [self.shape(ids)[1], self.shape(w)[1]]);
        self.record(&EMBED, &[Some(ids), Some(w), mask, Some(y)], &[])?;
        Ok(y)
    }
}
