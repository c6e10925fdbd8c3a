//! A part of a store, behind one lock: the table of its entries, and where they stand in the order
//! in which they go when others need their room.

mod eviction;

use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::RwLock;

use super::{
    capacity::{PLACE_BYTES, weight},
    entry::Entry,
    ghosts::Ghosts,
    quotas::{PartNumber, Quotas},
    slab::{Place, Ring, Slab},
    stats::{Departure, StoreStats},
};
use crate::key::HashedKey;

/// An entry that left.
pub(super) enum Left {
    /// Another one of the same key came.
    Replaced(Entry),
    /// Others needed its room.
    Evicted(Entry),
}

/// Entries that are judged beside each other.
struct Part {
    hot: Ring,
    cold: Ring,
    ghosts: Ghosts,
    entries: usize,
}

impl Part {
    fn new() -> Self {
        Self {
            hot: Ring::default(),
            cold: Ring::default(),
            ghosts: Ghosts::new(),
            entries: 0,
        }
    }

    fn weight(&self) -> u64 {
        self.hot.weight + self.cold.weight
    }

    fn ring(&mut self, hot: bool) -> &mut Ring {
        if hot { &mut self.hot } else { &mut self.cold }
    }
}

/// A part of a store.
pub(super) struct Shard {
    /// Where the entries are, by the hashes of their keys.
    table: HashTable<Place>,
    slab: Slab,
    /// As many as the quotas have.
    parts: Vec<Part>,
    quotas: Arc<Quotas>,
    /// What all parts weigh.
    weight: u64,
    capacity: u64,
    /// The counts of the store, which are kept up within the lock: they say who is to give room.
    stats: Arc<StoreStats>,
}

/// A shard has lines of the processors' caches to itself: otherwise those who lock one would slow
/// down those who lock its neighbours.
#[repr(align(128))]
pub(super) struct Locked(pub(super) RwLock<Shard>);

impl Shard {
    pub(super) fn new(capacity: u64, quotas: Arc<Quotas>, stats: Arc<StoreStats>) -> Self {
        Self {
            table: HashTable::new(),
            slab: Slab::new(),
            parts: (0..quotas.len()).map(|_| Part::new()).collect(),
            quotas,
            weight: 0,
            capacity,
            stats,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// What it holds on to, in bytes: its entries, and places that are free. These don't go back
    /// before the last entry has gone, since whoever walks over the entries counts on their places.
    fn held(&self) -> u64 {
        let free = u64::from(self.slab.length()) - self.table.len() as u64;
        self.weight + free * PLACE_BYTES
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

    /// Keeps an entry as one that was used so often `lately`. Those that leave are freed by the
    /// caller, without the lock.
    ///
    /// Room is made before the entry is linked: otherwise a new one, being the only cold one, could
    /// be the first to go.
    pub(super) fn insert(&mut self, entry: Entry, mut lately: u8, left: &mut Vec<Left>) {
        let (hash, weighs) = (entry.hashed().hash(), weight(&entry));
        let part = self.quotas.part_of(entry.group());
        let mut hot = self.parts[part].hot.weight + weighs <= self.hot_capacity(part);
        let before = self.remove_if(&entry.hashed(), Departure::Dropped, |_| true);
        if let Some(before) = before {
            hot = before.is_hot();
            lately = lately.max(before.lately() + 1);
            left.push(Left::Replaced(before));
        } else if self.parts[part].ghosts.take(hash) {
            hot = true;
        }
        // Of nothing that takes more than the part of all hot ones, others are to go.
        hot &= weighs <= self.hot_capacity(part);
        if hot {
            self.make_hot_room(part, weighs, left);
        }
        self.make_room(part, weighs, left);
        entry.judge(hot, lately);
        self.stats.comes(entry.group(), weighs);
        let place = self.slab.insert(entry);
        self.parts[part].entries += 1;
        self.weight += weighs;
        self.link(part, hot, place, weighs);
        let slab = &self.slab;
        let rehash = |place: &Place| slab.get(*place).map_or(0, |it| it.hashed().hash());
        self.table.insert_unique(hash, place, rehash);
    }

    /// Removes the entry of a key, if it is `wanted`.
    pub(super) fn remove_if(
        &mut self,
        key: &HashedKey<'_>,
        why: Departure,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Entry> {
        let place = self.place(key)?;
        wanted(self.slab.get(place)?).then(|| self.take(place, key.hash(), why))?
    }

    fn take(&mut self, place: Place, hash: u64, why: Departure) -> Option<Entry> {
        if let Ok(found) = self.table.find_entry(hash, |it| *it == place) {
            found.remove();
        }
        let entry = self.slab.get(place)?;
        let (group, hot, weighed) = (entry.group(), entry.is_hot(), weight(entry));
        let part = self.quotas.part_of(group);
        self.unlink(part, hot, place, weighed);
        self.parts[part].entries -= 1;
        self.weight -= weighed;
        self.stats.goes(group, weighed, why);
        let entry = self.slab.remove(place);
        if self.table.is_empty() {
            // All memory goes back, as after a purge.
            self.table = HashTable::new();
            self.slab = Slab::new();
            self.parts.fill_with(Part::new);
        }
        entry
    }

    fn link(&mut self, part: PartNumber, hot: bool, place: Place, weighs: u64) {
        let ring = self.parts[part].ring(hot);
        ring.add(&mut self.slab, place);
        ring.weight += weighs;
    }

    fn unlink(&mut self, part: PartNumber, hot: bool, place: Place, weighed: u64) {
        let ring = self.parts[part].ring(hot);
        ring.take(&mut self.slab, place);
        ring.weight -= weighed;
    }

    /// Evicts entries of a part until it is within its limit, up to so many. True if there is
    /// nothing more to do here.
    pub(super) fn trim(&mut self, part: PartNumber, most: usize, left: &mut Vec<Left>) -> bool {
        while self.quotas.forbid(part, 0, &self.stats) {
            if left.len() >= most {
                return false;
            }
            if !self.evict(part, left) {
                return true;
            }
        }
        true
    }

    /// Goes by other quotas from now on. Groups that get a part of their own, or lose it, take the
    /// order of their entries along.
    pub(super) fn divide(&mut self, quotas: Arc<Quotas>) {
        let same = quotas.divide_like(&self.quotas);
        self.quotas = quotas;
        if same {
            return;
        }
        let parts = (0..self.quotas.len()).map(|_| Part::new()).collect();
        for (number, mut before) in std::mem::replace(&mut self.parts, parts)
            .into_iter()
            .enumerate()
        {
            for hot in [true, false] {
                let ring = before.ring(hot);
                while let Some(place) = ring.head() {
                    ring.take(&mut self.slab, place);
                    let Some(entry) = self.slab.get(place) else {
                        continue;
                    };
                    let (part, weighs) = (self.quotas.part_of(entry.group()), weight(entry));
                    self.parts[part].entries += 1;
                    self.link(part, hot, place, weighs);
                }
            }
            if number == 0 {
                self.parts[0].ghosts = before.ghosts;
            }
        }
    }
}
