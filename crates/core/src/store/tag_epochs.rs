//! Purges of tags without a scan: a group counts them, and an entry that was kept before the last
//! purge of one of its tags is not found any more.
//!
//! It must never forget a purge while an entry that it took may still be found: whoever is not sure
//! drops the entry.

use std::{
    collections::HashMap,
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
}

impl TagEpochs {
    /// Marks an entry that comes in. A purge that happens between this and the insertion is seen by
    /// the entry's readers.
    pub(super) fn mark(&self, entry: &Entry) {
        if let Some(known) = entry.tag_epoch() {
            known.store(self.newest.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Whether none of the entry's tags was purged since it came in.
    pub(super) fn is_current(&self, entry: &Entry) -> bool {
        let Some(known) = entry.tag_epoch() else {
            return true;
        };
        let newest = self.newest.load(Ordering::Acquire);
        known.load(Ordering::Acquire) == newest || self.compare(entry, known, newest)
    }

    #[cold]
    fn compare(&self, entry: &Entry, epoch: &AtomicU32, newest: u32) -> bool {
        let known = epoch.load(Ordering::Acquire);
        let purged = self.purged.lock();
        let mut tags = entry.metadata().tags().peekable();
        let current = tags.peek().is_none()
            || known >= purged.forgotten
                && tags.all(|tag| purged.by_tag.get(&tag).is_none_or(|purge| *purge <= known));
        drop(purged);
        if current {
            // It need not be compared again before the next purge.
            epoch.fetch_max(newest, Ordering::AcqRel);
        }
        current
    }

    /// Purges a tag.
    pub(super) fn purge(&self, tag: TagHash) {
        let mut purged = self.purged.lock();
        let next = self.newest.load(Ordering::Acquire) + 1;
        if purged.by_tag.len() >= MOST_TAGS {
            purged.by_tag = HashMap::new();
            purged.forgotten = next;
        }
        purged.by_tag.insert(tag, next);
        // After the tag is in the table: who sees the number compares with it.
        self.newest.store(next, Ordering::Release);
    }

    /// How many purges there were. Once all entries were compared after this, they can be
    /// forgotten.
    pub(super) fn number(&self) -> u32 {
        self.newest.load(Ordering::Acquire)
    }

    /// Forgets purges up to that one. An entry that was not compared since is dropped.
    pub(super) fn forget(&self, number: u32) {
        let mut purged = self.purged.lock();
        purged.forgotten = purged.forgotten.max(number);
        purged.by_tag.retain(|_, purge| *purge > number);
        purged.by_tag.shrink_to_fit();
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
            epochs.mark(it);
        }
        epochs.purge(TagHash::of("b"));
        let current = || [&a, &ab, &none].map(|it| epochs.is_current(it));
        assert_eq!(current(), [true, false, true]);
        epochs.purge(TagHash::of("c"));
        assert_eq!(current(), [true, false, true]);
        let later = entry(&["b"]);
        epochs.mark(&later);
        assert!(epochs.is_current(&later));
        epochs.purge(TagHash::of("a"));
        assert_eq!(current(), [false, false, true]);
        assert!(epochs.is_current(&later));
    }

    #[test]
    fn what_is_forgotten_stays_purged() {
        let epochs = TagEpochs::default();
        let (purged, compared, missed) = (entry(&["a"]), entry(&["b"]), entry(&["b"]));
        for it in [&purged, &compared, &missed] {
            epochs.mark(it);
        }
        epochs.purge(TagHash::of("a"));
        assert!(epochs.is_current(&compared));
        epochs.forget(epochs.number());
        assert_eq!(epochs.len(), 0);
        assert!(!epochs.is_current(&purged));
        assert!(epochs.is_current(&compared));
        assert!(!epochs.is_current(&missed), "nobody can say");
    }

    #[test]
    fn no_more_tags_are_remembered_than_there_is_room_for() {
        let epochs = TagEpochs::default();
        let (first, bare) = (entry(&["first"]), entry(&[]));
        epochs.mark(&first);
        epochs.mark(&bare);
        epochs.purge(TagHash::of("first"));
        for tag in 0..MOST_TAGS as u64 {
            epochs.purge(TagHash(tag));
        }
        assert!(epochs.len() <= MOST_TAGS);
        assert!(!epochs.is_current(&first));
        assert!(epochs.is_current(&bare), "it has no tags");
    }
}
