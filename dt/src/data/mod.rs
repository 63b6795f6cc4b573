//! Trajectories and the batches made of them. No file format lives here: rows on disk are a path and an offset.

pub mod batch;
pub mod disk;
pub mod episodes;
mod observations;
mod subset;
