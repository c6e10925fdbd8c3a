//! The metrics of handoffs.

use prometheus::{IntCounter, IntGauge};

use gaocache_core::ports::{HandoffObserver, Receipt};

/// The metrics of handoffs.
pub struct HandoffMetrics {
    /// Kept, known, full, refused.
    pub(super) sent: [IntCounter; 4],
    pub(super) received: [IntCounter; 4],
    pub(super) failed: IntCounter,
    pub(super) bytes: IntCounter,
    pub(super) waiting: IntGauge,
}

fn count(counters: &[IntCounter; 4], receipt: Receipt) {
    let Receipt {
        kept,
        known,
        full,
        refused,
    } = receipt;
    for (counter, entries) in counters.iter().zip([kept, known, full, refused]) {
        counter.inc_by(u64::from(entries));
    }
}

impl HandoffMetrics {
    /// Records the receipt of a batch from another node.
    pub fn received(&self, receipt: Receipt) {
        count(&self.received, receipt);
    }
}

impl HandoffObserver for HandoffMetrics {
    fn sent(&self, bytes: usize, receipt: Receipt) {
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
