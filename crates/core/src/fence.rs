//! Whether what this node holds may be served: not after the process stood still (stopped, a
//! machine that was paused, no CPU at all) for so long that its lease ended. It was no member for a
//! while then, and was told of no removals.
//!
//! A process that runs keeps the fence up, whether or not the registry can be reached: a registry
//! that is away must not stop reads, and takes no member off the others' lists. So this is about
//! standing still alone. A node that runs but is cut off from registry and members alike is not
//! seen by it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::ports::Timestamp;

/// The fence in a node's entries.
#[derive(Debug)]
pub struct Fence {
    until: AtomicU64,
    lease: Duration,
}

impl Fence {
    /// Holds for ever until it is first kept up. `lease`: its time to live.
    pub fn new(lease: Duration) -> Self {
        Self {
            until: AtomicU64::new(Timestamp::NEVER.0),
            lease,
        }
    }

    /// Whether entries may be served.
    pub fn holds(&self, now: Timestamp) -> bool {
        // Acquire: who sees the fence restored sees the store emptied.
        now.0 < self.until.load(Ordering::Acquire)
    }

    /// This process runs, and its lease ends at `lease_end` unless it is renewed. To be called at
    /// least twelve times a lease.
    pub fn extend(&self, now: Timestamp, lease_end: Option<Timestamp>) {
        // A lease that is renewed each third of its time ends later than this. One that isn't (the
        // registry is away) ends for all.
        let renewed = now.after(self.lease / 3);
        let until = match lease_end {
            Some(end) if renewed < end => end,
            _ => now.after(self.lease),
        };
        self.until.store(until.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);

    #[test]
    fn it_ends_with_the_lease_when_the_process_stands_still() {
        let fence = Fence::new(LEASE);
        assert!(fence.holds(Timestamp(u64::MAX - 1)), "not begun");
        fence.extend(Timestamp(0), Some(Timestamp(12_000)));
        fence.extend(Timestamp(3_000), Some(Timestamp(12_000)));
        assert!(fence.holds(Timestamp(11_999)));
        assert!(!fence.holds(Timestamp(12_000)));
    }

    #[test]
    fn a_registry_that_is_away_doesn_t_end_it_while_the_process_runs() {
        let fence = Fence::new(LEASE);
        let lease_end = Some(Timestamp(12_000));
        for second in 0..60 {
            let now = Timestamp(second * 1_000);
            assert!(fence.holds(now), "{second} s");
            fence.extend(now, lease_end);
        }
        fence.extend(Timestamp(60_000), None);
        assert!(fence.holds(Timestamp(71_999)));
        assert!(!fence.holds(Timestamp(72_000)));
    }
}
