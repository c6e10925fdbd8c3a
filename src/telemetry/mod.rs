//! What a running node tells of itself: metrics and logs.

pub mod log;
pub mod metrics;
pub mod names;
pub mod throttle;
