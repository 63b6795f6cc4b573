//! Parameters: a weight, its mask and score, and what of it may change.

use crate::tape::{Tape, Tensor};
use engine::kernels::ops::topk::TOPK;
use engine::{DType, Error, Life, Result};
use std::panic::Location;

/// A parameter on a tape. Valid only for the tape that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(u32);

/// Which entries of a weight take part in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All; there is no mask.
    Dense,
    /// Those whose bit the host has set in `<name>.mask`.
    Fixed,
    /// The `k` of largest `|score|`, chosen at the start of every step.
    Learned(Select),
}

/// What a learned mask may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Any entry.
    Any,
    /// Free entries.
    Free,
    /// `k` of the free and `k_occupied` of the occupied entries, each ranked on its own.
    Split,
}

/// Which entries of a weight an optimiser step may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// All.
    All,
    /// Those whose bit is set in `<name>.free`.
    Free,
    /// None: no gradient at all, neither of the weight nor of its score.
    Frozen,
}

/// A weight `[rows, cols]` and how it is masked and trained.
///
/// It owns these state buffers; the host fills and reads them by name.
///
/// | name | type | present |
/// |---|---|---|
/// | `<name>` | F32 `[rows, cols]` | always |
/// | `<name>.mask` | bits `[rows, cols]` | unless dense; written by the step if learned |
/// | `<name>.score` | F32 `[rows, cols]` | learned |
/// | `<name>.free` | bits `[rows, cols]` | trainable free, select free or split |
/// | `<name>.occupied` | bits `[rows, cols]` | select split |
/// | `<name>.k` | U32 `[1, 1]` | learned: entries to choose (of the free ones for split) |
/// | `<name>.k_occupied` | U32 `[1, 1]` | select split |
/// | `<name>.m`, `<name>.v` | F32 `[rows, cols]` | updated by [`Tape::adamw`] |
/// | `<name>.score.m`, `<name>.score.v` | F32 `[rows, cols]` | score updated by [`Tape::adamw`] |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name of the weight's buffer and prefix of the others.
    pub name: String,
    /// Outputs; 1 for a bias.
    pub rows: u32,
    /// Inputs.
    pub cols: u32,
    /// Which entries the forward pass reads.
    pub mask: Mask,
    /// Which entries the optimiser changes.
    pub trainable: Trainable,
    /// Top-k keeps every entry that ties with the k-th (profile `official`); otherwise exactly k, lower index first.
    pub ties: bool,
    /// The score gradient is zero outside the candidates (profile `corrected`). Matters for [`Select::Free`].
    pub restrict_score: bool,
}

impl Param {
    /// A parameter of profile `corrected`: exactly k entries, score gradients restricted to the candidates.
    pub fn new(name: impl Into<String>, rows: u32, cols: u32, mask: Mask, trainable: Trainable) -> Param {
        Param { name: name.into(), rows, cols, mask, trainable, ties: false, restrict_score: true }
    }
}

/// A parameter with its buffers.
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    pub(crate) param: Param,
    pub(crate) w: Tensor,
    pub(crate) mask: Option<Tensor>,
    pub(crate) score: Option<Tensor>,
    pub(crate) free: Option<Tensor>,
    occupied: Option<Tensor>,
    k: Option<Tensor>,
    k_occupied: Option<Tensor>,
    /// The mask is written: by the host, or by [`Tape::form_masks`].
    formed: bool,
}

/// The arguments of a weight-gradient call that concern a learned mask, absent for others.
pub(crate) struct ScoreArgs {
    pub(crate) score: Option<Tensor>,
    pub(crate) candidates: Option<Tensor>,
}

impl Tape {
    /// Declares a parameter and its state buffers.
    pub fn param(&mut self, param: Param) -> ParamId {
        let shape = [param.rows, param.cols];
        let learned = matches!(param.mask, Mask::Learned(_));
        let split = param.mask == Mask::Learned(Select::Split);
        let has_free = param.trainable == Trainable::Free || split || param.mask == Mask::Learned(Select::Free);
        let trains = param.trainable != Trainable::Frozen;
        let mut state = |present: bool, suffix: &str, dtype, shape, wanted| {
            let name = format!("{}{suffix}", param.name);
            present.then(|| self.buffer(&name, dtype, shape, Life::State, wanted))
        };
        let w = state(true, "", DType::F32, shape, trains).expect("the weight is always present");
        let handles = Handles {
            w,
            mask: state(param.mask != Mask::Dense, ".mask", DType::Bits, shape, false),
            score: state(learned, ".score", DType::F32, shape, trains),
            free: state(has_free, ".free", DType::Bits, shape, false),
            occupied: state(split, ".occupied", DType::Bits, shape, false),
            k: state(learned, ".k", DType::U32, [1, 1], false),
            k_occupied: state(split, ".k_occupied", DType::U32, [1, 1], false),
            formed: !learned,
            param,
        };
        self.params.push(handles);
        ParamId(self.params.len() as u32 - 1)
    }

    /// Records top-k for every learned parameter declared so far whose mask is not yet formed.
    ///
    /// # Errors
    /// [`Error::Call`] as for any call.
    #[track_caller]
    pub fn form_masks(&mut self) -> Result<()> {
        self.line = Location::caller();
        for at in 0..self.params.len() {
            let p = self.params[at].clone();
            let Mask::Learned(select) = p.param.mask else { continue };
            if p.formed {
                continue;
            }
            let ties = [u32::from(p.param.ties)];
            match select {
                Select::Any => self.record(&TOPK, &[p.score, None, None, p.k, p.mask], &ties)?,
                Select::Free => self.record(&TOPK, &[p.score, p.free, None, p.k, p.mask], &ties)?,
                Select::Split => {
                    let chosen = self.buffer(TOPK.name, DType::Bits, self.shape(p.w), Life::Temp, false);
                    self.record(&TOPK, &[p.score, p.free, None, p.k, Some(chosen)], &ties)?;
                    self.record(&TOPK, &[p.score, p.occupied, Some(chosen), p.k_occupied, p.mask], &ties)?;
                }
            }
            self.params[at].formed = true;
        }
        Ok(())
    }

    pub(crate) fn handles(&self, p: ParamId) -> &Handles {
        &self.params[p.0 as usize]
    }

    /// Weight and mask for a forward call.
    pub(crate) fn weight(&self, op: &'static str, p: ParamId) -> Result<(Tensor, Option<Tensor>)> {
        let Handles { w, mask, formed, param, .. } = self.handles(p);
        match formed {
            true => Ok((*w, *mask)),
            // The buffer itself counts as written, as every state does; last step's bits would be read.
            false => Err(Error::Unwritten { op, buffer: format!("{}.mask", param.name), at: self.line }),
        }
    }

    /// What a forward call reads of a parameter and what may want a gradient.
    pub(crate) fn sources(&self, p: ParamId) -> impl Iterator<Item = Tensor> + use<> {
        let Handles { w, score, .. } = self.handles(p);
        [Some(*w), *score].into_iter().flatten()
    }

    /// Score and candidates for a weight-gradient call; absent if the score takes no gradient.
    pub(crate) fn score_args(&self, p: ParamId) -> ScoreArgs {
        let Handles { param, score, free, .. } = self.handles(p);
        let score = score.filter(|&s| self.wants(s));
        let restricted = param.restrict_score && param.mask == Mask::Learned(Select::Free);
        ScoreArgs { score, candidates: free.filter(|_| restricted && score.is_some()) }
    }
}
