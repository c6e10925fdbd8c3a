//! Until when this node's lease is certainly alive, by its own clock.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use gaocache_core::ports::Timestamp;

/// Until when the lease is certainly alive. The registration updates it, and the session reads it.
#[derive(Default)]
pub(super) struct LeaseEnd {
    /// When the last renewal was about to be sent.
    asked_at: AtomicU64,
    /// 0: not known.
    end: AtomicU64,
    /// Whether this node is registered in etcd under it.
    registered: AtomicBool,
}

impl LeaseEnd {
    pub(super) fn asked(&self, now: Timestamp) {
        self.asked_at.store(now.0, Ordering::Release);
    }

    /// The renewal that was asked for last was acknowledged. Its end counts from the asking, by a
    /// clock that goes on while the machine is suspended: from the answer on would be too long.
    pub(super) fn renewed(&self, ttl: Duration) {
        let asked_at = Timestamp(self.asked_at.load(Ordering::Acquire));
        self.end.store(asked_at.after(ttl).0, Ordering::Release);
    }

    pub(super) fn registered(&self) {
        self.registered.store(true, Ordering::Release);
    }

    pub(super) fn lost(&self) {
        self.registered.store(false, Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Timestamp> {
        let end = self.end.load(Ordering::Acquire);
        (end != 0 && self.registered.load(Ordering::Acquire)).then_some(Timestamp(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_lease_counts_from_the_asking() {
        let lease = LeaseEnd::default();
        lease.asked(Timestamp(1_000));
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), None, "nothing stands under it yet");
        lease.registered();
        assert_eq!(lease.get(), Some(Timestamp(11_000)));
        // However late the answer is read: the process may have been paused before.
        lease.asked(Timestamp(5_000));
        assert_eq!(lease.get(), Some(Timestamp(11_000)), "not yet acknowledged");
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), Some(Timestamp(15_000)));
        lease.lost();
        assert_eq!(lease.get(), None);
    }
}
