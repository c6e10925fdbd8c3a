//! What the program, the tests and the benches of this package need beside the API. It is not part
//! of the API: anything here may change or go at any time.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    Node, Registry,
    registry::{Choice, memory::MemoryRegistry},
};
use gaocache_core::{cluster::Topology, ports};

pub use crate::{
    admin::RingReport,
    clock::unix_seconds,
    redis::reference as redis_commands,
    status::{codes, redis::code as redis_code},
    telemetry::names,
};
#[cfg(feature = "cli")]
pub use crate::{
    allocator::Allocator,
    cli::{Cli, main},
    config::{Config, loopback, schema},
    http_client::plain as plain_client,
    node::configured::start_telemetry,
};

/// The messages and services between clients and nodes.
pub mod wire {
    pub use crate::wire::*;
}

/// The current ring, and every later one.
pub fn rings(node: &Node) -> watch::Receiver<Arc<Topology>> {
    node.rings()
}

/// Why a node is not ready; empty if it is ready.
pub fn readiness(node: &Node) -> watch::Receiver<Arc<str>> {
    node.readiness()
}

/// A registry for the nodes of one process, which a test can join too.
pub fn memory() -> Arc<dyn ports::Registry> {
    Arc::new(MemoryRegistry::default())
}

/// A registry of a test.
pub fn registry(registry: Arc<dyn ports::Registry>) -> Registry {
    Registry(Choice::Made(registry))
}

/// A node as the program's settings want it.
///
/// # Errors
/// An origin that can't work.
#[cfg(feature = "cli")]
pub fn configured(config: &Config) -> crate::Result<crate::NodeBuilder> {
    crate::NodeBuilder::configured(config)
}

/// A node that neither counts nor times requests.
pub fn unmeasured(builder: crate::NodeBuilder) -> crate::NodeBuilder {
    builder.unmeasured()
}
