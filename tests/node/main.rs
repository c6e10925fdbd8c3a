//! Nodes over real sockets: both listeners, agreement between nodes, removal, readiness, drain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod lifecycle;
mod limits;
mod listeners;
mod refusals;
mod sockets;
