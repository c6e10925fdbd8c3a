//! Bounded memory: entries by group and key, with weights in bytes, expiry and eviction (S3-FIFO by quick_cache).
//!
//! It must never hold more than its capacity, never return what has expired, and never keep a slice of a foreign buffer:
//! a 100-byte value sliced out of a network buffer would pin the whole 8 KiB (design.md, invariant 5).

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter, sync::Cache,
};

use crate::ports::Timestamp;

/// What an entry costs beside its key's and value's bytes: the slot and hash table of quick_cache with the slack of their doubling,
/// the ghost entries, two allocations, their headers and the allocator's rounding. Chosen so that a store full of small
/// entries stays within its capacity by resident memory; `cargo bench --bench store` prints the measured figure.
pub const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// The number of a group within this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u16);

/// A kept answer. Immutable: a newer one replaces it.
#[derive(Debug)]
pub struct Entry {
    /// The value; `None`: the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// From this moment on it is not served.
    pub expires_at: Timestamp,
    /// A strong validator: xxh3 of the value, made when it was loaded.
    pub entity_tag: u64,
}

impl Entry {
    /// An entry whose value stands in a buffer of its own, exactly as large as it is.
    pub fn owned(value: Option<&[u8]>, expires_at: Timestamp, entity_tag: u64) -> Self {
        Self {
            value: value.map(|value| Bytes::from(Box::<[u8]>::from(value))),
            expires_at,
            entity_tag,
        }
    }
}

/// How many entries left a store, and why. Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departures {
    /// Pushed out by others.
    pub evicted: u64,
    /// Found past their expiry.
    pub expired: u64,
}

/// One bounded store.
pub struct Store {
    cache: Cache<EntryKey, Arc<Entry>, Bytesize, DefaultHashBuilder, CountEvictions>,
    evicted: Arc<AtomicU64>,
    expired: AtomicU64,
}

impl Store {
    /// A store of `capacity` bytes, all told, which must be able to keep a value of `largest_value` bytes if that is less than its
    /// capacity at all.
    pub fn new(capacity: u64, largest_value: u64) -> Self {
        let evicted = Arc::new(AtomicU64::new(0));
        let options = OptionsBuilder::new()
            .shards(shards(capacity, largest_value))
            .weight_capacity(capacity)
            .estimated_items_capacity(estimated_items(capacity))
            .build();
        let lifecycle = CountEvictions(evicted.clone());
        let cache = match options {
            Ok(options) => {
                Cache::with_options(options, Bytesize, DefaultHashBuilder::default(), lifecycle)
            }
            // Only a missing capacity is refused, and both are given.
            Err(_) => Cache::with(
                0,
                capacity,
                Bytesize,
                DefaultHashBuilder::default(),
                lifecycle,
            ),
        };
        Self {
            cache,
            evicted,
            expired: AtomicU64::new(0),
        }
    }

    /// The entry, unless it has expired by `now`.
    pub fn get(&self, group: GroupId, key: &str, now: Timestamp) -> Option<Arc<Entry>> {
        let lookup = KeyRef { group, key };
        let entry = self.cache.get(&lookup)?;
        if now < entry.expires_at {
            return Some(entry);
        }
        // Only this one: a fresh entry may have taken its place since the look.
        let gone = self
            .cache
            .remove_if(&lookup, |kept| Arc::ptr_eq(kept, &entry));
        self.expired
            .fetch_add(u64::from(gone.is_some()), Ordering::Relaxed);
        None
    }

    /// Keeps an entry, in place of an older one; false if it is larger than the store takes.
    pub fn insert(&self, group: GroupId, key: &str, entry: Arc<Entry>) -> bool {
        let key = EntryKey {
            group,
            key: key.into(),
        };
        if Bytesize.weight(&key, &entry) > self.cache.shard_capacity() {
            self.cache.remove(&key);
            return false;
        }
        self.cache.insert(key, entry);
        true
    }

    /// Drops an entry; true if there was one.
    pub fn remove(&self, group: GroupId, key: &str) -> bool {
        self.cache.remove(&KeyRef { group, key }).is_some()
    }

    /// Drops all entries of a group; returns how many there were.
    pub fn purge(&self, group: GroupId) -> u64 {
        let purged = AtomicU64::new(0);
        self.cache.retain(|key, _| {
            let keep = key.group != group;
            purged.fetch_add(u64::from(!keep), Ordering::Relaxed);
            keep
        });
        purged.into_inner()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Bytes held, overhead included.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Bytes it may hold.
    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// How many entries left, and why.
    pub fn departures(&self) -> Departures {
        Departures {
            evicted: self.evicted.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
        }
    }
}

/// quick_cache refuses an entry heavier than its shard's share, so shards are as many as contention wants but each large
/// enough for several of the largest values.
fn shards(capacity: u64, largest_value: u64) -> usize {
    let wanted = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4);
    let possible = capacity / (largest_value.saturating_add(ENTRY_OVERHEAD_BYTES) * 4).max(1);
    // A power of two, rounded down: quick_cache rounds up, to shards that could be too small.
    let bounded = wanted
        .min(usize::try_from(possible).unwrap_or(usize::MAX))
        .max(1);
    1 << bounded.ilog2()
}

/// Sizes quick_cache's ghost list; its tables grow from small by themselves.
fn estimated_items(capacity: u64) -> usize {
    usize::try_from(capacity / 1024).unwrap_or(usize::MAX)
}

#[derive(PartialEq, Eq)]
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

/// Finds an entry without allocating a key.
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
    fn weight(&self, key: &EntryKey, entry: &Arc<Entry>) -> u64 {
        let value = entry.value.as_ref().map_or(0, Bytes::len);
        (key.key.len() + value) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Clone)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<EntryKey, Arc<Entry>> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, _state: &mut Self::RequestState, _key: EntryKey, _entry: Arc<Entry>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
