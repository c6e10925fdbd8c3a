//! Which entry goes when others need its room.
//!
//! Within a part, that is decided as quick_cache does, after S3-FIFO (Yang, Zhang, Qiu, Yue,
//! Vigfusson: FIFO Queues Are All You Need for Cache Eviction, SOSP 2023). A new entry is *hot*
//! while there is room for hot ones, else *cold*. The oldest cold entry goes first; if it was used
//! meanwhile, it becomes hot. If hot entries take more than their part, a hand goes round them and
//! takes the first that was not used since it came by. What went cold and comes back soon is hot at
//! once.
//!
//! Among parts, the one gives room that holds the most beyond its share, for each of its groups: so
//! what nobody is guaranteed is divided evenly among those who want it. One that holds no more than
//! its share gives nothing as long as another holds more, or who wants the room has entries of its
//! own here.

use super::{Departure, Left, Part, PartNumber, Place, Shard, weight};

/// Hundredths of its room that the hot entries of a part may take.
const HOT_PART: u64 = 97;

impl Shard {
    /// What the hot entries of a part may take.
    pub(super) fn hot_capacity(&self, part: PartNumber) -> u64 {
        let of_others = self.weight - self.parts[part].weight();
        let mut room = self.capacity.saturating_sub(of_others);
        if self.giver(part) != Some(part) {
            // Others still give it what it is guaranteed.
            room = room.max(self.here(self.quotas.share(part)));
        }
        room.min(self.here(self.quotas.limit(part))) / 100 * HOT_PART
    }

    /// This shard's part of so many bytes in all shards.
    fn here(&self, bytes: u64) -> u64 {
        bytes / self.quotas.shards()
    }

    /// Makes room for an entry of that part that weighs so much.
    pub(super) fn make_room(&mut self, part: PartNumber, weighs: u64, left: &mut Vec<Left>) {
        while self.quotas.forbid(part, weighs, &self.stats) && self.evict(part, left) {}
        while self.held() + weighs > self.capacity {
            match self.giver(part) {
                Some(giver) if self.evict(giver, left) => {}
                _ => return,
            }
        }
    }

    /// The part that is to give room for an entry of the one that wants it.
    fn giver(&self, wanting: PartNumber) -> Option<PartNumber> {
        if self.parts.len() == 1 {
            return Some(0);
        }
        let parts = 0..self.parts.len();
        let filled = parts.filter(|part| self.parts[*part].entries > 0);
        filled.max_by_key(|part| {
            let weight = self.parts[*part].weight();
            let beyond = weight.saturating_sub(self.here(self.quotas.share(*part)));
            let guaranteed = self.quotas.guarantee(*part, &self.stats);
            let beyond = beyond / self.quotas.groups(*part);
            (!guaranteed, *part == wanting && guaranteed, beyond, weight)
        })
    }

    /// Makes a step towards more room in a part: evicts an entry, or judges one anew that was used.
    /// False if nothing is left.
    pub(super) fn evict(&mut self, part: PartNumber, left: &mut Vec<Left>) -> bool {
        // Others may have taken room that hot entries were let in for.
        if self.parts[part].hot.weight > self.hot_capacity(part) && self.evict_hot(part, left) {
            return true;
        }
        self.evict_cold(part, left)
    }

    /// Makes the oldest cold entry hot if it was used, or evicts it. False if nothing is left.
    fn evict_cold(&mut self, part: PartNumber, left: &mut Vec<Left>) -> bool {
        let Some(place) = self.parts[part].cold.head() else {
            return self.evict_hot(part, left);
        };
        let Some(entry) = self.slab.get(place) else {
            return false;
        };
        let lately = entry.lately();
        if lately == 0 {
            let hash = entry.hashed().hash();
            let Part {
                ghosts, entries, ..
            } = &mut self.parts[part];
            ghosts.add(hash, *entries);
            left.extend(
                self.take(place, hash, Departure::Evicted)
                    .map(Left::Evicted),
            );
            return true;
        }
        let weighs = weight(entry);
        entry.judge(true, lately - 1);
        self.unlink(part, false, place, weighs);
        self.make_hot_room(part, weighs, left);
        self.link(part, true, place, weighs);
        true
    }

    /// Makes hot entries go until one that weighs so much may join them. Those of a group that is
    /// guaranteed their room turn cold.
    pub(super) fn make_hot_room(&mut self, part: PartNumber, weighs: u64, left: &mut Vec<Left>) {
        let hot = |shard: &Self| shard.parts[part].hot.weight;
        // If they take more than that already, they take no more at least.
        let most = self.hot_capacity(part).max(hot(self));
        while hot(self) + weighs > most {
            let gone = match self.quotas.guarantee(part, &self.stats) {
                true => self.cool_hot(part),
                false => self.evict_hot(part, left),
            };
            if !gone {
                return;
            }
        }
    }

    /// The first hot entry that was not used lately.
    fn unused_hot(&mut self, part: PartNumber) -> Option<Place> {
        loop {
            let hot = &mut self.parts[part].hot;
            let place = hot.head()?;
            let entry = self.slab.get(place)?;
            let Some(less) = entry.lately().checked_sub(1) else {
                return Some(place);
            };
            entry.judge(true, less);
            hot.turn(&self.slab);
        }
    }

    /// Evicts the first hot entry that was not used lately. False if there is none.
    fn evict_hot(&mut self, part: PartNumber, left: &mut Vec<Left>) -> bool {
        let Some(place) = self.unused_hot(part) else {
            return false;
        };
        let hash = self.slab.get(place).map_or(0, |it| it.hashed().hash());
        left.extend(
            self.take(place, hash, Departure::Evicted)
                .map(Left::Evicted),
        );
        true
    }

    /// Makes the first hot entry that was not used lately a cold one. False if there is none.
    fn cool_hot(&mut self, part: PartNumber) -> bool {
        let Some(place) = self.unused_hot(part) else {
            return false;
        };
        let Some(entry) = self.slab.get(place) else {
            return false;
        };
        let weighs = weight(entry);
        entry.judge(false, 0);
        self.unlink(part, true, place, weighs);
        self.link(part, false, place, weighs);
        true
    }
}
