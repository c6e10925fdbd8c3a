//! The metrics of calls to peers.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Result};

use super::registrar::Registrar;
use crate::telemetry::names;
use gaocache_core::membership::Member;

/// Bytes that came from other members, by whether they left a zone: there, clouds charge for them.
#[derive(Clone)]
pub struct BytesByZone {
    same: IntCounter,
    other: IntCounter,
    unknown: IntCounter,
}

impl BytesByZone {
    fn of(received: &IntCounterVec, call: &str) -> Self {
        let zone = |zone| received.with_label_values(&[call, zone]);
        Self {
            same: zone("same"),
            other: zone("other"),
            unknown: zone("unknown"),
        }
    }

    /// Counts what came to `here` from `there`. A node that is no member knows no zone.
    pub fn add(&self, here: Option<&Member>, there: Option<&Member>, bytes: usize) {
        let counter = match (zone(here), zone(there)) {
            ("", _) | (_, "") => &self.unknown,
            (here, there) if here == there => &self.same,
            _ => &self.other,
        };
        counter.inc_by(bytes as u64);
    }
}

fn zone(member: Option<&Member>) -> &str {
    member.map_or("", |it| &it.zone)
}

/// The metrics of calls to peers.
pub struct PeerMetrics {
    /// By peer and outcome.
    pub fetches: IntCounterVec,
    /// Calls that ask for values, by peer and call.
    pub messages: IntCounterVec,
    /// Time of fetches.
    pub fetch_duration: Histogram,
    /// Bytes of values that other members answered with.
    pub fetched_bytes: BytesByZone,
    /// Bytes of values that other members handed over.
    pub(super) handed_bytes: BytesByZone,
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
        let received = registrar.counters(names::PEER_RECEIVED_BYTES)?;
        Ok(Self {
            refusals,
            fetched_bytes: BytesByZone::of(&received, "fetch"),
            handed_bytes: BytesByZone::of(&received, "handoff"),
            fetches: registrar.counters(names::PEER_FETCHES)?,
            messages: registrar.counters(names::PEER_MESSAGES)?,
            fetch_duration: registrar.histogram(names::PEER_FETCH_DURATION)?,
            ejected: registrar.gauge(names::PEERS_EJECTED)?,
        })
    }
}
