//! gRPC on a node's side: knows both wire types and domain types.
//!
//! [`front`] is a node's listener for clients, [`peer_front`] that for other nodes, [`gate`]
//! decides which callers that one accepts, [`cache`] and [`peer`] are the services behind them, and
//! [`peers`] calls other nodes.

mod asked_for;
mod bounded;
pub mod cache;
mod convert;
mod expected;
pub mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gate;
mod lean;
mod many;
mod many_body;
pub mod peer;
pub mod peer_front;
pub mod peers;
pub mod routed;
mod scan;
