//! When a lease must be renewed, and until when it is certainly alive. Pure arithmetic, no IO.

use std::time::Duration;

use tokio::time::Instant;

/// How long an etcd that lost its data is not believed in what it doesn't know. By then, members
/// that relied on leases which it lost have registered again, or have lost them by their own
/// clocks; and what such members promised each other since, for a second at most, has run out.
pub(super) fn doubt(ttl: Duration) -> Duration {
    ttl + Duration::from_secs(2)
}

/// A lease, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: i64,
    ttl: Duration,
    /// When the last acknowledged renewal was *sent*. etcd counts from a later moment, so this one
    /// is safe.
    renewed_at: Instant,
}

impl Lease {
    /// A lease granted in response to a request sent at `asked_at`.
    pub(super) fn granted(id: i64, ttl: Duration, asked_at: Instant) -> Self {
        Self {
            id,
            ttl,
            renewed_at: asked_at,
        }
    }

    /// Its time to live.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// etcd acknowledged a renewal that was sent at `asked_at`.
    pub(super) fn renewed(&mut self, asked_at: Instant) {
        self.renewed_at = self.renewed_at.max(asked_at);
    }

    /// Before this moment, the lease can't have expired.
    pub(super) fn deadline(&self) -> Instant {
        self.renewed_at + self.ttl
    }

    /// How often to renew the lease. Two renewals may get lost.
    pub(super) fn renewal_interval(ttl: Duration) -> Duration {
        ttl / 3
    }

    /// Whether the lease may have expired by `now`.
    pub(super) fn may_have_ended(&self, now: Instant) -> bool {
        now >= self.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_the_asking_and_never_goes_back() {
        let ttl = Duration::from_secs(9);
        let asked = Instant::now();
        let mut lease = Lease::granted(7, ttl, asked);
        assert_eq!(lease.deadline(), asked + ttl);
        assert!(!lease.may_have_ended(asked + ttl - Duration::from_millis(1)));
        assert!(lease.may_have_ended(asked + ttl));
        let later = asked + Lease::renewal_interval(ttl);
        lease.renewed(later);
        // An answer that arrives late.
        lease.renewed(asked);
        assert_eq!(lease.deadline(), later + ttl);
        assert_eq!(Lease::renewal_interval(ttl), Duration::from_secs(3));
    }
}
