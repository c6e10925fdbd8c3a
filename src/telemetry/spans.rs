//! What became of the process' spans.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of this process' spans. There is one exporter in a process, so all of its nodes show
/// the same numbers; without one all stay zero.
pub(super) static SPANS: SpanCounts = SpanCounts {
    exported: AtomicU64::new(0),
    failed: AtomicU64::new(0),
    dropped: AtomicU64::new(0),
};

/// Counts since the start.
pub(super) struct SpanCounts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    /// The counts by outcome, with the labels of the metric.
    pub(super) fn read(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("exported", read(&self.exported)),
            ("failed", read(&self.failed)),
            ("dropped", read(&self.dropped)),
        ]
    }
}

/// For the exporter.
#[cfg(feature = "cli")]
impl SpanCounts {
    pub(super) fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}
