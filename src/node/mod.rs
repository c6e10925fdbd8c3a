//! The composition root: the only place that names concrete types.
//!
//! A node is made in stages. [`NodeBuilder::bind`] opens the listeners, so addresses are known and
//! a port in use is an error before anything is announced; [`Node::run`] serves until its shutdown
//! future resolves, then drains within bounds. Nothing in here reads signals; `main` does.

mod build;
mod groups;
mod listeners;
mod membership;
mod parts;
mod rules;
mod run;
mod shutdown;
mod standing;
mod worker;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

pub use build::NodeBuilder;
pub use groups::GroupDefinition;
pub use rules::{etcd_config, start_telemetry};

use crate::{
    admin::{Admin, Readiness},
    rpc::front::Front,
    service::Service,
};
use gaocache_core::{
    cluster::Topology,
    handoff::QueuedKeys,
    membership::Member,
    ports::{Clock, Registry, Timestamp},
};
use parts::{Parts, Stops};

/// The wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place where the wall clock is read
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since_epoch.unwrap_or(Duration::ZERO).as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC, for clients and other nodes.
    pub grpc: SocketAddr,
    /// HTTP, for clients.
    pub http: SocketAddr,
    /// Probes, metrics, the ring.
    pub admin: SocketAddr,
}

/// What a node may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Threads that serve reads.
    workers: usize,
    /// To tell the others that it leaves, and to hand over.
    drain: Duration,
    /// For requests that are still open after that.
    shutdown: Duration,
}

/// A node whose listeners are open and that nobody knows of yet.
pub struct Node {
    me: Member,
    listeners: listeners::Listeners,
    registry: Arc<dyn Registry>,
    /// The time to live of its lease, if it has one.
    lease: Option<Duration>,
    parts: Arc<Parts>,
    queued_copies: QueuedKeys,
    service: Service,
    front: Front,
    admin: Admin,
    stops: Stops,
    limits: Limits,
}

impl Node {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.listeners.addresses()
    }

    /// How others will know it.
    pub fn member(&self) -> &Member {
        &self.me
    }

    /// Its groups, for calls from within the process.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// The current ring, and every later one.
    pub fn rings(&self) -> watch::Receiver<Arc<Topology>> {
        self.parts.cluster.rings()
    }

    /// Why it is not ready; empty: it is.
    pub fn readiness(&self) -> Readiness {
        self.parts.readiness.subscribe()
    }
}
