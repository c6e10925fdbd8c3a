//! The metrics of handoffs.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Result};

use super::{peers::BytesByZone, registrar::Registrar};
use crate::telemetry::names;
use gaocache_core::ports::{Fate, HandoffObserver, Receipt};

/// A counter for each fate, in the order of [`Fate::ALL`].
type ByFate = [IntCounter; Fate::ALL.len()];

/// The handoff metrics of all directions and outcomes.
pub(super) struct HandoffFamilies {
    entries: IntCounterVec,
    bytes: IntCounter,
    pub(super) waiting: IntGauge,
}

impl HandoffFamilies {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            entries: registrar.counters(names::HANDOFF_ENTRIES)?,
            bytes: registrar.counter(names::HANDOFF_BYTES)?,
            waiting: registrar.gauge(names::HANDOFF_WAITING)?,
        })
    }

    /// With the labels already resolved.
    pub(super) fn resolved(&self, received: BytesByZone) -> Arc<HandoffMetrics> {
        let entries =
            |direction: &str, outcome: &str| self.entries.with_label_values(&[direction, outcome]);
        let by_fate = |direction| Fate::ALL.map(|fate| entries(direction, fate.name()));
        Arc::new(HandoffMetrics {
            sent: by_fate("sent"),
            received: by_fate("received"),
            failed: entries("sent", "failed"),
            bytes: self.bytes.clone(),
            waiting: self.waiting.clone(),
            received_bytes: received,
        })
    }
}

/// The metrics of handoffs.
pub struct HandoffMetrics {
    sent: ByFate,
    received: ByFate,
    failed: IntCounter,
    bytes: IntCounter,
    waiting: IntGauge,
    /// Of values that came, whatever became of them.
    pub received_bytes: BytesByZone,
}

fn count(counters: &ByFate, receipt: &Receipt) {
    for (counter, fate) in counters.iter().zip(Fate::ALL) {
        counter.inc_by(receipt.count(fate) as u64);
    }
}

impl HandoffMetrics {
    /// Records the receipt of a batch from another node.
    pub fn received(&self, receipt: &Receipt) {
        count(&self.received, receipt);
    }
}

impl HandoffObserver for HandoffMetrics {
    fn sent(&self, bytes: usize, receipt: &Receipt) {
        self.bytes.inc_by(bytes as u64);
        count(&self.sent, receipt);
    }

    fn failed(&self, entries: usize) {
        self.failed.inc_by(entries as u64);
    }

    fn waiting(&self, entries: usize) {
        self.waiting.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}
