//! The cache without IO: ring, membership, flight, store, group and handoff.
//!
//! This crate decides who owns a key, what may be served, what is kept, and when a key counts as
//! removed. The program around it supplies sockets, a registry and a clock by implementing
//! [`ports`]. The crate must never do IO or read a clock other than [`ports::Clock`]; its
//! dependencies make that hard.

pub mod absence;
pub mod cluster;
pub mod copy_queue;
pub mod error;
pub mod expulsion;
pub mod fence;
pub mod flight;
pub mod group;
pub mod handoff;
pub mod hot;
pub mod identity;
pub mod joining;
pub mod key;
pub mod membership;
pub mod metadata;
pub mod notices;
pub mod per_thread;
pub mod ports;
pub mod record;
pub mod standing;
pub mod store;
pub mod tags;
pub mod time;

#[cfg(test)]
mod cuts_tests;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
#[allow(clippy::expect_used, clippy::panic)]
pub mod fuzzing;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
#[allow(clippy::expect_used, clippy::panic)]
mod harness_tests;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(clippy::expect_used, clippy::panic)]
pub mod instructions;

pub use error::{Error, ErrorKind, Result};
pub use gaocache_ring as ring;
