//! The metrics of calls to peers.

use prometheus::{Histogram, IntCounterVec, IntGauge, Result};

use super::registrar::Registrar;
use crate::telemetry::names;

/// The metrics of calls to peers.
pub struct PeerMetrics {
    /// By peer and outcome.
    pub fetches: IntCounterVec,
    /// Calls that ask for values, by peer and call.
    pub messages: IntCounterVec,
    /// Time of fetches.
    pub fetch_duration: Histogram,
    /// Peers that are currently ejected.
    pub ejected: IntGauge,
    /// Callers that the listener for other nodes refused, by reason.
    pub refusals: IntCounterVec,
}

impl PeerMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        let refusals = registrar.counters(names::PEER_REFUSALS)?;
        // Prometheus doesn't count the first increase of a series that was absent before.
        for reason in ["handshake", "unknown", "sender"] {
            refusals.with_label_values(&[reason]);
        }
        Ok(Self {
            refusals,
            fetches: registrar.counters(names::PEER_FETCHES)?,
            messages: registrar.counters(names::PEER_MESSAGES)?,
            fetch_duration: registrar.histogram(names::PEER_FETCH_DURATION)?,
            ejected: registrar.gauge(names::PEERS_EJECTED)?,
        })
    }
}
