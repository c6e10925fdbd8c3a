//! Which keys and tags were removed recently: what other nodes still have of them must not come in.
//!
//! A removal reaches all members, but not at the same moment. One that it reaches later may still
//! hand out the old value, which is then in transit for a while. So for longer than both take
//! together, a removed key is accepted only from its origin (`Standing::tombstone`). No clocks have
//! to agree for this.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{metadata::Metadata, ports::Timestamp, ring::KeyHash, tags::TagHash};

/// Maximum number of keys, and of tags. Beyond it, the whole group accepts nothing from other nodes
/// for a while, which is safe but costs loads.
const MOST_NAMES: usize = 100_000;

/// The removals of one group.
pub(super) struct Tombstones {
    /// How long each lasts.
    lasts: Duration,
    keys: Table<KeyHash>,
    tags: Table<TagHash>,
    /// Until then the whole group takes nothing in.
    all_until: AtomicU64,
}

struct Table<K> {
    names: Mutex<Names<K>>,
    /// The number of names, to be read without the lock.
    count: AtomicUsize,
}

struct Names<K> {
    /// Until when each is refused.
    until: HashMap<K, Timestamp>,
    /// In the order in which they run out, since all last equally long. One that was removed
    /// again is in it twice.
    order: VecDeque<(Timestamp, K)>,
}

impl<K> Default for Names<K> {
    fn default() -> Self {
        Self {
            until: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash> Names<K> {
    /// Forgets those that have run out, and gives their memory back.
    fn expire(&mut self, now: Timestamp) {
        while let Some(&(until, name)) = self.order.front().filter(|(until, _)| *until <= now) {
            self.order.pop_front();
            if self.until.get(&name) == Some(&until) {
                self.until.remove(&name);
            }
        }
        if self.order.capacity() > 1024 && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(self.order.len() * 2);
            self.until.shrink_to(self.until.len() * 2);
        }
    }
}

impl<K: Copy + Eq + Hash> Table<K> {
    fn new() -> Self {
        Self {
            names: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// Notes a removal. Past the most that are remembered, `close` has to see to those that are
    /// forgotten.
    fn removed(&self, name: K, lasts: Duration, now: Timestamp, close: impl FnOnce()) {
        let mut names = self.names.lock();
        names.expire(now);
        if names.order.len() >= MOST_NAMES {
            close();
            *names = Names::default();
        }
        let until = now.after(lasts);
        let noted = names.until.entry(name).or_insert(until);
        *noted = until.max(*noted);
        names.order.push_back((until, name));
        self.count.store(names.until.len(), Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether one of them is refused.
    fn has_any(&self, names: impl Iterator<Item = K>, now: Timestamp) -> bool {
        self.read(now, |table| {
            names
                .into_iter()
                .any(|name| table.until.contains_key(&name))
        })
    }

    /// What is found in the table; false if it is empty.
    fn read(&self, now: Timestamp, find: impl FnOnce(&Names<K>) -> bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut names = self.names.lock();
        names.expire(now);
        self.count.store(names.until.len(), Ordering::Release);
        find(&names)
    }
}

impl Tombstones {
    pub(super) fn new(lasts: Duration) -> Self {
        Self {
            lasts,
            keys: Table::new(),
            tags: Table::new(),
            all_until: AtomicU64::new(0),
        }
    }

    /// Notes that the key was removed.
    pub(super) fn removed(&self, key: KeyHash, now: Timestamp) {
        self.keys.removed(key, self.lasts, now, || self.purged(now));
    }

    /// Notes that all values with that tag were removed.
    pub(super) fn tag_removed(&self, tag: TagHash, now: Timestamp) {
        self.tags.removed(tag, self.lasts, now, || self.purged(now));
    }

    /// Notes that all keys were removed.
    pub(super) fn purged(&self, now: Timestamp) {
        self.all_until
            .fetch_max(now.after(self.lasts).0, Ordering::AcqRel);
    }

    /// Whether the key must not be accepted from other nodes.
    pub(super) fn refuse(&self, key: KeyHash, now: Timestamp) -> bool {
        now.0 < self.all_until.load(Ordering::Acquire) || self.keys.has_any([key].into_iter(), now)
    }

    /// Whether a value of which this was said must not be accepted from other nodes, for its tags.
    pub(super) fn refuse_tags(&self, metadata: &Metadata, now: Timestamp) -> bool {
        self.tags.has_any(metadata.tags(), now)
    }

    /// Whether values may have to be refused for their tags.
    pub(super) fn has_tags(&self, now: Timestamp) -> bool {
        self.tags.read(now, |table| !table.until.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(20);

    #[test]
    fn a_removed_key_is_refused_for_longer_than_anything_is_on_its_way() {
        let (tombstones, key, other) = (Tombstones::new(LASTS), KeyHash(1), KeyHash(2));
        assert!(!tombstones.refuse(key, Timestamp(0)));
        tombstones.removed(key, Timestamp(0));
        assert!(tombstones.refuse(key, Timestamp(0).after(LASTS / 2)));
        assert!(!tombstones.refuse(other, Timestamp(0)));
        assert!(!tombstones.refuse(key, Timestamp(0).after(LASTS)));
        tombstones.purged(Timestamp(0));
        assert!(tombstones.refuse(other, Timestamp(0).after(LASTS / 2)));
        assert!(!tombstones.refuse(other, Timestamp(0).after(LASTS)));
    }

    #[test]
    fn more_removals_than_are_remembered_close_the_group() {
        let tombstones = Tombstones::new(LASTS);
        for key in 0..=MOST_NAMES as u64 {
            tombstones.removed(KeyHash(key), Timestamp(0));
        }
        assert!(tombstones.refuse(KeyHash(0), Timestamp(0)));
        assert!(tombstones.keys.names.lock().order.len() <= MOST_NAMES);
    }

    #[test]
    fn only_removals_that_last_are_counted() {
        let tombstones = Tombstones::new(LASTS);
        let many = MOST_NAMES as u64 * 2 / 3;
        for key in 0..many {
            tombstones.removed(KeyHash(key), Timestamp(0));
        }
        let later = Timestamp(0).after(LASTS);
        for key in many..2 * many {
            tombstones.removed(KeyHash(key), later);
        }
        assert!(tombstones.refuse(KeyHash(many), later));
        assert!(!tombstones.refuse(KeyHash(0), later), "the group is open");
    }

    #[test]
    fn what_has_run_out_takes_no_memory() {
        let (tombstones, key) = (Tombstones::new(LASTS), KeyHash(7));
        for other in 1_000..51_000 {
            tombstones.removed(KeyHash(other), Timestamp(0));
        }
        // Removed again: its first tombstone running out doesn't end the second.
        tombstones.removed(key, Timestamp(0));
        tombstones.removed(key, Timestamp(1_000));
        assert!(tombstones.refuse(key, Timestamp(0).after(LASTS)));
        let keys = tombstones.keys.names.lock();
        assert_eq!((keys.until.len(), keys.order.len()), (1, 1));
        assert!(keys.until.capacity() < 1_000, "{}", keys.until.capacity());
    }
}
