//! Runs and models of the reference implementation, made into what this program's commands read.

pub(crate) mod checkpoint;
pub(crate) mod flags;
pub(crate) mod records;
