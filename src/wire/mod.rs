//! What both sides of a call know: the messages and services of `proto/gaocache/v1`, and how a
//! client of them connects.

#[cfg(feature = "etcd")]
pub mod bearer;

use std::time::Duration;

pub use generated::*;

/// The compiled descriptors of all protos, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// How long a connection may be silent while a call is under way, and how long an answer to the
/// ping then may take. Together they bound how long a node that froze (not one that died: its
/// kernel answers) holds up requests.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("gaocache.v1");
}
