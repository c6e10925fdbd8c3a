//! Bounded memory: entries by group and key, with weights in bytes, expiry and eviction
//! (quick_cache's S3-FIFO).
//!
//! It must never hold more than its capacity, and never return what was purged, nor what has
//! expired unless it is asked for stale entries, too.

mod capacity;
mod departed;
mod entry;
mod epochs;
mod per_group;
mod stats;
mod tag_epochs;

use std::sync::Arc;

use quick_cache::{OptionsBuilder, sync::Cache};

pub use capacity::ENTRY_OVERHEAD_BYTES;
use capacity::{Bytesize, Collect, estimated_items, shards, weight};
use departed::Departed;
pub use entry::{Entry, MAX_USE_COUNT};
use epochs::Epochs;
use stats::StoreStats;
pub use stats::{Departure, GroupStats};

use crate::{
    fence::Fence,
    key::{GroupId, Hashed, HashedKey, OwnedKey},
    ports::Timestamp,
    tags::TagHash,
};

/// The outcome for an entry that another node offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Kept.
    Kept,
    /// There already is a fresh entry.
    Known,
    /// The store is full and the offered entry is cold, or the entry is larger than a shard.
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

impl Found {
    /// Its key, hashed.
    pub fn key(&self) -> HashedKey<'_> {
        HashedKey::new(self.group, &self.key)
    }
}

/// A load that is under way: it is remembered for it which tags are purged meanwhile.
#[must_use]
pub struct UnderWay {
    store: Arc<Store>,
    group: GroupId,
    /// How often tags of the group had been purged by then.
    departed: u32,
}

impl UnderWay {
    /// Whether the entry that it brought may be kept: none of its tags was purged since the load
    /// departed. To be asked before [`Store::insert`] and [`Store::offer`].
    pub fn brings(&self, entry: &Entry) -> bool {
        self.store
            .epochs
            .tags(self.group)
            .mark(entry, self.departed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.store.epochs.tags(self.group).arrives(self.departed);
    }
}

/// Entries that a sweep looks at before others on its thread get their turn.
const STRIDE: usize = 256;

/// One bounded store.
pub struct Store {
    cache: Cache<OwnedKey, Arc<Entry>, Bytesize, Hashed, Collect>,
    stats: StoreStats,
    epochs: Epochs,
    departed: Departed,
    fence: Option<Arc<Fence>>,
}

impl Store {
    /// A store of `capacity` bytes in total. It can keep a value of `largest_value` bytes if its
    /// capacity allows that at all.
    pub fn new(capacity: u64, largest_value: u64) -> Self {
        let options = OptionsBuilder::new()
            .shards(shards(capacity, largest_value))
            .weight_capacity(capacity)
            .estimated_items_capacity(estimated_items(capacity))
            .build();
        let cache = match options {
            Ok(options) => Cache::with_options(options, Bytesize, Hashed, Collect),
            // Building the options fails only without capacities, and both are given.
            Err(_) => Cache::with(0, capacity, Bytesize, Hashed, Collect),
        };
        Self {
            cache,
            stats: StoreStats::new(),
            epochs: Epochs::new(),
            departed: Departed::new(),
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

    /// The entry, unless it has expired by `now`. One that may still be served as a stale one
    /// stays.
    pub fn get(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.cache.get(key)?;
        if !self.is_open(now) {
            return None;
        }
        let current = self.epochs.is_current(key.group(), &entry);
        if current && entry.record.is_fresh(now) {
            entry.used();
            return Some(entry);
        }
        if current && entry.record.is_usable(now) {
            return None;
        }
        let why = if current {
            Departure::Expired
        } else {
            Departure::Dropped
        };
        self.remove_if(key, &entry, why);
        None
    }

    /// The entry, even if it is a stale one.
    pub fn get_usable(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.cache.get(key)?;
        let found = self.may_be_used(key.group(), &entry, now);
        found.then(|| {
            entry.used();
            entry
        })
    }

    /// The same; does not count as a use.
    pub fn peek_usable(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.cache.peek(key)?;
        let found = self.may_be_used(key.group(), &entry, now);
        found.then_some(entry)
    }

    fn may_be_used(&self, group: GroupId, entry: &Entry, now: Timestamp) -> bool {
        let current = self.is_open(now) && self.epochs.is_current(group, entry);
        current && entry.record.is_usable(now)
    }

    /// Removes only this entry: a fresh one may have replaced it in the meantime.
    fn remove_if(&self, key: &HashedKey<'_>, entry: &Arc<Entry>, why: Departure) {
        let gone = self.cache.remove_if(key, |kept| Arc::ptr_eq(kept, entry));
        if let Some((key, entry)) = gone {
            self.gone(&key, &entry, why);
        }
    }

    /// Keeps an entry and replaces an older one. Returns false if the entry is too large for the
    /// store.
    pub fn insert(&self, key: &HashedKey<'_>, entry: Arc<Entry>) -> bool {
        let bytes = weight(key.text(), &entry);
        if bytes > self.cache.shard_capacity() {
            self.remove(key);
            return false;
        }
        self.epochs.mark(key.group(), &entry);
        self.stats.comes(key.group(), bytes);
        let mut left = Vec::new();
        self.cache
            .insert_with_lifecycle(key.kept(), entry, &mut left);
        for (place, entry) in left {
            if place.group == key.group() && *place.text == *key.text() {
                // An older entry for the same key: the key stays.
                self.uncount(&place, &entry, Departure::Dropped);
            } else {
                self.gone(&place, &entry, Departure::Evicted);
            }
        }
        true
    }

    fn gone(&self, place: &OwnedKey, entry: &Entry, why: Departure) {
        self.uncount(place, entry, why);
        self.departed.note(&place.hashed(), why);
    }

    fn uncount(&self, place: &OwnedKey, entry: &Entry, why: Departure) {
        self.epochs.gone(place.group, entry);
        let bytes = weight(&place.text, entry);
        self.stats.goes(place.group, bytes, why);
    }

    /// Why the key left the store, if that was lately enough to be known.
    pub fn why_gone(&self, key: &HashedKey<'_>) -> Option<Departure> {
        self.departed.why(key)
    }

    /// The entry, unless it has expired by `now`. Does not count as a use.
    pub fn peek(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.peek_usable(key, now)?;
        entry.record.is_fresh(now).then_some(entry)
    }

    /// Keeps an entry that another node offers, unless there already is one (a fresh one is better
    /// than a stale one), the store is full and the entry is cold, or the entry is larger than a
    /// shard.
    ///
    /// In a long handoff, the hottest entries arrive first, and S3-FIFO would evict them in favour
    /// of the coldest, which arrive last. So an entry is inserted with as many uses as quick_cache
    /// counts, and an entry without any use is not inserted into a full store.
    pub fn offer(&self, key: &HashedKey<'_>, entry: Arc<Entry>, now: Timestamp) -> Offered {
        let use_count = entry.use_count();
        let stale = !entry.record.is_fresh(now);
        if stale && self.peek_usable(key, now).is_some() {
            return Offered::Known;
        }
        let wanted = self.would_keep(key, weight(key.text(), &entry), use_count, now);
        if wanted == Offered::Kept {
            self.insert(key, entry);
            self.warm(key, use_count);
        }
        wanted
    }

    /// What [`Store::offer`] would do with an entry whose value has so many bytes. An entry already
    /// here is kept as warm as if it had been used here.
    pub fn would_keep_copy(
        &self,
        key: &HashedKey<'_>,
        value_bytes: u64,
        use_count: u32,
        now: Timestamp,
    ) -> Offered {
        let weight = key.text().len() as u64 + value_bytes + ENTRY_OVERHEAD_BYTES;
        self.would_keep(key, weight, use_count, now)
    }

    fn would_keep(
        &self,
        key: &HashedKey<'_>,
        weight: u64,
        use_count: u32,
        now: Timestamp,
    ) -> Offered {
        if let Some(entry) = self.peek(key, now) {
            entry.raise_use_count(use_count);
            self.warm(key, use_count);
            return Offered::Known;
        }
        let room = self.capacity().saturating_sub(self.bytes());
        // Keep a thirty-second free, since the shards don't fill evenly.
        let cold = use_count == 0 && room < weight + self.capacity() / 32;
        if cold || weight > self.cache.shard_capacity() {
            return Offered::Full;
        }
        Offered::Kept
    }

    /// Tells quick_cache of so many uses; it counts at most two (its `MAX_F`).
    fn warm(&self, key: &HashedKey<'_>, use_count: u32) {
        for _ in 0..use_count.min(2) {
            self.cache.get(key);
        }
    }

    /// A walk over all entries that were not purged. No lock is held between steps, so concurrent
    /// insertions and removals may or may not be seen.
    pub fn walk(&self) -> impl Iterator<Item = Found> + Send + '_ {
        self.everything()
            .filter(|it| self.epochs.is_current(it.group, &it.entry))
    }

    fn everything(&self) -> impl Iterator<Item = Found> + Send + '_ {
        self.cache.iter().map(|(key, entry)| Found {
            group: key.group,
            key: key.text,
            entry,
        })
    }

    /// Removes exactly this entry. A newer one for the same key stays.
    pub fn remove_exactly(&self, found: &Found) {
        self.remove_if(&found.key(), &found.entry, Departure::Dropped);
    }

    /// Removes an entry. Returns true if there was one.
    pub fn remove(&self, key: &HashedKey<'_>) -> bool {
        let Some((key, entry)) = self.cache.remove(key) else {
            return false;
        };
        let current = self.epochs.is_current(key.group, &entry);
        self.gone(&key, &entry, Departure::Dropped);
        current
    }

    /// From now on, no entry of the group that was kept before is found. Takes no longer for many
    /// entries than for none; their memory is freed by [`Store::sweep`]. Returns how many entries
    /// went.
    pub fn purge(&self, group: GroupId) -> u64 {
        self.epochs.next(group, self.stats.read(group).items)
    }

    /// From now on, no entry of the group with that tag that was kept before is found. Takes no
    /// longer for many entries than for none.
    pub fn purge_tag(&self, group: GroupId, tag: TagHash) {
        let tags = self.epochs.tags(group);
        if !tags.purge(tag) {
            // Before the purge: nothing that comes in after it may have a number of before.
            tags.begin_anew();
            self.purge(group);
        }
    }

    /// A load of a key of the group departs.
    pub fn departs(self: &Arc<Self>, group: GroupId) -> UnderWay {
        UnderWay {
            departed: self.epochs.tags(group).departs(),
            store: self.clone(),
            group,
        }
    }

    /// How many purged tags are remembered, until a sweep has gone over all entries and the loads
    /// that were under way have ended.
    pub fn purged_tags(&self) -> usize {
        self.epochs.remembered_tags()
    }

    /// Frees the memory of entries that were purged. While one caller sweeps, others return at
    /// once, and the sweep takes their purges along.
    pub async fn sweep(&self) {
        if !self.epochs.ask() {
            return;
        }
        loop {
            let (asked, tag_purges) = (self.epochs.asked(), self.epochs.tag_purges());
            for (step, found) in self.everything().enumerate() {
                if step % STRIDE == STRIDE - 1 {
                    tokio::task::yield_now().await;
                }
                if !self.epochs.is_current(found.group, &found.entry) {
                    self.remove_exactly(&found);
                }
            }
            for (group, number) in tag_purges {
                self.epochs.tags(group).compared(number);
            }
            if self.epochs.swept(asked) {
                return;
            }
        }
    }

    /// The number of entries that take memory.
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

#[cfg(test)]
mod tests;
