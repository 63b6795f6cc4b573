//! The learner: tasks one after another in masks over shared weights, a bank on disk, metrics and accounting.
//!
//! [`Learner::learn`] routes a task, trains its subnetwork and claims its weights; [`Sequence`] does so for a list of
//! tasks and plays every task after every task. May import `dt` and `affinity`; prints nothing and writes only the
//! files it is told to.
//!
//! ```
//! use tsn::metrics::Scores;
//! use tsn::{Bank, TensorFile};
//!
//! let bytes = Bank::default().to_writer()?.encode()?;
//! let bank = Bank::from_file(TensorFile::parse(bytes)?)?;
//! assert!(bank.tasks.is_empty());
//!
//! let scores = Scores::new(&[vec![1.0, 0.0], vec![0.5, 2.0]])?;
//! assert_eq!((scores.acc(), scores.bwt()), (Some(1.25), Some(-0.5)));
//! # Ok::<(), tsn::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod adapt;
pub mod agent;
pub mod bank;
pub mod claim;
pub mod codebook;
mod consolidate;
pub mod error;
pub mod evaluate;
pub mod file;
pub mod fit;
pub mod learner;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod options;
mod prune;
pub mod recognise;
pub mod replay;
pub mod route;
pub mod scores;
pub mod sequence;
pub mod sha256;
pub mod state;
pub mod suite;
pub mod task;

pub use affinity;
pub use agent::Agent;
pub use bank::Bank;
pub use dt;
pub use error::Error;
pub use file::{TensorFile, TensorWriter};
pub use learner::{Learner, TaskReport};
pub use observe::{Event, Flow, Observer, Silent};
pub use options::{Baseline, Fisher, KeepSchedule, Options, Profile, Quantise, Selection, Strategy, WarmStart};
pub use sequence::Sequence;
pub use task::Task;
