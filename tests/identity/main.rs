//! Which callers the listener for nodes accepts: attackers with network access, and members that
//! pretend to be others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacker;
mod calls;
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod keys;
mod strangers;
