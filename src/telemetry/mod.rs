//! Metrics, logs and traces of a running node.

#[cfg(feature = "cli")]
pub(crate) mod exporter;
#[cfg(feature = "cli")]
mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(crate) mod level;
pub(crate) mod line;
pub(crate) mod line_writer;
#[cfg(feature = "cli")]
pub(crate) mod log;
pub(crate) mod metrics;
pub mod names;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
pub(crate) mod process;
pub(crate) mod recent;
pub(crate) mod requests;
mod spans;
pub(crate) mod throttle;
pub(crate) mod trace;
