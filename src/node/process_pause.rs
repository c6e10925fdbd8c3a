//! Sees that this process stood still for longer than its lease, and then drops what it holds, as
//! if it had been restarted.
//!
//! Twice: at once, and when it is seen under a new lease. What it loads in between is not told of
//! removals either.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::parts::Joined;

impl Joined {
    /// Runs until `stop`. `lease` is its time to live.
    pub(super) async fn watch_for_pauses(self, lease: Duration, stop: CancellationToken) {
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
            let parts = &*self.parts;
            let lease = self.lease();
            if !parts.fence.holds(parts.clock.now()) {
                paused_under = Some(lease.unwrap_or_default());
                parts.metrics.process_paused();
                tracing::warn!(
                    entries = self.drop_everything(),
                    "this process was paused for longer than its lease and received no removals; dropped its entries"
                );
            } else if lease.is_some() && paused_under.is_some_and(|old| lease != Some(old)) {
                paused_under = None;
                let entries = self.drop_everything();
                tracing::info!(entries, "a member again, under a new lease");
            }
            let lease_end = self.session.lease_end();
            parts.fence.extend(parts.clock.now(), lease_end);
        }
    }

    /// The lease that this node sees itself under, if it does.
    fn lease(&self) -> Option<i64> {
        self.parts.cluster.topology().me().map(|me| me.lease)
    }

    fn drop_everything(&self) -> u64 {
        let dropped = self.parts.groups.iter().map(|it| it.invalidate_here(None));
        dropped.sum()
    }
}
