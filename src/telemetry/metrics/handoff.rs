//! The metrics of handoffs.

use prometheus::{IntCounter, IntGauge};

use gaocache_core::ports::{Fate, HandoffObserver, Receipt};

/// A counter for each fate, in the order of [`Fate::ALL`].
pub(super) type ByFate = [IntCounter; Fate::ALL.len()];

/// The metrics of handoffs.
pub struct HandoffMetrics {
    pub(super) sent: ByFate,
    pub(super) received: ByFate,
    pub(super) failed: IntCounter,
    pub(super) bytes: IntCounter,
    pub(super) waiting: IntGauge,
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
