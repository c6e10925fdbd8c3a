//! Until when this node's lease is certainly alive, by its own clock.

use std::time::Duration;

use parking_lot::Mutex;

use gaocache_core::ports::{HeldLease, Timestamp};

/// Until when the lease is certainly alive. The registration updates it, and the session reads it.
#[derive(Default)]
pub(super) struct LeaseEnd(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// When the last renewal was about to be sent.
    asked_at: Timestamp,
    end: Option<Timestamp>,
    /// The lease under which this node is registered in etcd.
    registered: Option<i64>,
}

impl LeaseEnd {
    pub(super) fn asked(&self, now: Timestamp) {
        self.0.lock().asked_at = now;
    }

    /// The renewal that was asked for last was acknowledged. Its end counts from the asking, by a
    /// clock that goes on while the machine is suspended: from the answer on would be too long.
    pub(super) fn renewed(&self, ttl: Duration) {
        let mut known = self.0.lock();
        known.end = Some(known.asked_at.after(ttl));
    }

    pub(super) fn registered(&self, lease: i64) {
        self.0.lock().registered = Some(lease);
    }

    pub(super) fn lost(&self) {
        self.0.lock().registered = None;
    }

    pub(super) fn get(&self) -> Option<HeldLease> {
        let known = self.0.lock();
        let (id, end) = (known.registered?, known.end?);
        Some(HeldLease { id, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_lease_counts_from_the_asking() {
        let lease = LeaseEnd::default();
        let end = |end| {
            let end = Timestamp(end);
            Some(HeldLease { id: 7, end })
        };
        lease.asked(Timestamp(1_000));
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), None, "nothing stands under it yet");
        lease.registered(7);
        assert_eq!(lease.get(), end(11_000));
        // However late the answer is read: the process may have been paused before.
        lease.asked(Timestamp(5_000));
        assert_eq!(lease.get(), end(11_000), "not yet acknowledged");
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), end(15_000));
        lease.lost();
        assert_eq!(lease.get(), None);
    }
}
