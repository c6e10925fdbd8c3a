//! Which keys were removed lately: what other nodes still have of them must not come in.
//!
//! A removal reaches all members, but not at the same moment. One that it reaches later may still
//! hand out the old value, which is then in transit for a while. So for longer than both take
//! together, a removed key is accepted only from its origin (`Standing::tombstone`). No clocks have
//! to agree for this.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{ports::Timestamp, ring::KeyHash};

/// Maximum number of keys. Beyond it, the whole group accepts nothing from other nodes for a while,
/// which is safe but costs loads.
const MOST_KEYS: usize = 100_000;

/// The removals of one group.
pub(super) struct Tombstones {
    /// How long each lasts.
    lasts: Duration,
    keys: Mutex<Keys>,
    /// The number of keys, to be read without the lock.
    count: AtomicUsize,
    /// Until then the whole group takes nothing in.
    all_until: AtomicU64,
}

#[derive(Default)]
struct Keys {
    /// Until when each is refused.
    until: HashMap<KeyHash, Timestamp>,
    /// In the order in which they run out, since all last equally long. A key that was removed
    /// again is in it twice.
    order: VecDeque<(Timestamp, KeyHash)>,
}

impl Keys {
    /// Forgets those that have run out, and gives their memory back.
    fn expire(&mut self, now: Timestamp) {
        while let Some(&(until, key)) = self.order.front().filter(|(until, _)| *until <= now) {
            self.order.pop_front();
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
        if self.order.capacity() > 1024 && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(self.order.len() * 2);
            self.until.shrink_to(self.until.len() * 2);
        }
    }
}

impl Tombstones {
    pub(super) fn new(lasts: Duration) -> Self {
        Self {
            lasts,
            keys: Mutex::default(),
            count: AtomicUsize::new(0),
            all_until: AtomicU64::new(0),
        }
    }

    /// Notes that the key was removed.
    pub(super) fn removed(&self, key: KeyHash, now: Timestamp) {
        let mut keys = self.keys.lock();
        keys.expire(now);
        if keys.order.len() >= MOST_KEYS {
            self.purged(now);
            *keys = Keys::default();
        }
        let until = now.after(self.lasts);
        let noted = keys.until.entry(key).or_insert(until);
        *noted = until.max(*noted);
        keys.order.push_back((until, key));
        self.count.store(keys.until.len(), Ordering::Release);
    }

    /// Notes that all keys were removed.
    pub(super) fn purged(&self, now: Timestamp) {
        self.all_until
            .fetch_max(now.after(self.lasts).0, Ordering::AcqRel);
    }

    /// Whether the key must not be accepted from other nodes.
    pub(super) fn refuse(&self, key: KeyHash, now: Timestamp) -> bool {
        if now.0 < self.all_until.load(Ordering::Acquire) {
            return true;
        }
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut keys = self.keys.lock();
        keys.expire(now);
        self.count.store(keys.until.len(), Ordering::Release);
        keys.until.contains_key(&key)
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
        for key in 0..=MOST_KEYS as u64 {
            tombstones.removed(KeyHash(key), Timestamp(0));
        }
        assert!(tombstones.refuse(KeyHash(0), Timestamp(0)));
        assert!(tombstones.keys.lock().order.len() <= MOST_KEYS);
    }

    #[test]
    fn only_removals_that_last_are_counted() {
        let tombstones = Tombstones::new(LASTS);
        let many = MOST_KEYS as u64 * 2 / 3;
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
        let keys = tombstones.keys.lock();
        assert_eq!((keys.until.len(), keys.order.len()), (1, 1));
        assert!(keys.until.capacity() < 1_000, "{}", keys.until.capacity());
    }
}
