//! The learner: what it keeps on disk, how it is scored and what it costs.
//!
//! This crate owns banks (copies of shared weights and the tasks learned in them), the file they lie in, metrics and
//! memory accounting. It may import `dt` and `affinity`, and never a library of the program ring.
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

pub mod bank;
pub mod error;
pub mod file;
pub mod memory;
pub mod metrics;
pub mod sha256;

pub use bank::Bank;
pub use error::Error;
pub use file::{TensorFile, TensorWriter};
