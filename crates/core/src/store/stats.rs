//! Counts by group what a store holds, and what left it and why.

use std::sync::atomic::{AtomicU64, Ordering};

use super::per_group::PerGroup;
use crate::key::GroupId;

/// The numbers of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Entries that take memory; purged ones do until they are swept.
    pub items: u64,
    /// The size of all entries in bytes, including overhead.
    pub bytes: u64,
    /// What it keeps when others want room, in bytes.
    pub share: u64,
    /// What it never exceeds, in bytes.
    pub limit: u64,
    /// Entries evicted since the start.
    pub evicted: u64,
    /// Entries found to have expired since the start.
    pub expired: u64,
}

/// Why an entry leaves the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Evicted to make room for others.
    Evicted = 1,
    /// Found to have expired.
    Expired,
    /// Removed, purged, handed over, or replaced by a newer entry for the same key.
    Dropped,
}

#[derive(Default)]
struct Counters {
    items: AtomicU64,
    bytes: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// The numbers of all groups.
pub(super) struct StoreStats(PerGroup<Counters>);

impl StoreStats {
    pub(super) fn new() -> Self {
        Self(PerGroup::new())
    }

    pub(super) fn comes(&self, group: GroupId, bytes: u64) {
        let counters = self.0.of(group);
        counters.items.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn goes(&self, group: GroupId, bytes: u64, why: Departure) {
        let counters = self.0.of(group);
        counters.items.fetch_sub(1, Ordering::Relaxed);
        counters.bytes.fetch_sub(bytes, Ordering::Relaxed);
        match why {
            Departure::Evicted => counters.evicted.fetch_add(1, Ordering::Relaxed),
            Departure::Expired => counters.expired.fetch_add(1, Ordering::Relaxed),
            Departure::Dropped => 0,
        };
    }

    /// What the entries of a group are charged.
    pub(super) fn bytes(&self, group: GroupId) -> u64 {
        self.0.of(group).bytes.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self, group: GroupId) -> GroupStats {
        let counters = self.0.of(group);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GroupStats {
            items: read(&counters.items),
            bytes: read(&counters.bytes),
            evicted: read(&counters.evicted),
            expired: read(&counters.expired),
            ..GroupStats::default()
        }
    }
}
