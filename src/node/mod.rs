//! The composition root: the only place that names concrete types.
//!
//! A node is made in stages. [`NodeBuilder::bind`] opens the listeners, so addresses are known and
//! a port in use is an error before anything is announced; [`Node::run`] serves until its shutdown
//! future resolves, then drains within bounds. Nothing in here reads signals; `main` does.

mod admission;
mod at_once;
mod build;
#[cfg(feature = "cli")]
pub(crate) mod configured;
mod connection;
mod descriptors;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod groups;
mod handshake;
mod id;
mod listeners;
mod lobby;
mod local;
mod membership;
mod parts;
mod per_address;
mod places;
mod probes;
#[cfg(feature = "cli")]
pub(crate) mod reload;
mod rules;
mod run;
mod serve;
mod shutdown;
mod socket;
mod standing;
mod status;
mod tls;
mod worker;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch};

pub use build::NodeBuilder;
pub use listeners::Addresses;
pub use status::NodeStatus;

use crate::{
    admin::{Admin, Readiness},
    auth::{self, Permissions},
    cache::Cache,
    redis,
    rpc::{front::Front, peer_front::PeerFront},
    service::Service,
    settings::ClientLimits,
    tls::PeerTls,
};
use gaocache_core::{
    cluster::Topology, copy_queue::QueuedKeys, membership::Member, ports::Registry,
};
use parts::{Parts, Stops};

/// What a node may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Threads that serve reads.
    workers: usize,
    /// To tell the others that it leaves, and to hand over.
    drain: Duration,
    /// For requests that are still open after that.
    shutdown: Duration,
    /// For clients.
    clients: ClientLimits,
}

/// The hosts that listeners answer for.
#[derive(Clone)]
struct Hosts {
    http: Arc<auth::Hosts>,
    admin: Arc<auth::Hosts>,
}

/// A node whose listeners are open but which has not registered yet; [`NodeBuilder::bind`] returns
/// it.
///
/// ```
/// use gaocache::{NodeBuilder, Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gaocache::Error> {
/// let node = NodeBuilder::new(Settings::loopback("only")).bind().await?;
/// let grpc = node.addresses().grpc.expect("it listens");
/// assert_ne!(grpc.port(), 0, "a free port was chosen");
/// // It serves until the future that it is given resolves. Then it drains.
/// node.run(async {}).await?;
/// # Ok(())
/// # }
/// ```
pub struct Node {
    me: Member,
    listeners: listeners::Listeners,
    registry: Arc<dyn Registry>,
    /// The time to live of its lease, if it has one.
    lease: Option<Duration>,
    parts: Arc<Parts>,
    queued_copies: QueuedKeys,
    service: Service,
    /// In which it was bound; here until the node has ended.
    runtime: Arc<Handle>,
    front: Front,
    peer_front: PeerFront,
    redis: redis::Front,
    #[cfg(feature = "cli")]
    rules: crate::rpc::routed::LiveRules,
    permissions: Permissions,
    hosts: Hosts,
    admission: Arc<admission::Admission>,
    carrier: connection::Carrier,
    peer_tls: PeerTls,
    tls: tls::ListenersTls,
    admin: Admin,
    stops: Stops,
    limits: Limits,
    /// What new settings are checked against while it runs.
    #[cfg(feature = "cli")]
    fixed: parts::Fixed,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.me.id)
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.listeners.addresses()
    }

    /// Its cache, for calls from within the process.
    pub fn cache(&self) -> Cache {
        Cache::new(self.service.clone(), &self.runtime)
    }

    /// Whether it is ready, and which members it sees; kept up to date while the node runs.
    pub fn status(&self) -> NodeStatus {
        NodeStatus::new(self.readiness(), self.rings())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.me.id
    }

    /// The current ring, and every later one.
    pub(crate) fn rings(&self) -> watch::Receiver<Arc<Topology>> {
        self.parts.cluster.rings()
    }

    /// Why it is not ready; empty: it is.
    pub(crate) fn readiness(&self) -> Readiness {
        self.parts.readiness.subscribe()
    }
}
