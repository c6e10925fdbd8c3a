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
    slab::{Place, Queue, Slab},
    stats::{GoneReason, StoreStats},
};
use crate::key::{GroupId, HashedKey};

/// An entry that left.
pub(super) enum Left {
    /// Another one of the same key came.
    Replaced(Entry),
    /// Others needed its room.
    Evicted(Entry),
}

/// Places that may be free in any case.
const SPARE: usize = 256;

fn hash_at(slab: &Slab, place: Place) -> u64 {
    slab.get(place).map_or(0, |it| it.hashed().hash())
}

/// Entries that are judged beside each other.
struct Part {
    hot: Queue,
    cold: Queue,
    ghosts: Ghosts,
    entries: usize,
}

impl Part {
    fn new() -> Self {
        Self {
            hot: Queue::default(),
            cold: Queue::default(),
            ghosts: Ghosts::new(),
            entries: 0,
        }
    }

    fn weight(&self) -> u64 {
        self.hot.weight + self.cold.weight
    }

    fn queue(&mut self, hot: bool) -> &mut Queue {
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

    /// How many places it has, taken or free.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slab.length() as usize
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// What it holds on to, in bytes: its entries, and places that are free.
    fn held(&self) -> u64 {
        self.weight + self.free_places() as u64 * PLACE_BYTES
    }

    fn free_places(&self) -> usize {
        self.slab.length() as usize - self.table.len()
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

    /// Up to so many entries of the places before that one, from the last to the first, and the
    /// place before which to continue; `None` at the end.
    ///
    /// An entry that moves meanwhile moves to a lower place: it may be seen twice, but is not
    /// missed.
    pub(super) fn walk(&self, before: Place, most: usize) -> (Vec<Entry>, Option<Place>) {
        let mut entries = Vec::new();
        for place in (0..before.min(self.slab.length())).rev() {
            if entries.len() == most {
                return (entries, Some(place + 1));
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
        let before = self.remove_if(&entry.hashed(), GoneReason::Dropped, |_| true);
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
        let rehash = |place: &Place| hash_at(slab, *place);
        self.table.insert_unique(hash, place, rehash);
        self.give_back(left.len());
    }

    /// Removes the entry of a key, if it is `wanted`.
    pub(super) fn remove_if(
        &mut self,
        key: &HashedKey<'_>,
        why: GoneReason,
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> Option<Entry> {
        let place = self.place(key)?;
        let taken = wanted(self.slab.get(place)?).then(|| self.take(place, key.hash(), why))?;
        self.give_back(1);
        taken
    }

    /// Gives memory back after so many entries have gone, as long as more than half of the places
    /// are free: two places for each entry, so that nobody waits for long.
    ///
    /// To be called only while all entries are in their rings.
    fn give_back(&mut self, gone: usize) {
        for _ in 0..2 * gone {
            if self.free_places() <= self.table.len() + SPARE {
                break;
            }
            if let Some(moved) = self.slab.give_back() {
                self.follow(moved);
            }
        }
        let least = self.table.len() + SPARE;
        if self.table.capacity() > 4 * least {
            let slab = &self.slab;
            self.table
                .shrink_to(2 * least, |place| hash_at(slab, *place));
        }
    }

    fn follow(&mut self, moved: (Place, Place)) {
        let (from, to) = moved;
        let Some(entry) = self.slab.get(to) else {
            return;
        };
        let (part, hot) = (self.quotas.part_of(entry.group()), entry.is_hot());
        if let Some(place) = self
            .table
            .find_mut(hash_at(&self.slab, to), |it| *it == from)
        {
            *place = to;
        }
        self.parts[part].queue(hot).follow(moved);
    }

    fn take(&mut self, place: Place, hash: u64, why: GoneReason) -> Option<Entry> {
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
        let queue = self.parts[part].queue(hot);
        queue.add(&mut self.slab, place);
        queue.weight += weighs;
    }

    fn unlink(&mut self, part: PartNumber, hot: bool, place: Place, weighed: u64) {
        let queue = self.parts[part].queue(hot);
        queue.take(&mut self.slab, place);
        queue.weight -= weighed;
    }

    /// Evicts entries of a group until it is within its limit, up to so many. True if there is
    /// nothing more to do here.
    pub(super) fn trim(&mut self, group: GroupId, most: usize, left: &mut Vec<Left>) -> bool {
        let part = self.quotas.part_of(group);
        let mut done = true;
        while done && self.quotas.forbid(part, 0, &self.stats) && self.evict(part, left) {
            done = left.len() < most;
        }
        self.give_back(left.len());
        done
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
                let queue = before.queue(hot);
                while let Some(place) = queue.head() {
                    queue.take(&mut self.slab, place);
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
