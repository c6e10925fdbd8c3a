//! Fuzz targets: everything that reads bytes from outside, and what has to hold whatever they are.
//!
//! A target is a plain function of bytes. `tests/corpus.rs` runs each with the inputs that are
//! checked in, and `make fuzz-quick` and `make fuzz` with those that libFuzzer writes. A target
//! must assert more than that nothing panics: a bound on memory, a round trip, or the answer of a
//! second implementation. `bugs` has a bug for each, which it has to find.
#![cfg(feature = "targets")]
// A target has nothing else to tell by.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod memory;
mod targets;
mod text;

pub use targets::{TARGETS, Target};

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|it| it.name == name)
}
