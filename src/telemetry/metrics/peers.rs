//! The metrics of calls to peers.

use prometheus::{Histogram, IntCounterVec, IntGauge, Result};

use super::registrar::Registrar;
use crate::telemetry::names;

/// The metrics of calls to peers.
pub struct PeerMetrics {
    /// By peer and outcome.
    pub fetches: IntCounterVec,
    /// Time of fetches.
    pub fetch_duration: Histogram,
    /// Peers that are currently ejected.
    pub ejected: IntGauge,
}

impl PeerMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            fetches: registrar.counters(names::PEER_FETCHES)?,
            fetch_duration: registrar.histogram(names::PEER_FETCH_DURATION)?,
            ejected: registrar.gauge(names::PEERS_EJECTED)?,
        })
    }
}
