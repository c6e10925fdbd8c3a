//! Bounded memory: entries by group and key, with charges in bytes, expiry and eviction.
//!
//! It must never hold more than its capacity, and never return what was purged, nor what has
//! expired unless it is asked for stale entries, too.

mod block;
mod capacity;
mod departed;
mod entry;
mod epochs;
mod ghosts;
mod per_group;
mod shard;
mod slab;
mod stats;
mod tag_epochs;
mod walk;

use std::sync::Arc;

use parking_lot::RwLock;

pub use capacity::{MOST_VALUE_BYTES, charge};
use capacity::{shards, weight};
use departed::Departed;
use entry::MAX_LATELY;
pub use entry::{Entry, MAX_USE_COUNT};
use epochs::Epochs;
use shard::{Left, Locked, Shard};
use stats::StoreStats;
pub use stats::{Departure, GroupStats};
use walk::Walk;

use crate::{
    fence::Fence,
    key::{GroupId, HashedKey},
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

/// What a get makes of an entry.
enum Judged {
    Found(Entry),
    /// It is not to be seen now, and stays.
    Hidden,
    /// It is not to be seen any more.
    Over(Entry, Departure),
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

/// What so many uses elsewhere count here.
fn as_lately(use_count: u32) -> u8 {
    u8::try_from(use_count).map_or(MAX_LATELY, |uses| uses.min(MAX_LATELY))
}

/// Entries that a sweep looks at before others on its thread get their turn.
const STRIDE: usize = 256;

/// One bounded store.
pub struct Store {
    /// As many as a power of two.
    shards: Box<[Locked]>,
    shard_capacity: u64,
    stats: StoreStats,
    epochs: Epochs,
    departed: Departed,
    fence: Option<Arc<Fence>>,
}

impl Store {
    /// A store of `capacity` bytes in total. It can keep a value of `largest_value` bytes if its
    /// capacity allows that at all.
    pub fn new(capacity: u64, largest_value: u64) -> Self {
        let shards = shards(capacity, largest_value);
        let shard_capacity = capacity / shards as u64;
        let locked = |_| Locked(RwLock::new(Shard::new(shard_capacity)));
        Self {
            shards: (0..shards).map(locked).collect(),
            shard_capacity,
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

    fn shard(&self, key: &HashedKey<'_>) -> &RwLock<Shard> {
        // Bits that the shard's table doesn't use.
        let at = (key.hash() >> 40) as usize & (self.shards.len() - 1);
        &self.shards[at].0
    }

    /// What `judge` makes of the entry, if there is one; within the lock, so that nobody counts
    /// its references but whoever gets it.
    fn read<R>(&self, key: &HashedKey<'_>, judge: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.shard(key).read().get(key).map(judge)
    }

    /// The entry, unless it has expired by `now`. One that may still be served as a stale one
    /// stays.
    pub fn get(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        let judged = self.read(key, |entry| {
            if !self.is_open(now) {
                return Judged::Hidden;
            }
            let current = self.epochs.is_current(key.group(), entry);
            if current && entry.is_fresh(now) {
                entry.used();
                return Judged::Found(entry.clone());
            }
            if current && entry.is_usable(now) {
                return Judged::Hidden;
            }
            let why = if current {
                Departure::Expired
            } else {
                Departure::Dropped
            };
            Judged::Over(entry.clone(), why)
        });
        match judged? {
            Judged::Found(entry) => Some(entry),
            Judged::Hidden => None,
            Judged::Over(entry, why) => {
                self.remove_if(key, &entry, why);
                None
            }
        }
    }

    /// The entry, even if it is a stale one.
    pub fn get_usable(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        self.read(key, |entry| {
            self.may_be_used(entry, now).then(|| {
                entry.used();
                entry.clone()
            })
        })?
    }

    /// The same; does not count as a use.
    pub fn peek_usable(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        self.read(key, |entry| {
            self.may_be_used(entry, now).then(|| entry.clone())
        })?
    }

    fn may_be_used(&self, entry: &Entry, now: Timestamp) -> bool {
        let current = self.is_open(now) && self.epochs.is_current(entry.group(), entry);
        current && entry.is_usable(now)
    }

    /// Removes only this entry: a fresh one may have replaced it in the meantime.
    fn remove_if(&self, key: &HashedKey<'_>, entry: &Entry, why: Departure) {
        let gone = self.shard(key).write().remove_if(key, |it| it.is(entry));
        if let Some(entry) = gone {
            self.gone(&entry, why);
        }
    }

    /// Keeps an entry and replaces an older one. Returns false if the entry is too large for the
    /// store.
    pub fn insert(&self, entry: Entry) -> bool {
        self.insert_used(entry, 0)
    }

    /// The same for an entry that counts as used so often here.
    fn insert_used(&self, entry: Entry, lately: u8) -> bool {
        let (bytes, group) = (weight(&entry), entry.group());
        if bytes > self.shard_capacity {
            self.remove(&entry.hashed());
            return false;
        }
        self.epochs.mark(&entry);
        self.stats.comes(group, bytes);
        let mut left = Vec::new();
        self.shard(&entry.hashed())
            .write()
            .insert(entry.clone(), lately, &mut left);
        for left in left {
            match left {
                // The key stays.
                Left::Replaced(entry) => self.uncount(&entry, Departure::Dropped),
                Left::Evicted(entry) => self.gone(&entry, Departure::Evicted),
            }
        }
        true
    }

    fn gone(&self, entry: &Entry, why: Departure) {
        self.uncount(entry, why);
        self.departed.note(&entry.hashed(), why);
    }

    fn uncount(&self, entry: &Entry, why: Departure) {
        self.epochs.gone(entry);
        self.stats.goes(entry.group(), weight(entry), why);
    }

    /// Why the key left the store, if that was lately enough to be known.
    pub fn why_gone(&self, key: &HashedKey<'_>) -> Option<Departure> {
        self.departed.why(key)
    }

    /// The entry, unless it has expired by `now`. Does not count as a use.
    pub fn peek(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        let entry = self.peek_usable(key, now)?;
        entry.is_fresh(now).then_some(entry)
    }

    /// Keeps an entry that another node offers, unless there already is one (a fresh one is better
    /// than a stale one), the store is full and the entry is cold, or the entry is larger than a
    /// shard.
    ///
    /// In a long handoff, the hottest entries arrive first, and S3-FIFO would evict them in favour
    /// of the coldest, which arrive last. So an entry is inserted as if it had been used here, and
    /// an entry without any use is not inserted into a full store.
    pub fn offer(&self, entry: Entry, now: Timestamp) -> Offered {
        let key = entry.hashed();
        if !entry.is_fresh(now) && self.peek_usable(&key, now).is_some() {
            return Offered::Known;
        }
        let use_count = entry.use_count();
        let wanted = self.would_keep(&key, weight(&entry), use_count, now);
        if wanted == Offered::Kept {
            self.insert_used(entry.clone(), as_lately(use_count));
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
        let weight = charge(key.text().len(), value_bytes);
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
        // Keep a thirty-second free, since the shards don't fill evenly.
        let full = || self.capacity() < self.bytes() + weight + self.capacity() / 32;
        if weight > self.shard_capacity || (use_count == 0 && full()) {
            return Offered::Full;
        }
        Offered::Kept
    }

    /// Keeps an entry as if it had been used here so often.
    fn warm(&self, key: &HashedKey<'_>, use_count: u32) {
        self.read(key, |entry| {
            for _ in 0..as_lately(use_count) {
                entry.used_lately();
            }
        });
    }

    /// A walk over all entries that were not purged. No lock is held between steps, so concurrent
    /// insertions and removals may or may not be seen.
    pub fn walk(&self) -> impl Iterator<Item = Entry> + Send + '_ {
        self.everything()
            .filter(|it| self.epochs.is_current(it.group(), it))
    }

    fn everything(&self) -> impl Iterator<Item = Entry> + Send + '_ {
        Walk::new(&self.shards)
    }

    /// Removes exactly this entry. A newer one for the same key stays.
    pub fn remove_exactly(&self, entry: &Entry) {
        self.remove_if(&entry.hashed(), entry, Departure::Dropped);
    }

    /// Removes an entry. Returns true if there was one.
    pub fn remove(&self, key: &HashedKey<'_>) -> bool {
        let Some(entry) = self.shard(key).write().remove_if(key, |_| true) else {
            return false;
        };
        let current = self.epochs.is_current(key.group(), &entry);
        self.gone(&entry, Departure::Dropped);
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
                if !self.epochs.is_current(found.group(), &found) {
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
        self.shards.iter().map(|it| it.0.read().len()).sum()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all entries are charged, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|it| it.0.read().weight()).sum()
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.shard_capacity * self.shards.len() as u64
    }

    /// The counts of a group.
    pub fn stats(&self, group: GroupId) -> GroupStats {
        self.stats.read(group)
    }
}

#[cfg(test)]
mod hit_ratio_tests;
#[cfg(test)]
mod tests;
