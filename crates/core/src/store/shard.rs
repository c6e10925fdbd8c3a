//! A part of a store, behind one lock: the table of its entries, and which of them goes when
//! others need its room.
//!
//! That is decided as quick_cache does, after S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: FIFO
//! Queues Are All You Need for Cache Eviction, SOSP 2023). A new entry is *hot* while there is room
//! for hot ones, else *cold*. The oldest cold entry goes first; if it was used meanwhile, it
//! becomes hot. If hot entries take more than their part, a hand goes round them and takes the
//! first that was not used since it came by. What went cold and comes back soon is hot at once.

use hashbrown::HashTable;
use parking_lot::RwLock;

use super::{
    capacity::{PLACE_BYTES, weight},
    entry::Entry,
    ghosts::Ghosts,
    slab::{Place, Ring, Slab},
};
use crate::key::HashedKey;

/// Hundredths of the capacity that hot entries may take.
const HOT_PART: u64 = 97;

/// An entry that left.
pub(super) enum Left {
    /// Another one of the same key came.
    Replaced(Entry),
    /// Others needed its room.
    Evicted(Entry),
}

/// A part of a store.
pub(super) struct Shard {
    /// Where the entries are, by the hashes of their keys.
    table: HashTable<Place>,
    slab: Slab,
    hot: Ring,
    cold: Ring,
    ghosts: Ghosts,
    capacity: u64,
}

/// A shard has lines of the processors' caches to itself: otherwise those who lock one would slow
/// down those who lock its neighbours.
#[repr(align(128))]
pub(super) struct Locked(pub(super) RwLock<Shard>);

impl Shard {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            table: HashTable::new(),
            slab: Slab::new(),
            hot: Ring::default(),
            cold: Ring::default(),
            ghosts: Ghosts::new(),
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.hot.weight + self.cold.weight
    }

    /// What it holds on to, in bytes: its entries, and places that are free. These don't go back
    /// before the last entry has gone, since whoever walks over the entries counts on their places.
    fn held(&self) -> u64 {
        let free = u64::from(self.slab.length()) - self.table.len() as u64;
        self.weight() + free * PLACE_BYTES
    }

    fn hot_capacity(&self) -> u64 {
        self.capacity / 100 * HOT_PART
    }

    fn place(&self, key: &HashedKey<'_>) -> Option<Place> {
        let is_it = |place: &Place| self.slab.get(*place).is_some_and(|it| it.is_of(key));
        self.table.find(key.hash(), is_it).copied()
    }

    /// The entry of a key.
    pub(super) fn get(&self, key: &HashedKey<'_>) -> Option<&Entry> {
        let mut found = None;
        self.table.find(key.hash(), |place| {
            found = self.slab.get(*place).filter(|it| it.is_of(key));
            found.is_some()
        });
        found
    }

    /// Up to so many entries from a place on, and the place after; `None` at the end.
    pub(super) fn walk(&self, from: Place, most: usize) -> (Vec<Entry>, Option<Place>) {
        let mut entries = Vec::new();
        for place in from..self.slab.length() {
            if entries.len() == most {
                return (entries, Some(place));
            }
            entries.extend(self.slab.get(place).cloned());
        }
        (entries, None)
    }

    fn ring(&mut self, hot: bool) -> (&mut Ring, &mut Slab) {
        let ring = if hot { &mut self.hot } else { &mut self.cold };
        (ring, &mut self.slab)
    }

    /// Keeps an entry as one that was used so often `lately`. Those that leave are freed by the
    /// caller, without the lock.
    ///
    /// Room is made before the entry is linked: otherwise a new one, being the only cold one, could
    /// be the first to go.
    pub(super) fn insert(&mut self, entry: Entry, mut lately: u8, left: &mut Vec<Left>) {
        let (hash, weighs) = (entry.hashed().hash(), weight(&entry));
        let mut hot = self.hot.weight + weighs <= self.hot_capacity();
        if let Some(before) = self.remove_if(&entry.hashed(), |_| true) {
            hot = before.is_hot();
            lately = lately.max(before.lately() + 1);
            left.push(Left::Replaced(before));
        } else if self.ghosts.take(hash) {
            hot = true;
        }
        // Of nothing that takes more than the part of all hot ones, others are to go.
        hot &= weighs <= self.hot_capacity();
        if hot {
            self.make_hot_room(weighs, left);
        }
        while self.held() + weighs > self.capacity && self.evict_cold(left) {}
        entry.judge(hot, lately);
        let place = self.slab.insert(entry);
        let (ring, slab) = self.ring(hot);
        ring.add(slab, place);
        ring.weight += weighs;
        let slab = &self.slab;
        let rehash = |place: &Place| slab.get(*place).map_or(0, |it| it.hashed().hash());
        self.table.insert_unique(hash, place, rehash);
    }

    /// Removes the entry of a key, if it is `wanted`.
    pub(super) fn remove_if(
        &mut self,
        key: &HashedKey<'_>,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Entry> {
        let place = self.place(key)?;
        wanted(self.slab.get(place)?).then(|| self.take(place, key.hash()))?
    }

    fn take(&mut self, place: Place, hash: u64) -> Option<Entry> {
        if let Ok(found) = self.table.find_entry(hash, |it| *it == place) {
            found.remove();
        }
        let entry = self.slab.get(place)?;
        let (hot, weighed) = (entry.is_hot(), weight(entry));
        let (ring, slab) = self.ring(hot);
        ring.take(slab, place);
        ring.weight -= weighed;
        let entry = self.slab.remove(place);
        if self.table.is_empty() {
            // All memory goes back, as after a purge.
            self.table = HashTable::new();
            self.slab = Slab::new();
            self.ghosts = Ghosts::new();
        }
        entry
    }

    /// Makes the oldest cold entry hot if it was used, or evicts it. False if nothing is left.
    fn evict_cold(&mut self, left: &mut Vec<Left>) -> bool {
        let Some(place) = self.cold.head() else {
            return self.evict_hot(left);
        };
        let Some(entry) = self.slab.get(place) else {
            return false;
        };
        let lately = entry.lately();
        if lately == 0 {
            let hash = entry.hashed().hash();
            self.ghosts.add(hash, self.table.len());
            left.extend(self.take(place, hash).map(Left::Evicted));
            return true;
        }
        let weighs = weight(entry);
        entry.judge(true, lately - 1);
        self.cold.take(&mut self.slab, place);
        self.cold.weight -= weighs;
        self.make_hot_room(weighs, left);
        self.hot.add(&mut self.slab, place);
        self.hot.weight += weighs;
        true
    }

    /// Evicts hot entries until one that weighs so much may join them.
    fn make_hot_room(&mut self, weighs: u64, left: &mut Vec<Left>) {
        while self.hot.weight + weighs > self.hot_capacity() && self.evict_hot(left) {}
    }

    /// Evicts the first hot entry that was not used lately. False if there is none.
    fn evict_hot(&mut self, left: &mut Vec<Left>) -> bool {
        while let Some(place) = self.hot.head() {
            let Some(entry) = self.slab.get(place) else {
                return false;
            };
            if let Some(less) = entry.lately().checked_sub(1) {
                entry.judge(true, less);
                self.hot.turn(&self.slab);
                continue;
            }
            let hash = entry.hashed().hash();
            left.extend(self.take(place, hash).map(Left::Evicted));
            return true;
        }
        false
    }
}
