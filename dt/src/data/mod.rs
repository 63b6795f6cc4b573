//! Trajectories in memory and the batches made of them. No file format lives here.

pub mod batch;
pub mod episodes;
