//! The metrics of one node, by subject. They have their own Prometheus registry, so that several
//! nodes can run in one process.

mod auth;
mod connections;
#[cfg(feature = "etcd")]
mod etcd;
mod group;
mod handoff;
mod hits;
mod membership;
mod peers;
mod redis;
mod registrar;
mod runtime;
mod store;

use std::sync::Arc;

use prometheus::{Encoder, Registry, TextEncoder};

pub use auth::AuthMetrics;
pub use connections::ConnectionMetrics;
#[cfg(feature = "etcd")]
pub use etcd::EtcdMetrics;
pub use group::{GroupMetrics, GroupSummary};
pub use handoff::HandoffMetrics;
pub(crate) use hits::is_timed;
pub use membership::MembershipMetrics;
pub use peers::PeerMetrics;
pub use redis::{CommandClass, CommandCounts, RedisMetrics};
pub use runtime::RuntimeMetrics;
pub use store::StoreMetrics;

use self::{group::GroupFamilies, handoff::HandoffFamilies, registrar::Registrar};
use gaocache_core::error::{Error, ErrorKind, Result};

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    groups: GroupFamilies,
    handoff: HandoffFamilies,
    /// Items and bytes of the stores.
    pub stores: StoreMetrics,
    /// Calls to peers.
    pub peers: PeerMetrics,
    /// The ring, the lease and readiness.
    pub membership: MembershipMetrics,
    /// The registry in etcd.
    #[cfg(feature = "etcd")]
    pub etcd: EtcdMetrics,
    /// Permissions and the audit.
    pub auth: AuthMetrics,
    /// Connections and bytes in flight.
    pub connections: ConnectionMetrics,
    /// The listener for Redis clients.
    pub redis: RedisMetrics,
    /// Runtimes and spans.
    pub runtimes: RuntimeMetrics,
}

fn failed(error: prometheus::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("metrics: {error}")).with_source(error)
}

impl Metrics {
    /// New metrics.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the table of names is invalid.
    pub fn new() -> Result<Arc<Self>> {
        Self::register().map(Arc::new).map_err(failed)
    }

    fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let registrar = Registrar(&registry);
        let connections = ConnectionMetrics::register(&registrar)?;
        Ok(Self {
            groups: GroupFamilies::register(&registrar)?,
            handoff: HandoffFamilies::register(&registrar)?,
            stores: StoreMetrics::register(&registrar)?,
            peers: PeerMetrics::register(&registrar)?,
            membership: MembershipMetrics::register(&registrar)?,
            #[cfg(feature = "etcd")]
            etcd: EtcdMetrics::register(&registrar)?,
            auth: AuthMetrics::register(&registrar)?,
            redis: RedisMetrics::register(&registrar, &connections)?,
            connections,
            runtimes: RuntimeMetrics::register(&registrar)?,
            registry,
        })
    }

    /// The metrics of one group, with the labels already resolved.
    pub fn group(&self, name: &str) -> Arc<GroupMetrics> {
        self.groups.of(name)
    }

    /// The metrics of handoffs, with the labels already resolved.
    pub fn handoff(&self) -> Arc<HandoffMetrics> {
        self.handoff.resolved(self.peers.handed_bytes.clone())
    }

    /// Entries that are still to be sent to other members.
    pub fn handoff_waiting(&self) -> i64 {
        self.handoff.waiting.get()
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if encoding fails.
    pub fn render(&self) -> Result<Vec<u8>> {
        self.runtimes.read();
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(failed)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
