//! The metrics of membership: the ring, the lease and readiness.

#[cfg(feature = "etcd")]
use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntGauge, Result};

use super::registrar::{Registrar, as_gauge};
use crate::{clock::unix_seconds, telemetry::names};
use gaocache_core::cluster::Topology;

/// The metrics of membership.
pub struct MembershipMetrics {
    /// 1 while ready.
    pub ready: IntGauge,
    draining_since: Gauge,
    ring_members: IntGauge,
    members_vanished: IntGauge,
    ring_revision: IntGauge,
    ring_fingerprint: IntGauge,
    ring_share: Gauge,
    ring_changes: IntCounter,
    lease_expiry: Gauge,
    expulsions: IntCounter,
}

impl MembershipMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            ready: registrar.gauge(names::READY)?,
            draining_since: registrar.float_gauge(names::DRAINING_SINCE)?,
            ring_members: registrar.gauge(names::RING_MEMBERS)?,
            members_vanished: registrar.gauge(names::MEMBERS_VANISHED)?,
            ring_revision: registrar.gauge(names::RING_REVISION)?,
            ring_fingerprint: registrar.gauge(names::RING_FINGERPRINT)?,
            ring_share: registrar.float_gauge(names::RING_SHARE)?,
            ring_changes: registrar.counter(names::RING_CHANGES)?,
            lease_expiry: registrar.float_gauge(names::LEASE_EXPIRY)?,
            expulsions: registrar.counter(names::EXPULSIONS)?,
        })
    }

    /// Records that this node begins to leave now.
    pub fn draining(&self) {
        self.draining_since.set(unix_seconds());
    }

    /// Records the numbers of a newly installed ring.
    pub fn ring_changed(&self, topology: &Topology) {
        self.ring_members.set(as_gauge(topology.ring_len() as u64));
        let vanished = topology.view.members.iter().filter(|it| it.vanished);
        self.members_vanished.set(as_gauge(vanished.count() as u64));
        self.ring_revision.set(as_gauge(topology.view.revision));
        // Prometheus stores doubles, which represent 53 bits exactly.
        let fingerprint = topology.view.fingerprint().0 >> 16;
        self.ring_fingerprint.set(as_gauge(fingerprint));
        let mine = topology
            .view
            .members
            .iter()
            .position(|member| topology.me().is_some_and(|me| me.id == member.id));
        self.ring_share
            .set(mine.map_or(0.0, |at| topology.share(at)));
        self.ring_changes.inc();
    }

    /// Records that the lease expires so long from now.
    #[cfg(feature = "etcd")]
    pub fn lease_expires(&self, left: Duration) {
        self.lease_expiry.set(unix_seconds() + left.as_secs_f64());
    }

    /// When the lease expires, in seconds since the Unix epoch; 0 if there is none.
    pub fn lease_expires_at(&self) -> f64 {
        self.lease_expiry.get()
    }

    /// Records that this node was taken off the list for good.
    pub fn expelled(&self) {
        self.expulsions.inc();
    }
}
