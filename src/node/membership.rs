//! Follows the registry: each view becomes the ring in force, and decides whether this node is
//! ready.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    admin::{Changes, RingChange},
    rpc::peers::GrpcPeers,
    telemetry::metrics::Metrics,
};
use gaocache_core::{
    cluster::{Cluster, Topology},
    membership::View,
    ports::{Clock, RegistryHealth, Session},
};

/// The health services: readiness under the name that every prober asks and under the services'
/// own, and liveness.
const READY_SERVICES: [&str; 3] = ["", "gaocache.v1.Cache", "gaocache.v1.Peer"];
const LIVENESS_SERVICE: &str = "liveness";

/// What following needs.
pub(super) struct Follow {
    pub(super) session: Arc<dyn Session>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) peers: GrpcPeers,
    pub(super) rings: watch::Sender<Arc<Topology>>,
    pub(super) readiness: watch::Sender<Arc<str>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) changes: Changes,
    pub(super) health: HealthReporter,
}

impl Follow {
    /// Runs until `stop`.
    pub(super) async fn run(self, draining: CancellationToken, stop: CancellationToken) {
        self.health
            .set_service_status(LIVENESS_SERVICE, ServingStatus::Serving)
            .await;
        let mut views = self.session.views();
        let mut registry = self.session.health();
        views.mark_changed();
        loop {
            // A copy: the channel must not stay locked while we work.
            let problem = registry.borrow_and_update().clone();
            self.tell_readiness(&problem, draining.is_cancelled()).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = draining.cancelled(), if !self.told_draining() => {}
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let view = views.borrow_and_update().clone();
                    self.install(view);
                }
                changed = registry.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Puts a view in force, unless it is empty: nothing known yet, or a registry that lost
    /// everything. The last ring stays.
    fn install(&self, view: View) {
        let current = self.cluster.snapshot();
        if view.members.is_empty() || view == current.view {
            return;
        }
        let (before, after) = self.cluster.install(view, self.clock.now());
        let addresses: HashSet<Arc<str>> = after
            .others()
            .map(|member| member.address.clone())
            .collect();
        self.peers.keep_only(&addresses);
        self.metrics.ring_changed(&after);
        let change = RingChange::between(&before.view, &after.view, self.clock.now());
        log_change(&after, &change);
        self.changes.add(change);
        self.rings.send_replace(after);
    }

    async fn tell_readiness(&self, registry: &RegistryHealth, draining: bool) {
        let why_not: Arc<str> = if draining {
            DRAINING.into()
        } else if registry.conflict {
            registry.problem.clone()
        } else if self.cluster.topology().in_ring() {
            // A registry that is away doesn't stop reads: the last ring stays.
            "".into()
        } else if registry.problem.is_empty() {
            "waiting for this node to appear in the ring".into()
        } else {
            format!("not in the ring: {}", registry.problem).into()
        };
        if *self.readiness.borrow() == why_not {
            return;
        }
        let ready = why_not.is_empty();
        self.metrics.ready.set(i64::from(ready));
        if ready {
            tracing::info!("ready");
        } else {
            tracing::info!(why = %why_not, "not ready");
        }
        self.readiness.send_replace(why_not);
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in READY_SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }

    fn told_draining(&self) -> bool {
        **self.readiness.borrow() == *DRAINING
    }
}

const DRAINING: &str = "draining: this node is leaving";

fn log_change(after: &Topology, change: &RingChange) {
    tracing::info!(
        members = after.ring_len(),
        revision = after.view.revision,
        fingerprint = %after.view.fingerprint(),
        joined = change.joined.join(","),
        left = change.left.join(","),
        "the ring changed"
    );
}
