//! What a running node tells of itself: metrics, logs and traces.

#[cfg(feature = "cli")]
pub(crate) mod exporter;
pub(crate) mod level;
#[cfg(feature = "cli")]
pub(crate) mod log;
pub(crate) mod metrics;
pub mod names;
#[cfg(feature = "cli")]
pub(crate) mod process;
mod spans;
pub(crate) mod throttle;
pub(crate) mod trace;
