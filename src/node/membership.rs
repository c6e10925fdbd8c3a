//! Follows the registry: each view becomes the current ring, and decides whether this node is
//! ready.

use std::sync::Arc;

use tonic_health::ServingStatus;

use super::parts::{Joined, Stops};
use crate::admin::RingChange;
use gaocache_core::{cluster::Topology, membership::View, ports::RegistryHealth};

/// The health services: readiness under the name that every prober asks and under the services'
/// own, and liveness.
const READY_SERVICES: [&str; 3] = ["", "gaocache.v1.Cache", "gaocache.v1.Peer"];
const LIVENESS_SERVICE: &str = "liveness";

impl Joined {
    /// Follows the registry until the last of `stops`.
    pub(super) async fn follow_registry(self, stops: Stops) {
        self.parts
            .health
            .set_service_status(LIVENESS_SERVICE, ServingStatus::Serving)
            .await;
        let mut views = self.session.views();
        let mut registry = self.session.health();
        let mut joining = self.parts.joining.subscribe();
        views.mark_changed();
        let mut seen = false;
        loop {
            // A copy: the channel must not stay locked while we work.
            let known = registry.borrow_and_update().clone();
            seen |= self.sees_itself(&known);
            self.tell_readiness(&known, seen, stops.draining.is_cancelled())
                .await;
            tokio::select! {
                biased;
                () = stops.admin.cancelled() => return,
                () = stops.draining.cancelled(), if !self.told_draining() => {}
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let view = views.borrow_and_update().clone();
                    self.install(view);
                }
                // What the join task found: it may be all that was missing.
                _ = joining.changed() => {}
                changed = registry.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Installs a view and notifies those that need to know.
    fn install(&self, view: View) {
        let parts = &*self.parts;
        let Some(change) = parts.cluster.install(view) else {
            return;
        };
        parts.peers.keep_only(&change.after.view);
        parts.metrics.membership.ring_changed(&change.after);
        let told = RingChange::between(&change.before.view, &change.after.view);
        log_change(&change.after, &told);
        parts.changes.add(told);
    }

    /// Whether the ring shows this process, not the one that had its id before.
    fn sees_itself(&self, registry: &RegistryHealth) -> bool {
        let topology = self.parts.cluster.topology();
        topology.me().is_some_and(|me| match &registry.written {
            Some((incarnation, _)) => me.instance == *incarnation,
            // In some registries nobody can take an id from another.
            None => registry.registered,
        })
    }

    /// Publishes whether this node is ready; `seen` says whether the ring has ever shown it.
    async fn tell_readiness(&self, registry: &RegistryHealth, seen: bool, draining: bool) {
        let why_not: Arc<str> = if draining {
            DRAINING.into()
        } else if registry.conflict {
            registry.problem.clone()
        } else if seen && self.parts.cluster.topology().in_ring() || *self.parts.joining.borrow() {
            // A registry that is away doesn't stop reads: the last ring stays.
            "".into()
        } else if registry.problem.is_empty() {
            self.why_not_in_the_ring(seen).into()
        } else {
            format!("not in the ring: {}", registry.problem).into()
        };
        if *self.parts.readiness.borrow() != why_not {
            self.publish_readiness(why_not).await;
        }
    }

    fn why_not_in_the_ring(&self, seen: bool) -> &'static str {
        let topology = self.parts.cluster.topology();
        match topology.me() {
            Some(_) if !seen => "the ring still shows the process that had this node's id before",
            Some(_) if topology.view.young => {
                "etcd was empty when the first node registered, so it may have lost its data; \
                 nodes wait until the leases from before have expired"
            }
            None => "this node has not yet seen itself among the members",
            Some(_) => "not all other members have seen this node yet",
        }
    }

    async fn publish_readiness(&self, why_not: Arc<str>) {
        let ready = why_not.is_empty();
        self.parts.metrics.membership.ready.set(i64::from(ready));
        if ready {
            tracing::info!("ready");
        } else {
            tracing::info!(why = %why_not, "not ready");
        }
        self.parts.readiness.send_replace(why_not);
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in READY_SERVICES {
            self.parts.health.set_service_status(service, status).await;
        }
    }

    fn told_draining(&self) -> bool {
        **self.parts.readiness.borrow() == *DRAINING
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
