//! The metrics of the registry in etcd.

use prometheus::{Gauge, IntCounter, IntCounterVec, Result};

use super::registrar::Registrar;
use crate::{clock::unix_seconds, telemetry::names};

/// The metrics of the registry in etcd.
pub struct EtcdMetrics {
    lease_renewals: IntCounterVec,
    registrations: IntCounterVec,
    watch_reconnects: IntCounter,
    heard: Gauge,
}

impl EtcdMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            lease_renewals: registrar.counters(names::LEASE_RENEWALS)?,
            registrations: registrar.counters(names::REGISTRATIONS)?,
            watch_reconnects: registrar.counter(names::WATCH_RECONNECTS)?,
            heard: registrar.float_gauge(names::REGISTRY_HEARD)?,
        })
    }

    /// Records a renewal of the lease: `ok`, `failed` or `lost`.
    pub fn lease_renewed(&self, outcome: &str) {
        self.lease_renewals.with_label_values(&[outcome]).inc();
    }

    /// Records a write of the node's key, with its reason.
    pub fn registered(&self, reason: &str) {
        self.registrations.with_label_values(&[reason]).inc();
    }

    /// Records a restart of the watch.
    pub fn watch_reconnected(&self) {
        self.watch_reconnects.inc();
    }

    /// Records that the registry was heard from now.
    pub fn heard(&self) {
        self.heard.set(unix_seconds());
    }
}
