//! gaocache: a read-through cache that runs as a cluster.
//!
//! Ask any node for `(group, key)`: the key's owner answers from memory, or loads the value once
//! from the group's origin, however many callers ask. The program `gaocache` is a node ready
//! to run. This crate lets a program embed a node with its own loaders:
//!
//! ```
//! use std::time::Duration;
//! use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! // Runs once per missing key, however many callers ask.
//! let squares = loader(async |key: String| match key.parse::<u64>() {
//!     Ok(number) => Ok((number * number).to_string()),
//!     Err(_) => Err(Error::not_found("not a number")),
//! });
//! let node = NodeBuilder::new(Settings::standalone("only"))
//!     .group(GroupDefinition::new("squares", squares).ttl(Duration::from_secs(60)))
//!     .bind()
//!     .await?;
//! let cache = node.cache();
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let running = tokio::spawn(node.run(async { drop(stopped.await) }));
//!
//! assert_eq!(cache.get("squares", "12").await?.value, "144");
//! cache.remove("squares", "12").await?;
//!
//! drop(stop);
//! running.await.expect("no panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! That node is alone. To share the keys among several, give each a listener for other nodes
//! ([`Settings::new`], or [`Settings::loopback`] for tests) and one [`Registry`] in which they find
//! each other; the calls stay the same. HTTP and admin listeners are optional.
//! `examples/embedded.rs` runs three nodes in one process.
//!
//! # Features
//!
//! | feature | brings | needs |
//! |---|---|---|
//! | `cli` (default) | the program `gaocache`: command line, settings from files and variables, HTTP and file origins, trace export | `protoc`, for `etcd` |
//! | `etcd` | `Registry::etcd` and `Client` | `protoc` |
//!
//! Programs that embed a node want `default-features = false`, and `features = ["etcd"]` where
//! nodes find each other in etcd. The etcd client compiles etcd's protocol definitions at build
//! time, and needs [`protoc`](https://protobuf.dev/installation/) for that: on the `PATH`, or named
//! by the variable `PROTOC`. Nothing else does.
//!
//! # Origins
//!
//! An origin is a closure in a [`loader`], or implements [`Origin`]:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use gaocache::{BoxError, Bytes, Freshness, GroupDefinition, Loaded, Origin, async_trait};
//!
//! /// So many zeros.
//! struct Zeros;
//!
//! #[async_trait]
//! impl Origin for Zeros {
//!     async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
//!         let value = Bytes::from(vec![0; key.parse::<u16>()?.into()]);
//!         Ok(Loaded::from(value).with_freshness(Freshness::For(Duration::from_secs(5))))
//!     }
//! }
//!
//! let group = GroupDefinition::new("zeros", Arc::new(Zeros));
//! # drop(group);
//! ```

mod admin;
mod answer;
mod auth;
mod backoff;
mod cache;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "etcd")]
mod client;
mod clock;
mod coding;
#[cfg(feature = "cli")]
mod config;
mod fairness;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod http;
#[cfg(feature = "cli")]
mod http_client;
#[doc(hidden)]
pub mod internal;
mod members;
mod node;
mod origin;
mod redis;
mod registry;
mod rpc;
mod service;
mod settings;
mod status;
mod telemetry;
mod tls;
mod traffic;
mod wire;

pub use answer::Answer;
#[doc(no_inline)]
pub use async_trait::async_trait;
#[doc(no_inline)]
pub use auth::{Action, AuditTo, AuthRules};
#[doc(no_inline)]
pub use bytes::Bytes;
pub use cache::Cache;
#[cfg(feature = "etcd")]
pub use client::{Client, ClientOptions};
pub use gaocache_core::{
    absence::NotFoundBody,
    error::{BoxError, Error, ErrorKind, Fault, Result},
    group::{Query, Source},
    metadata::Metadata,
    ports::{Freshness, Loaded, Origin, Reloaded, loader},
};
#[cfg(feature = "etcd")]
pub use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};
pub use group::GroupDefinition;
pub use node::{Addresses, Node, NodeBuilder, NodeStatus};
pub use origin::breaker::BreakerRules;
pub use registry::Registry;
pub use settings::{
    ClientCertificates, ClientLimits, ListenerTls, PeerIdentity, Replicate, Settings,
};
pub use telemetry::trace::Sampling;
#[cfg(feature = "etcd")]
pub use tls::ClientTls;
