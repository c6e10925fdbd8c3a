//! The composition root: the only place that names concrete types.
//!
//! A node is made in stages. [`NodeBuilder::bind`] opens the listeners, so addresses are known and
//! a port in use is an error before anything is announced; [`Node::run`] serves until its shutdown
//! future resolves, then drains within bounds. Nothing in here reads signals; `main` does.

mod build;
#[cfg(feature = "cli")]
pub(crate) mod configured;
mod listeners;
mod membership;
mod process_pause;
mod shutdown;
mod status;
mod worker;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use build::NodeBuilder;
pub use status::NodeStatus;

use crate::{
    admin::{Admin, Readiness},
    cache::Cache,
    rpc::peers::GrpcPeers,
    service::Service,
    telemetry::metrics::Metrics,
};
use gaocache_core::{
    cluster::{Cluster, Topology},
    error::Result,
    fence::Fence,
    handoff::{Handoff, QueuedKeys},
    membership::Member,
    ports::{Clock, Registry, Timestamp},
};

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

/// Where a node listens; `None`: it doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// gRPC, for clients and other nodes.
    pub grpc: Option<SocketAddr>,
    /// HTTP, for clients.
    pub http: Option<SocketAddr>,
    /// Probes, metrics, the ring.
    pub admin: Option<SocketAddr>,
}

/// A node whose listeners are open and that nobody knows of yet; [`NodeBuilder::bind`] returns it.
pub struct Node {
    me: Member,
    listeners: listeners::Listeners,
    registry: Arc<dyn Registry>,
    peers: GrpcPeers,
    /// The largest value of any group, in bytes.
    max_value: u64,
    handoff: Arc<Handoff>,
    /// The time to live of its lease, if it has one.
    lease: Option<Duration>,
    fence: Arc<Fence>,
    queued_copies: QueuedKeys,
    clock: Arc<dyn Clock>,
    service: Service,
    cluster: Arc<Cluster>,
    rings: watch::Sender<Arc<Topology>>,
    readiness: watch::Sender<Arc<str>>,
    metrics: Arc<Metrics>,
    admin: Admin,
    workers: usize,
    drain_timeout: Duration,
    shutdown_timeout: Duration,
}

impl Node {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.listeners.addresses()
    }

    /// Its cache, for calls from within the process.
    pub fn cache(&self) -> Cache {
        Cache::new(self.service.clone())
    }

    /// Whether it is ready, and who else is there; goes on to tell while the node runs.
    pub fn status(&self) -> NodeStatus {
        NodeStatus::new(self.readiness(), self.rings())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.me.id
    }

    /// Each ring as it comes in force.
    pub(crate) fn rings(&self) -> watch::Receiver<Arc<Topology>> {
        self.rings.subscribe()
    }

    /// Why it is not ready; empty: it is.
    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.subscribe()
    }

    /// Registers, serves until `shutdown` resolves, drains, and returns when the last connection is
    /// closed or the time for it is over.
    ///
    /// # Errors
    /// What makes it impossible to begin: a thread that can't be started, an id that is taken.
    /// Never anything after that.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let front = crate::rpc::front::Front::new(
            &self.service,
            self.rings.subscribe(),
            self.max_value,
            tonic_health::server::HealthService::from_health_reporter(health.clone()),
        )?;
        drop(health_service);
        let control = tokio::runtime::Handle::current();
        self.metrics.watch_runtime("control", control.metrics());
        let groups = self.admin.groups.clone();
        let changes = self.admin.changes.clone();
        let stop = CancellationToken::new();
        let workers = worker::Workers::start(
            self.workers,
            &self.metrics,
            self.shutdown_timeout,
            &stop,
            || (front.clone(), crate::http::router(self.service.clone())),
        )?;
        let session = self.registry.join(self.me.clone()).await?;
        let session: Arc<dyn gaocache_core::ports::Session> = Arc::from(session);
        tracing::info!(
            id = %self.me.id, address = %self.me.address, grpc = shown(self.addresses().grpc),
            http = shown(self.addresses().http), admin = shown(self.addresses().admin),
            "listeners are open"
        );
        // The admin listener closes last: probes and metrics are wanted most while a node goes
        // down.
        let admin_stop = CancellationToken::new();
        let open = self
            .listeners
            .open(workers.dispatcher(), self.admin, &stop, &admin_stop);
        let follow = membership::Follow {
            session: session.clone(),
            cluster: self.cluster.clone(),
            peers: self.peers.clone(),
            rings: self.rings,
            readiness: self.readiness,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            changes,
            health,
        };
        let own_rings = follow.rings.subscribe();
        let pauses = process_pause::PauseWatch {
            fence: self.fence,
            session: session.clone(),
            groups: groups.clone(),
            rings: follow.rings.subscribe(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let watching_pauses = self
            .lease
            .map(|lease| tokio::spawn(pauses.run(lease, admin_stop.clone())));
        let draining = CancellationToken::new();
        let moving = {
            let (handoff, rings) = (self.handoff.clone(), follow.rings.subscribe());
            let (wanted, stop) = (self.queued_copies, draining.clone());
            tokio::spawn(async move { handoff.follow(rings, wanted, stop).await })
        };
        let following = tokio::spawn(follow.run(draining.clone(), admin_stop.clone()));

        shutdown.await;

        self.metrics.draining_since(self.clock.now());
        let leaving = shutdown::Leaving {
            session: session.as_ref(),
            cluster: &self.cluster,
            rings: own_rings,
            clock: self.clock.as_ref(),
            peers: &self.peers,
            groups: &groups,
            handoff: &self.handoff,
            draining: &draining,
            bound: self.drain_timeout,
        };
        let drained = leaving.run().await;
        tracing::info!("closing the listeners");
        stop.cancel();
        workers.finish().await;
        admin_stop.cancel();
        let _ = following.await;
        let _ = moving.await;
        if let Some(watching_pauses) = watching_pauses {
            let _ = watching_pauses.await;
        }
        open.closed().await;
        tracing::info!(id = %self.me.id, drained, "stopped");
        Ok(())
    }
}

/// An address for the log; nothing where there is no listener.
fn shown(address: Option<SocketAddr>) -> Option<tracing::field::DisplayValue<SocketAddr>> {
    address.map(tracing::field::display)
}
