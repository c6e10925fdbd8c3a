//! The cache itself: ring, membership, flight, store, group.
//!
//! Nothing here does IO, reads a clock other than through [`crate::ports::Clock`], or knows tonic, etcd, figment, axum or
//! prometheus; `tools/check-layers` enforces it.

pub mod cluster;
pub mod flight;
pub mod group;
pub mod hand_over;
pub mod hot;
pub mod membership;
pub mod ring;
pub mod store;
pub mod tally;
pub mod trust;

#[cfg(test)]
mod harness_tests;
