//! Origins: where values come from. There are origins for HTTP services and for directories;
//! programs that embed the crate supply their own.
//!
//! An origin only loads. What every origin needs around it (a concurrency limit, metrics) is in
//! [`guarded`].

#[cfg(feature = "cli")]
mod attempt;
pub(crate) mod bounds;
pub(crate) mod breaker;
#[cfg(feature = "cli")]
mod cache_control;
pub(crate) mod compressed;
#[cfg(feature = "cli")]
pub(crate) mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(crate) mod guarded;
mod hedge;
#[cfg(feature = "cli")]
pub(crate) mod http;
pub(crate) mod mapped;
mod outcomes;
mod pause;
mod ramp;
#[cfg(feature = "cli")]
mod said;
