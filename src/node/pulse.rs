//! Sees that this process stood still for longer than its lease, and then drops what it holds, as if it had been restarted.
//!
//! Twice: at once, and when it is seen under a new lease. What it loads in between is not told of removals either.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{cluster::Topology, group::Groups, trust::Trust},
    ports::{Clock, Session},
    telemetry::metrics::Metrics,
};

/// What it needs.
pub(super) struct Pulse {
    pub(super) trust: Arc<Trust>,
    pub(super) session: Arc<dyn Session>,
    pub(super) groups: Groups,
    pub(super) rings: watch::Receiver<Arc<Topology>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

impl Pulse {
    /// Runs until `stop`. `lease` is its time to live.
    pub(super) async fn run(self, lease: Duration, stop: CancellationToken) {
        let mut beats = tokio::time::interval(lease / 12);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The lease under which it stood still, until it is seen under another.
        let mut stood_still_under: Option<i64> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beats.tick() => {}
            }
            let lease = self.lease();
            if !self.trust.holds(self.clock.now()) {
                stood_still_under = Some(lease.unwrap_or_default());
                self.metrics.stood_still();
                tracing::warn!(
                    entries = self.drop_everything(),
                    "this process stood still for longer than its lease and was told of no removals; its entries are dropped"
                );
            } else if lease.is_some() && stood_still_under.is_some_and(|old| lease != Some(old)) {
                stood_still_under = None;
                let entries = self.drop_everything();
                tracing::info!(entries, "a member again under a new lease");
            }
            self.trust
                .keep_up(self.clock.now(), self.session.lease_end());
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
