//! One file per backend.

pub(crate) mod cpu;
