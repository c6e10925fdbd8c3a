//! gaocache: a read-through cache that runs as a cluster.
//!
//! Ask any node for `(group, key)`; the key's owner answers from memory or loads the value once from the group's origin. The program
//! `gaocache` is a node ready to run. This crate is the same for programs that embed nodes with loaders of their own:
//! see `examples/embedded.rs`. `ARCHITECTURE.md` shows the house on one page.

pub mod admin;
mod backoff;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod discovery;
pub mod error;
pub mod http;
pub mod node;
pub mod origin;
pub mod ports;
pub mod registry;
pub mod rpc;
pub mod service;
pub mod telemetry;

pub use client::{Client, ClientOptions};
pub use core::group::{Answer, GroupRules, Source};
pub use error::{Error, ErrorKind, Result};
pub use node::{GroupDefinition, Node, NodeBuilder};
pub use ports::{Freshness, Loaded, Origin, loader};
