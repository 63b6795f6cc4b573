//! Files of the learner: round trips, damage, hostile bytes, faults while writing, agreement with the reference reader.

mod contradictions;
mod counting;
mod damage;
mod hostile;
mod memory;
mod round_trips;
mod samples;
mod writing;
