//! Bounded memory: entries by group and key, with charges in bytes, expiry and eviction.
//!
//! It must never hold more than its capacity, and never return what was purged, nor what has
//! expired unless it is asked for stale entries, too.

mod block;
mod capacity;
mod entry;
mod epochs;
mod ghosts;
mod gone;
mod offers;
mod per_group;
mod purges;
mod quotas;
mod shard;
mod slab;
mod stats;
mod tag_epochs;
mod walk;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

pub use capacity::{MOST_VALUE_BYTES, charge};
use capacity::{shards, weight};
pub use entry::{Entry, MAX_USE_COUNT};
use epochs::Epochs;
use gone::GoneKeys;
pub use offers::Offered;
pub use purges::PendingLoad;
pub use quotas::MemoryQuota;
use quotas::{PartNumber, Quotas};
use shard::{Left, Locked, Shard};
use stats::StoreStats;
pub use stats::{GoneReason, GroupStats};

use crate::{
    fence::Fence,
    key::{GroupId, HashedKey},
    ports::Timestamp,
};

/// What a get makes of an entry.
enum Judged {
    Found(Entry),
    /// It is not to be seen now, and stays.
    Hidden,
    /// It is not to be seen any more.
    Over(Entry, GoneReason),
}

/// One bounded store.
pub struct Store {
    /// As many as a power of two.
    shards: Box<[Locked]>,
    shard_capacity: u64,
    stats: Arc<StoreStats>,
    quotas: ArcSwap<Quotas>,
    /// Held while the quotas are changed.
    turn: Mutex<()>,
    epochs: Epochs,
    gone_keys: GoneKeys,
    fence: Option<Arc<Fence>>,
}

impl Store {
    /// A store of `capacity` bytes in total. It can keep a value of `largest_value` bytes if its
    /// capacity allows that at all.
    pub fn new(capacity: u64, largest_value: u64) -> Self {
        let shards = shards(capacity, largest_value);
        let shard_capacity = capacity / shards as u64;
        let (quotas, stats) = (Arc::new(Quotas::none(shards)), Arc::new(StoreStats::new()));
        let shard = || Shard::new(shard_capacity, quotas.clone(), stats.clone());
        let locked = |_| Locked(RwLock::new(shard()));
        Self {
            shards: (0..shards).map(locked).collect(),
            shard_capacity,
            stats: stats.clone(),
            quotas: ArcSwap::new(quotas.clone()),
            turn: Mutex::default(),
            epochs: Epochs::new(),
            gone_keys: GoneKeys::new(),
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

    fn shard_number(&self, key: &HashedKey<'_>) -> usize {
        // Bits that the shard's table doesn't use.
        (key.hash() >> 40) as usize & (self.shards.len() - 1)
    }

    fn shard(&self, key: &HashedKey<'_>) -> &RwLock<Shard> {
        &self.shards[self.shard_number(key)].0
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
                GoneReason::Expired
            } else {
                GoneReason::Dropped
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
    fn remove_if(&self, key: &HashedKey<'_>, entry: &Entry, why: GoneReason) {
        let gone = self
            .shard(key)
            .write()
            .remove_if(key, why, |it| it.is(entry));
        if let Some(entry) = gone {
            self.gone(&entry, why);
        }
    }

    /// Keeps an entry and replaces an older one. Returns false if the entry is too large for the
    /// store, or for what its group may have of it.
    pub fn insert(&self, entry: Entry) -> bool {
        self.insert_used(entry, 0)
    }

    /// The same for an entry that counts as used so often here.
    fn insert_used(&self, entry: Entry, lately: u8) -> bool {
        let (bytes, group) = (weight(&entry), entry.group());
        let quotas = self.quotas.load();
        if bytes > self.shard_capacity.min(quotas.limit(quotas.part_of(group))) {
            self.remove(&entry.hashed());
            return false;
        }
        self.epochs.mark(&entry);
        let mut left = Vec::new();
        let at = self.shard_number(&entry.hashed());
        self.shards[at].0.write().insert(entry, lately, &mut left);
        self.have_left(left);
        // Where its shard had none of its group to evict.
        self.trim(group, at + 1);
        true
    }

    fn gone(&self, entry: &Entry, why: GoneReason) {
        self.epochs.gone(entry);
        self.gone_keys.note(&entry.hashed(), why);
    }

    /// The key of what was replaced stays.
    fn have_left(&self, left: Vec<Left>) {
        for left in left {
            match left {
                Left::Replaced(entry) => self.epochs.gone(&entry),
                Left::Evicted(entry) => self.gone(&entry, GoneReason::Evicted),
            }
        }
    }

    /// Why the key left the store, if that was lately enough to be known.
    pub fn why_gone(&self, key: &HashedKey<'_>) -> Option<GoneReason> {
        self.gone_keys.why(key)
    }

    /// The entry, unless it has expired by `now`. Does not count as a use.
    pub fn peek(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        let entry = self.peek_usable(key, now)?;
        entry.is_fresh(now).then_some(entry)
    }

    /// Removes exactly this entry. A newer one for the same key stays.
    pub fn remove_exactly(&self, entry: &Entry) {
        self.remove_if(&entry.hashed(), entry, GoneReason::Dropped);
    }

    /// Removes an entry. Returns true if there was one.
    pub fn remove(&self, key: &HashedKey<'_>) -> bool {
        let why = GoneReason::Dropped;
        let Some(entry) = self.shard(key).write().remove_if(key, why, |_| true) else {
            return false;
        };
        let current = self.epochs.is_current(key.group(), &entry);
        self.gone(&entry, why);
        current
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

    /// Gives each of these groups its quota, and all others none. What is more than a lower limit
    /// allows is evicted at once.
    pub fn set_quotas(&self, groups: &[(GroupId, MemoryQuota)]) {
        let _turn = self.turn.lock();
        let quotas = Quotas::new(groups, self.capacity(), self.shards.len());
        let quotas = Arc::new(quotas);
        for shard in &self.shards {
            shard.0.write().divide(quotas.clone());
        }
        self.quotas.store(quotas);
        for (group, _) in groups {
            self.trim(*group, 0);
        }
    }

    /// Evicts entries of a group until it is within its limit, from that shard on. A part's number
    /// holds only for the quotas that it is from, which may be others by now, or in a shard.
    fn trim(&self, group: GroupId, from: usize) {
        let is_over = || {
            let quotas = self.quotas.load();
            quotas.forbid(quotas.part_of(group), 0, &self.stats)
        };
        if !is_over() {
            return;
        }
        /// Entries that go while a shard is locked.
        const STRIDE: usize = 256;
        for at in from..from + self.shards.len() {
            let shard = &self.shards[at & (self.shards.len() - 1)].0;
            let mut done = false;
            while !done && is_over() {
                let mut left = Vec::new();
                done = shard.write().trim(group, STRIDE, &mut left);
                self.have_left(left);
            }
        }
    }

    /// The numbers of a group.
    pub fn stats(&self, group: GroupId) -> GroupStats {
        let quotas = self.quotas.load();
        let part = quotas.part_of(group);
        GroupStats {
            share: quotas.share(part),
            limit: quotas.limit(part).min(self.capacity()),
            ..self.stats.read(group)
        }
    }
}

#[cfg(test)]
mod hit_ratio_tests;
#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod tests;
