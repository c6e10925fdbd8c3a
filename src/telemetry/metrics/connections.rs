//! The metrics of what clients take: connections, and bytes in flight.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Result};

use super::registrar::{Registrar, as_gauge, raise};
use crate::telemetry::names;

/// The metrics of what clients take.
pub struct ConnectionMetrics {
    open: IntGaugeVec,
    /// Connections that the listeners for clients and peers accept together.
    pub limit: IntGauge,
    /// By listener and reason.
    pub refusals: IntCounterVec,
    /// By listener and reason.
    pub cuts: IntCounterVec,
    /// Of requests, by reason.
    pub client_refusals: IntCounterVec,
    certificate_begins: IntGaugeVec,
    certificate_ends: IntGaugeVec,
    certificate_unusable: IntGaugeVec,
    in_flight: IntGauge,
    in_flight_limit: IntGauge,
    in_flight_refusals: IntCounter,
}

impl ConnectionMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        let metrics = Self {
            open: registrar.gauges(names::CONNECTIONS)?,
            limit: registrar.gauge(names::CONNECTIONS_LIMIT)?,
            refusals: registrar.counters(names::CONNECTION_REFUSALS)?,
            cuts: registrar.counters(names::CONNECTION_CUTS)?,
            client_refusals: registrar.counters(names::CLIENT_REFUSALS)?,
            certificate_begins: registrar.gauges(names::CERTIFICATE_BEGINS)?,
            certificate_ends: registrar.gauges(names::CERTIFICATE_ENDS)?,
            certificate_unusable: registrar.gauges(names::CERTIFICATE_UNUSABLE)?,
            in_flight: registrar.gauge(names::IN_FLIGHT_BYTES)?,
            in_flight_limit: registrar.gauge(names::IN_FLIGHT_LIMIT)?,
            in_flight_refusals: registrar.counter(names::IN_FLIGHT_REFUSALS)?,
        };
        metrics.begin_with_zero();
        Ok(metrics)
    }

    /// Counters of rare events show from the start: Prometheus doesn't count the first increase of
    /// a series that was absent before.
    fn begin_with_zero(&self) {
        self.refusals.with_label_values(&["admin", "address"]);
        for reason in ["rate", "open", "misses", "arriving"] {
            self.client_refusals.with_label_values(&[reason]);
        }
        for listener in ["grpc", "http", "redis", "peer"] {
            for reason in ["total", "address", "failed"] {
                let refusals = &self.refusals;
                refusals.with_label_values(&[listener, reason]);
            }
            for reason in ["handshake", "idle", "stalled", "flood"] {
                self.cuts.with_label_values(&[listener, reason]);
            }
        }
        for listener in ["grpc", "http", "redis", "admin"] {
            for reason in ["plaintext", "tls"] {
                let refusals = &self.refusals;
                refusals.with_label_values(&[listener, reason]);
            }
        }
        for listener in ["grpc", "http", "peer", "admin"] {
            self.cuts.with_label_values(&[listener, "displaced"]);
        }
        for listener in ["grpc", "http", "redis", "peer", "admin"] {
            self.cuts.with_label_values(&[listener, "untrusted"]);
        }
    }

    /// Open connections of a listener.
    pub fn open(&self, listener: &str) -> IntGauge {
        self.open.with_label_values(&[listener])
    }

    /// A listener's certificate is in use from now on; it is good between these times, in seconds
    /// since the Unix epoch.
    pub fn certificate_in_use(&self, listener: &str, begins: i64, ends: i64) {
        self.certificate_begins
            .with_label_values(&[listener])
            .set(begins);
        self.certificate_ends
            .with_label_values(&[listener])
            .set(ends);
        self.certificate_unusable
            .with_label_values(&[listener])
            .set(0);
    }

    /// What a listener's files have now can't be used.
    pub fn certificate_unusable(&self, listener: &str) {
        self.certificate_unusable
            .with_label_values(&[listener])
            .set(1);
    }

    /// Records the bytes in flight, their limit, and how often something was refused; called before
    /// each scrape.
    pub fn in_flight(&self, used: u64, limit: u64, refused: u64) {
        self.in_flight.set(as_gauge(used));
        self.in_flight_limit.set(as_gauge(limit));
        raise(&self.in_flight_refusals, refused);
    }
}
