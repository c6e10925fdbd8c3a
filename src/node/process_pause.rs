//! Sees that this process stood still for longer than its lease, and then drops what it holds, as
//! if it had been restarted.
//!
//! Twice: at once, and when it is seen under a new lease. What it loads in between is not told of
//! removals either.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;
use gaocache_core::{
    cluster::Topology,
    fence::Fence,
    group::Groups,
    ports::{Clock, Session},
};

/// What it needs.
pub(super) struct PauseWatch {
    pub(super) fence: Arc<Fence>,
    pub(super) session: Arc<dyn Session>,
    pub(super) groups: Groups,
    pub(super) rings: watch::Receiver<Arc<Topology>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

impl PauseWatch {
    /// Runs until `stop`. `lease` is its time to live.
    pub(super) async fn run(self, lease: Duration, stop: CancellationToken) {
        let mut beats = tokio::time::interval(lease / 12);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The lease under which it stood still, until it is seen under another.
        let mut paused_under: Option<i64> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beats.tick() => {}
            }
            let lease = self.lease();
            if !self.fence.holds(self.clock.now()) {
                paused_under = Some(lease.unwrap_or_default());
                self.metrics.process_paused();
                tracing::warn!(
                    entries = self.drop_everything(),
                    "this process was paused for longer than its lease and received no removals; dropped its entries"
                );
            } else if lease.is_some() && paused_under.is_some_and(|old| lease != Some(old)) {
                paused_under = None;
                let entries = self.drop_everything();
                tracing::info!(entries, "a member again, under a new lease");
            }
            self.fence
                .extend(self.clock.now(), self.session.lease_end());
        }
    }

    /// The lease that this node sees itself under, if it does.
    fn lease(&self) -> Option<i64> {
        self.rings.borrow().me().map(|me| me.lease)
    }

    fn drop_everything(&self) -> u64 {
        let dropped = self.groups.iter().map(|it| it.invalidate_here(None));
        dropped.sum()
    }
}
