//! Time as the core sees it.

use std::time::Duration;

/// A moment by this node's monotonic clock, in milliseconds since an arbitrary moment.
///
/// It means nothing to another node. What travels is the remaining lifetime
/// ([`Record::life_left`](crate::record::Record::life_left)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than any other moment: the expiry of an entry that doesn't expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `duration`; [`Timestamp::NEVER`] on overflow.
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this moment; zero if this moment is the earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// When entries from another node were read there, and when they arrived here.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The earliest moment at which the sender can have read them.
    pub read_at: Timestamp,
    /// The present moment.
    pub now: Timestamp,
}

/// The core's source of time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. It never goes back, and it keeps running while the machine is suspended.
    fn now(&self) -> Timestamp;
}
