//! Dataset files, task specs and simulators: what lies between the outside and [`dt::data::episodes::Episodes`].
//!
//! May import `dt` and libraries of the program ring. Files are hostile input: every size a file claims is checked
//! against the file before memory is taken for it, pickles are never read, and every refusal says which file, which
//! key, what was expected and what was found. Simulators are other processes ([`bridge`]) and as little trusted.
//!
//! ```
//! use tsn_dt_io::{Expect, load_npz, save_npz};
//!
//! let made = dt::env::expert::generate(&Default::default(), 1, 4, &dt::env::expert::USUAL_MIX)?;
//! let path = std::env::temp_dir().join(format!("tsn-dt-io-doc-{}.npz", std::process::id()));
//! save_npz(&made.episodes, &path)?;
//! assert_eq!(load_npz(&path, &Expect::default())?, made.episodes);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod any;
pub mod bridge;
mod error;
mod hdf5;
pub mod make;
mod npy;
mod npz;
mod parts;
mod save;
mod store;
mod tasks;
mod zip;

pub use any::{Checked, Footprint, Format, check_any, load_any, load_streamed, measure};
pub use error::{Error, Kind};
pub use hdf5::read_hdf5;
pub use npz::{Expect, load_npz, read_npz};
pub use save::{Extras, save_npz, save_npz_with};
pub use tasks::{Task, TaskSpec, datasets_below, datasets_in, find_dataset, load_spec, load_tasks, parse_spec};
