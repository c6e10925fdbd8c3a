//! gRPC: the only module that knows both wire types and domain types.
//!
//! [`front`] is a node's listener for clients, [`peer_front`] that for other nodes, [`gate`]
//! decides which callers that one accepts, [`cache`] and [`peer`] are the services behind them, and
//! [`peers`] calls other nodes.

mod asked_for;
#[cfg(feature = "etcd")]
pub mod bearer;
mod bounded;
pub mod cache;
mod convert;
pub mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gate;
mod lean;
mod many;
pub mod peer;
pub mod peer_front;
pub mod peers;
pub mod routed;
mod scan;

/// The generated code of `proto/gaocache/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod wire {
    tonic::include_proto!("gaocache.v1");

    /// The compiled descriptors of all protos, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
