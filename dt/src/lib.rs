//! The Decision Transformer and what it feeds on: environments, trajectories, batches.
//!
//! May import `autograd` (which re-exports the engine and the kernels) and nothing of tasks, masks or file formats.
//!
//! ```
//! use tsn_dt::data::{batch::{Sampler, Sampling}, episodes::Target};
//! use tsn_dt::env::{cartpole::CartPoleParams, expert};
//!
//! let made = expert::generate(&CartPoleParams::default(), 1, 10, &expert::USUAL_MIX)?;
//! assert_eq!(made.episodes.target_return(Target::Max), 500.0);
//!
//! let split = made.episodes.split(5)?;
//! let sampler = Sampler::new(&made.episodes, &split.train, Sampling::new(8, 20))?;
//! let mut batch = sampler.batch();
//! sampler.fill(&mut batch, 0);
//! assert_eq!(batch.valid.len(), 8 * 20);
//! # Ok::<(), tsn_dt::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod config;
pub mod data;
pub mod decision;
mod encoder;
pub mod env;
pub mod error;
pub mod history;
pub mod model;
pub mod rollout;
pub mod train;

pub use autograd;
pub use error::Error;
