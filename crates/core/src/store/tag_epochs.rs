//! Purges of tags without a scan: a group counts them, and an entry whose load departed before the
//! last purge of one of its tags is not found any more, nor kept if that load is still under way.
//!
//! It must never forget a purge while an entry that it took may still be found: whoever is not sure
//! drops the entry.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    sync::atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;

use super::Entry;
use crate::tags::TagHash;

/// Purged tags of a group that are remembered. Past that, all entries with tags are dropped whose
/// tags were not compared with the newest purges: too many, but none too few.
const MOST_TAGS: usize = 100_000;

/// The purged tags of one group.
#[derive(Default)]
pub(super) struct TagEpochs {
    /// How many purges there were.
    newest: AtomicU32,
    purged: Mutex<Purged>,
}

#[derive(Default)]
struct Purged {
    /// By which purge each tag was purged last.
    by_tag: HashMap<TagHash, u32>,
    /// Purges up to this one are not remembered.
    forgotten: u32,
    /// All entries were compared with the purges up to this one.
    compared: u32,
    /// How many loads are under way, by how many purges there were when they departed: what they
    /// bring has to be compared with all that came later.
    under_way: BTreeMap<u32, usize>,
}

impl Purged {
    /// Forgets what nothing has to be compared with any more.
    fn forget(&mut self) {
        let first = self.under_way.keys().next();
        let number = first.map_or(self.compared, |first| self.compared.min(*first));
        if number > self.forgotten {
            self.forgotten = number;
            self.by_tag.retain(|_, purge| *purge > number);
            self.by_tag.shrink_to_fit();
        }
    }
}

impl TagEpochs {
    /// A load departs. Returns how many purges there were, to be told to [`TagEpochs::arrives`].
    pub(super) fn departs(&self) -> u32 {
        let mut purged = self.purged.lock();
        let number = self.number();
        *purged.under_way.entry(number).or_default() += 1;
        number
    }

    /// It has ended, and what it brought has been kept or not.
    pub(super) fn arrives(&self, departed: u32) {
        let mut purged = self.purged.lock();
        if let btree_map::Entry::Occupied(mut loads) = purged.under_way.entry(departed) {
            *loads.get_mut() -= 1;
            if *loads.get() == 0 {
                loads.remove();
                purged.forget();
            }
        }
    }

    /// Marks an entry whose load departed after so many purges. False if one of its tags was purged
    /// since; a purge that happens between this and the insertion is seen by the entry's readers.
    pub(super) fn mark(&self, entry: &Entry, departed: u32) -> bool {
        if let Some(known) = entry.tag_epoch() {
            known.store(departed, Ordering::Release);
        }
        self.is_current(entry)
    }

    /// Whether none of the entry's tags was purged since its load departed.
    pub(super) fn is_current(&self, entry: &Entry) -> bool {
        let Some(known) = entry.tag_epoch() else {
            return true;
        };
        let newest = self.newest.load(Ordering::Acquire);
        known.load(Ordering::Acquire) == newest || self.compare(entry, known)
    }

    #[cold]
    fn compare(&self, entry: &Entry, epoch: &AtomicU32) -> bool {
        let purged = self.purged.lock();
        let (newest, known) = (self.number(), epoch.load(Ordering::Acquire));
        let mut tags = entry.metadata().tags().peekable();
        let is_of_these = (purged.forgotten..=newest).contains(&known);
        let current = tags.peek().is_none()
            || is_of_these
                && tags.all(|tag| purged.by_tag.get(&tag).is_none_or(|purge| *purge <= known));
        if current {
            // It need not be compared again before the next purge.
            epoch.store(newest, Ordering::Release);
        }
        current
    }

    /// Purges a tag. False if the numbers are used up: then all of the group has to be purged,
    /// after [`TagEpochs::begin_anew`].
    #[must_use]
    pub(super) fn purge(&self, tag: TagHash) -> bool {
        let mut purged = self.purged.lock();
        let Some(next) = self.number().checked_add(1) else {
            return false;
        };
        if purged.by_tag.len() >= MOST_TAGS {
            purged.by_tag = HashMap::new();
            purged.forgotten = next;
        }
        purged.by_tag.insert(tag, next);
        // Last, under the lock: whoever sees this number finds the tag.
        self.newest.store(next, Ordering::Release);
        true
    }

    /// Numbers the purges from 0 again. Entries and loads of before have higher numbers, by which
    /// they are known.
    pub(super) fn begin_anew(&self) {
        let mut purged = self.purged.lock();
        *purged = Purged::default();
        self.newest.store(0, Ordering::Release);
    }

    /// How many purges there were. Once all entries were compared after this, they can be
    /// forgotten.
    pub(super) fn number(&self) -> u32 {
        self.newest.load(Ordering::Acquire)
    }

    /// All entries were compared with the purges up to that one. One that was missed is dropped.
    pub(super) fn compared(&self, number: u32) {
        let mut purged = self.purged.lock();
        // The numbers may have begun anew since.
        purged.compared = number.min(self.number()).max(purged.compared);
        purged.forget();
    }

    /// How many tags are remembered.
    pub(super) fn len(&self) -> usize {
        self.purged.lock().by_tag.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        key::{GroupId, HashedKey},
        metadata::Metadata,
        record::{Record, Stale},
        time::Timestamp,
    };

    fn entry(tags: &[&str]) -> Entry {
        let record = Record {
            value: Some(Bytes::from_static(b"v")),
            expires_at: Timestamp::NEVER,
            stale: Stale::NEVER,
            entity_tag: 0,
            metadata: Metadata::NONE
                .with_tags(tags.iter().copied())
                .expect("good"),
        };
        Entry::new(&HashedKey::new(GroupId(0), "k"), &record)
    }

    #[test]
    fn a_purge_takes_what_carried_the_tag_before_and_nothing_else() {
        let epochs = TagEpochs::default();
        let (a, ab, none) = (entry(&["a"]), entry(&["a", "b"]), entry(&[]));
        for it in [&a, &ab, &none] {
            assert!(epochs.mark(it, 0));
        }
        assert!(epochs.purge(TagHash::of("b")));
        let current = || [&a, &ab, &none].map(|it| epochs.is_current(it));
        assert_eq!(current(), [true, false, true]);
        assert!(epochs.purge(TagHash::of("c")));
        assert_eq!(current(), [true, false, true]);
        let later = entry(&["b"]);
        assert!(epochs.mark(&later, epochs.number()));
        assert!(epochs.purge(TagHash::of("a")));
        assert_eq!(current(), [false, false, true]);
        assert!(epochs.is_current(&later));
    }

    #[test]
    fn what_is_forgotten_stays_purged() {
        let epochs = TagEpochs::default();
        let (purged, compared, missed) = (entry(&["a"]), entry(&["b"]), entry(&["b"]));
        for it in [&purged, &compared, &missed] {
            assert!(epochs.mark(it, 0));
        }
        assert!(epochs.purge(TagHash::of("a")));
        assert!(epochs.is_current(&compared));
        epochs.compared(epochs.number());
        assert_eq!(epochs.len(), 0);
        assert!(!epochs.is_current(&purged));
        assert!(epochs.is_current(&compared));
        assert!(!epochs.is_current(&missed), "nobody can say");
    }

    #[test]
    fn no_more_tags_are_remembered_than_there_is_room_for() {
        let epochs = TagEpochs::default();
        let (first, bare) = (entry(&["a"]), entry(&[]));
        for it in [&first, &bare] {
            assert!(epochs.mark(it, 0));
        }
        for tag in 0..=MOST_TAGS as u64 {
            assert!(epochs.purge(TagHash(tag)));
        }
        assert!(epochs.len() <= MOST_TAGS);
        assert!(!epochs.is_current(&first));
        assert!(epochs.is_current(&bare), "it has no tags");
    }

    #[test]
    fn what_was_purged_during_a_load_is_remembered_until_that_load_has_ended() {
        let epochs = TagEpochs::default();
        let (early, late) = (epochs.departs(), {
            assert!(epochs.purge(TagHash::of("a")));
            epochs.departs()
        });
        for tag in ["b", "c"] {
            assert!(epochs.purge(TagHash::of(tag)));
            // All entries that are kept have been compared; those of the loads have not come.
            epochs.compared(epochs.number());
        }
        let kept = |departed, tag| epochs.mark(&entry(&[tag]), departed);
        assert_eq!(
            ["a", "b", "c", "d"].map(|it| kept(early, it)),
            [false, false, false, true]
        );
        assert_eq!(
            ["a", "b", "c", "d"].map(|it| kept(late, it)),
            [true, false, false, true]
        );
        epochs.arrives(early);
        assert_eq!(epochs.len(), 2, "no longer that of 'a'");
        epochs.arrives(late);
        assert_eq!(epochs.len(), 0);
        assert!(!kept(late, "d"), "nobody can say");
    }

    #[test]
    fn when_the_numbers_are_used_up_they_begin_anew_and_nothing_of_before_is_taken_for_new() {
        let epochs = TagEpochs::default();
        epochs.newest.store(u32::MAX - 1, Ordering::Release);
        let departed = epochs.departs();
        assert!(epochs.purge(TagHash::of("a")));
        let (kept, bare) = (entry(&["b"]), entry(&[]));
        assert!(epochs.mark(&kept, departed) && epochs.mark(&bare, departed));
        assert!(!epochs.purge(TagHash::of("b")), "no number is left");
        epochs.begin_anew();
        assert!(!epochs.is_current(&kept) && epochs.is_current(&bare));
        assert!(
            !epochs.mark(&entry(&["c"]), departed),
            "its load departed before"
        );
        epochs.arrives(departed);
        let later = entry(&["a"]);
        assert!(epochs.mark(&later, epochs.departs()));
        assert!(epochs.purge(TagHash::of("a")));
        assert!(!epochs.is_current(&later));
    }
}
