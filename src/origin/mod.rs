//! Origins: where values come from. HTTP services and folders; programs that embed the crate bring
//! their own.
//!
//! An origin loads and nothing else. What every origin needs around it (its bound on concurrency,
//! its metrics) is in [`guarded`].

#[cfg(feature = "cli")]
pub(crate) mod file;
pub(crate) mod guarded;
#[cfg(feature = "cli")]
pub(crate) mod http;
