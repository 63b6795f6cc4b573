//! Helpers of the tests that cross a crate or a device.

pub mod cases;
pub mod golden;
pub mod gradcheck;
pub mod on_device;
pub mod online;
pub mod training;
