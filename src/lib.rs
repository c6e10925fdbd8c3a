//! gaocache: a read-through cache that runs as a cluster.
//!
//! Ask any node for `(group, key)`. The key's owner answers from memory, or loads the value once
//! from the group's origin. The program `gaocache` is a node that is ready to run. This crate is
//! for programs that embed nodes with loaders of their own: see `examples/embedded.rs`.
//! `ARCHITECTURE.md` describes the design.

pub mod admin;
mod backoff;
pub mod cli;
pub mod client;
pub mod config;
pub mod http;
pub mod http_client;
pub mod node;
pub mod origin;
pub mod registry;
pub mod rpc;
pub mod service;
pub mod status;
pub mod telemetry;

pub use client::{Client, ClientOptions};
pub use gaocache_core::error::{Error, ErrorKind, Result};
pub use gaocache_core::group::{Answer, GroupRules, Source};
pub use gaocache_core::ports::{Freshness, Loaded, Origin, loader};
pub use node::{GroupDefinition, Node, NodeBuilder};
