//! Records and differentiates ops.
//!
//! A [`Tape`] is told a step once: inputs, parameters, ops, a loss. [`Tape::backward`] appends the gradient calls,
//! [`Tape::adamw`] the update, and [`Tape::finish`] gives an [`engine::Plan`] that is bound to a device and run once
//! per step. Masks of parameters are formed from scores on the device, and no caller asks whether a parameter is
//! masked. This crate may import `engine`; it knows nothing of models, tasks or files.
//!
//! ```
//! use tsn_autograd::{AdamW, Mask, Param, Tape, Trainable, engine::DType};
//!
//! let mut tape = Tape::new();
//! let x = tape.input("x", DType::F32, 5, 3);
//! let target = tape.input("target", DType::F32, 5, 2);
//! let valid = tape.input("valid", DType::U8, 1, 5);
//! let w = tape.param(Param::new("w", 2, 3, Mask::Dense, Trainable::All));
//! let y = tape.linear(x, w, None)?;
//! let loss = tape.masked_mse(y, target, valid, None)?;
//! tape.backward(loss)?;
//! tape.adamw(&AdamW::default())?;
//! tape.output(loss, "loss");
//! let ops: Vec<_> = tape.finish()?.ops().collect();
//! assert_eq!(ops, ["gemm", "masked_mse", "fill", "masked_mse_dx", "gemm_dw", "sumsq", "clip", "adamw"]);
//! # Ok::<(), tsn_autograd::engine::Error>(())
//! ```

#![forbid(unsafe_code)]

mod backward;
mod optim;
mod param;
mod rules;
mod tape;
#[cfg(test)]
mod tests;

pub use engine;
pub use optim::{AdamW, adamw_step};
pub use param::{Mask, Param, ParamId, Select, Trainable};
pub use rules::conv::ConvShape;
pub use tape::{Tape, Tensor};
