//! What other nodes offer: entries that they hand over, and copies of what they hold.

use super::{
    Entry, PartNumber, Quotas, Store,
    capacity::{charge, weight},
    entry::MAX_LATELY,
};
use crate::{key::HashedKey, ports::Timestamp};

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

/// What so many uses elsewhere count here.
fn as_lately(use_count: u32) -> u8 {
    u8::try_from(use_count).map_or(MAX_LATELY, |uses| uses.min(MAX_LATELY))
}

impl Store {
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
        // A reload may have lowered the group's limit meanwhile.
        if wanted == Offered::Kept && !self.insert_used(entry, as_lately(use_count)) {
            return Offered::Full;
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
        let quotas = self.quotas.load();
        let part = quotas.part_of(key.group());
        let largest = self.shard_capacity.min(quotas.limit(part));
        if weight > largest || (use_count == 0 && self.is_full(part, weight, &quotas)) {
            return Offered::Full;
        }
        Offered::Kept
    }

    /// Whether an entry of a part that weighs so much would push out others.
    fn is_full(&self, part: PartNumber, weight: u64, quotas: &Quotas) -> bool {
        if quotas.guarantee(part, &self.stats) {
            return false;
        }
        // Keep a thirty-second free, since the shards don't fill evenly.
        quotas.forbid(part, weight, &self.stats)
            || self.capacity() < self.bytes() + weight + self.capacity() / 32
    }

    /// Keeps an entry as if it had been used here so often.
    fn warm(&self, key: &HashedKey<'_>, use_count: u32) {
        self.read(key, |entry| {
            for _ in 0..as_lately(use_count) {
                entry.used_lately();
            }
        });
    }
}
