//! Decision maths of routing: which earlier task is a new one closest to, and what follows from that.
//!
//! Owns statistics of latents ([`Gaussian`], [`Prototypes`]), the measures between two tasks ([`score`]), the rules that
//! turn measures into a copy and a source ([`decide`]) and the filter that names the task being played ([`online`]).
//! Everything here is a pure function of numbers the caller collected, in f64 but for the cosines of whole lists of
//! vectors, and gives the same result on every run. May import `engine`; knows no model and no file.
//!
//! ```
//! use tsn_affinity_math::{Candidate, Policy, Target, decide, score};
//!
//! // Two finished tasks in copy 0; the second predicts the new task's three actions better than chance.
//! let earlier = [
//!     Candidate { action: Some(2.30), ..Candidate::new(0, 0) },
//!     Candidate { action: Some(0.55), ..Candidate::new(1, 0) },
//! ];
//! let target = Target { chance: Some(score::chance_discrete(3)?), width: None };
//! let decision = decide(&Policy::corrected(), &target, &earlier)?;
//! assert_eq!((decision.copy, decision.source, decision.warm_start), (0, Some(1), true));
//! # Ok::<(), tsn_affinity_math::Error>(())
//! ```
#![forbid(unsafe_code)]

mod cluster;
pub mod decide;
mod error;
pub mod graph;
pub mod hierarchy;
pub mod index;
pub mod online;
pub mod score;
mod single;
mod stats;

pub use cluster::{Origin, Prototypes};
pub use decide::{
    Candidate, Decision, Mode, Normalise, Pick, Policy, Row, Spawn, Target, Thresholds, Units, WarmStart, decide,
};
pub use engine;
pub use error::{Error, Result};
pub use stats::{Gaussian, cosine, sym_kl, w2_squared};
