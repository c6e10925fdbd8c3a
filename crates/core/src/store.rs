//! Bounded memory: entries by group and key, with weights in bytes, expiry and eviction
//! (quick_cache's S3-FIFO).
//!
//! It must never hold more than its capacity, never return what has expired, and never keep a slice
//! of a foreign buffer: a 100-byte value sliced out of a network buffer would pin the whole 8 KiB.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter, sync::Cache,
};

use super::{
    fence::Fence,
    membership::IdHash,
    stats::{Departure, GroupStats, StoreStats},
};
use crate::ports::Timestamp;

pub use super::stats::GroupId;

/// What an entry costs beside its key's and value's bytes: the slot and hash table of quick_cache
/// with the slack of their doubling, the ghost entries, two allocations, their headers and the
/// allocator's rounding. Chosen so that a store full of small entries stays within its capacity by
/// resident memory; `tests/memory.rs` measures it.
pub const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Uses are counted up to this limit, so that the hottest entries are no longer written to.
pub const MAX_USE_COUNT: u32 = 255;

/// A kept answer. Immutable; a newer entry replaces it.
#[derive(Debug)]
pub struct Entry {
    /// The value; `None` if the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// From this moment on, the entry is not served.
    pub expires_at: Timestamp,
    /// A strong validator: xxh3 of the value, computed when it was loaded.
    pub entity_tag: u64,
    /// How often it was requested, on this node and on the one that it came from; see
    /// [`MAX_USE_COUNT`].
    use_count: AtomicU32,
    /// The incarnation of the other member that is known to hold it; 0 if there is none.
    replica_at: AtomicU64,
}

impl Entry {
    /// An entry whose value is copied to a buffer of exactly its size.
    pub fn owned(value: Option<&[u8]>, expires_at: Timestamp, entity_tag: u64) -> Self {
        Self {
            value: value.map(|value| Bytes::from(Box::<[u8]>::from(value))),
            expires_at,
            entity_tag,
            use_count: AtomicU32::new(0),
            replica_at: AtomicU64::new(0),
        }
    }

    /// Sets the use count.
    #[must_use]
    pub fn with_use_count(self, use_count: u32) -> Self {
        self.use_count
            .store(use_count.min(MAX_USE_COUNT), Ordering::Relaxed);
        self
    }

    /// How often it was requested, on this node and on the one that it came from; at most
    /// [`MAX_USE_COUNT`].
    pub fn use_count(&self) -> u32 {
        self.use_count.load(Ordering::Relaxed)
    }

    /// Counts a use. If two threads race, one use is lost and the entry looks slightly cooler,
    /// which is harmless.
    fn used(&self) {
        let use_count = self.use_count();
        if use_count < MAX_USE_COUNT {
            self.use_count.store(use_count + 1, Ordering::Relaxed);
        }
    }

    /// The incarnation of the other member that is known to hold it.
    pub fn replica_at(&self) -> IdHash {
        IdHash(self.replica_at.load(Ordering::Relaxed))
    }

    /// Records that this member also holds it.
    pub fn set_replica_at(&self, member: IdHash) {
        self.replica_at.store(member.0, Ordering::Relaxed);
    }
}

/// The outcome for an entry that another node offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Kept.
    Kept,
    /// There already is a fresh entry.
    Known,
    /// The store is full, and the offered entry is cold.
    Full,
}

/// An entry with its group and key, as found by a walk over the store.
#[derive(Clone, Debug)]
pub struct Found {
    /// The number of its group.
    pub group: GroupId,
    /// Its key.
    pub key: Box<str>,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// One bounded store.
pub struct Store {
    cache: Cache<EntryKey, Arc<Entry>, Bytesize, DefaultHashBuilder, Collect>,
    stats: StoreStats,
    fence: Option<Arc<Fence>>,
}

impl Store {
    /// A store of `capacity` bytes in total. It can keep a value of `largest_value` bytes if its
    /// capacity allows that at all. The numbers of the groups are less than `groups`.
    pub fn new(capacity: u64, largest_value: u64, groups: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(shards(capacity, largest_value))
            .weight_capacity(capacity)
            .estimated_items_capacity(estimated_items(capacity))
            .build();
        let hasher = DefaultHashBuilder::default();
        let cache = match options {
            Ok(options) => Cache::with_options(options, Bytesize, hasher, Collect),
            // Building the options fails only without capacities, and both are given.
            Err(_) => Cache::with(0, capacity, Bytesize, hasher, Collect),
        };
        Self {
            cache,
            stats: StoreStats::new(groups),
            fence: None,
        }
    }

    /// Puts the store behind a fence: entries are found only while the fence holds.
    #[must_use]
    pub fn under(mut self, fence: Arc<Fence>) -> Self {
        self.fence = Some(fence);
        self
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.fence.as_ref().is_none_or(|fence| fence.is_open(now))
    }

    /// The entry, unless it has expired by `now`.
    pub fn get(&self, group: GroupId, key: &str, now: Timestamp) -> Option<Arc<Entry>> {
        let lookup = KeyRef { group, key };
        let entry = self.cache.get(&lookup)?;
        if !self.is_open(now) {
            return None;
        }
        if now < entry.expires_at {
            entry.used();
            return Some(entry);
        }
        // Remove only this entry: a fresh one may have replaced it in the meantime.
        let gone = self
            .cache
            .remove_if(&lookup, |kept| Arc::ptr_eq(kept, &entry));
        self.gone(gone.as_ref(), Departure::Expired);
        None
    }

    /// Keeps an entry and replaces an older one. Returns false if the entry is too large for the
    /// store.
    pub fn insert(&self, group: GroupId, key: &str, entry: Arc<Entry>) -> bool {
        let bytes = weight(key, &entry);
        if bytes > self.cache.shard_capacity() {
            self.remove(group, key);
            return false;
        }
        let place = EntryKey {
            group,
            key: key.into(),
        };
        self.stats.comes(group, bytes);
        let mut left = Vec::new();
        self.cache.insert_with_lifecycle(place, entry, &mut left);
        for (place, entry) in left {
            // This includes an older entry for the same key.
            let why = if place.group == group && *place.key == *key {
                Departure::Dropped
            } else {
                Departure::Evicted
            };
            self.gone(Some(&(place, entry)), why);
        }
        true
    }

    fn gone(&self, entry: Option<&(EntryKey, Arc<Entry>)>, why: Departure) {
        if let Some((place, entry)) = entry {
            self.stats.goes(place.group, weight(&place.key, entry), why);
        }
    }

    /// The entry, unless it has expired by `now`. Does not count as a use.
    pub fn peek(&self, group: GroupId, key: &str, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.cache.peek(&KeyRef { group, key })?;
        (now < entry.expires_at && self.is_open(now)).then_some(entry)
    }

    /// Keeps an entry that another node offers, unless there already is a fresh one, or the store
    /// is full and the entry is cold.
    ///
    /// In a long handoff, the hottest entries arrive first, and S3-FIFO would evict them in favour
    /// of the coldest, which arrive last. So an entry is inserted with as many uses as quick_cache
    /// counts, and an entry without any use is not inserted into a full store.
    pub fn offer(&self, group: GroupId, key: &str, entry: Arc<Entry>, now: Timestamp) -> Offered {
        /// quick_cache counts at most this many uses (its `MAX_F`).
        const USES_THAT_COUNT: u32 = 2;
        if self.peek(group, key, now).is_some() {
            return Offered::Known;
        }
        let use_count = entry.use_count();
        let largest = self.cache.shard_capacity();
        let room = self.capacity().saturating_sub(self.bytes());
        let weight = weight(key, &entry);
        // Keep a thirty-second free, since the shards don't fill evenly.
        if (use_count == 0 && room < weight + self.capacity() / 32) || weight > largest {
            return Offered::Full;
        }
        self.insert(group, key, entry);
        for _ in 0..use_count.min(USES_THAT_COUNT) {
            self.cache.get(&KeyRef { group, key });
        }
        Offered::Kept
    }

    /// A walk over all entries. No lock is held between steps, so concurrent insertions and
    /// removals may or may not be seen.
    pub fn walk(&self) -> impl Iterator<Item = Found> + Send + '_ {
        self.cache.iter().map(|(key, entry)| Found {
            group: key.group,
            key: key.key,
            entry,
        })
    }

    /// Removes exactly this entry. A newer one for the same key stays.
    pub fn remove_exactly(&self, found: &Found) {
        let lookup = KeyRef {
            group: found.group,
            key: &found.key,
        };
        let gone = self
            .cache
            .remove_if(&lookup, |kept| Arc::ptr_eq(kept, &found.entry));
        self.gone(gone.as_ref(), Departure::Dropped);
    }

    /// Removes an entry. Returns true if there was one.
    pub fn remove(&self, group: GroupId, key: &str) -> bool {
        let gone = self.cache.remove(&KeyRef { group, key });
        self.gone(gone.as_ref(), Departure::Dropped);
        gone.is_some()
    }

    /// Removes all entries of a group, and returns their number.
    pub fn purge(&self, group: GroupId) -> u64 {
        let purged = AtomicU64::new(0);
        self.cache.retain(|place, entry| {
            let keep = place.group != group;
            if !keep {
                purged.fetch_add(1, Ordering::Relaxed);
                let bytes = weight(&place.key, entry);
                self.stats.goes(group, bytes, Departure::Dropped);
            }
            keep
        });
        purged.into_inner()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// The size of all entries in bytes, including overhead.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// The counts of a group.
    pub fn stats(&self, group: GroupId) -> GroupStats {
        self.stats.read(group)
    }
}

/// The number of shards. quick_cache rejects an entry that exceeds its shard's share of the
/// capacity, so there are enough shards to avoid contention, but each is large enough for several
/// of the largest values.
fn shards(capacity: u64, largest_value: u64) -> usize {
    let wanted = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4);
    let possible = capacity / (largest_value.saturating_add(ENTRY_OVERHEAD_BYTES) * 4).max(1);
    // A power of two, rounded down. quick_cache would round up, so the shards could be too small.
    let bounded = wanted
        .min(usize::try_from(possible).unwrap_or(usize::MAX))
        .max(1);
    1 << bounded.ilog2()
}

/// The size of quick_cache's ghost list. Its tables grow by themselves.
fn estimated_items(capacity: u64) -> usize {
    usize::try_from(capacity / 1024).unwrap_or(usize::MAX)
}

#[derive(Clone, PartialEq, Eq)]
struct EntryKey {
    group: GroupId,
    key: Box<str>,
}

impl Hash for EntryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { group, key } = self;
        KeyRef { group: *group, key }.hash(state);
    }
}

/// Looks up an entry without allocating a key.
#[derive(Hash)]
struct KeyRef<'a> {
    group: GroupId,
    key: &'a str,
}

impl Equivalent<EntryKey> for KeyRef<'_> {
    fn equivalent(&self, key: &EntryKey) -> bool {
        self.group == key.group && *self.key == *key.key
    }
}

#[derive(Clone)]
struct Bytesize;

impl Weighter<EntryKey, Arc<Entry>> for Bytesize {
    fn weight(&self, place: &EntryKey, entry: &Arc<Entry>) -> u64 {
        weight(&place.key, entry)
    }
}

fn weight(key: &str, entry: &Entry) -> u64 {
    let value = entry.value.as_ref().map_or(0, Bytes::len);
    (key.len() + value) as u64 + ENTRY_OVERHEAD_BYTES
}

/// Collects the entries that an insertion evicts, so that they are counted and freed after the
/// store's lock is released.
#[derive(Clone)]
struct Collect;

impl Lifecycle<EntryKey, Arc<Entry>> for Collect {
    type RequestState = Vec<(EntryKey, Arc<Entry>)>;

    fn on_evict(&self, left: &mut Self::RequestState, place: EntryKey, entry: Arc<Entry>) {
        left.push((place, entry));
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
