//! Purges without a scan: each group counts how often it was purged, and an entry that was kept
//! before the last time is not found any more. Its memory is freed later, by a sweep.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Entry, per_group::PerGroup, tag_epochs::TagEpochs};
use crate::key::GroupId;

/// The epochs of all groups.
pub(super) struct Epochs {
    groups: PerGroup<Epoch>,
    /// Sweeps that are asked for; the first to ask sweeps.
    asked: AtomicU32,
}

#[derive(Default)]
struct Epoch {
    number: AtomicU32,
    /// Entries of older epochs that still take memory.
    outdated: AtomicU64,
    tags: TagEpochs,
}

/// Whether the group has not been purged since the entry came in.
fn is_of(epoch: &Epoch, entry: &Entry) -> bool {
    entry.epoch().load(Ordering::Acquire) == epoch.number.load(Ordering::Acquire)
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self {
            groups: PerGroup::new(),
            asked: AtomicU32::new(0),
        }
    }

    /// Marks an entry that comes in. A purge that happens between this and the insertion is seen by
    /// the entry's readers.
    pub(super) fn mark(&self, entry: &Entry) {
        let number = self.groups.of(entry.group()).number.load(Ordering::Acquire);
        entry.epoch().store(number, Ordering::Release);
    }

    /// The purges of tags of a group.
    pub(super) fn tags(&self, group: GroupId) -> &TagEpochs {
        &self.groups.of(group).tags
    }

    /// Whether neither the group has been purged since the entry came in, nor a tag of the entry
    /// since its load departed.
    pub(super) fn is_current(&self, group: GroupId, entry: &Entry) -> bool {
        let epoch = self.groups.of(group);
        is_of(epoch, entry) && epoch.tags.is_current(entry)
    }

    /// How often tags of each group were purged, to be told to [`TagEpochs::compared`] once all
    /// entries were compared after this.
    pub(super) fn tag_purges(&self) -> Vec<(GroupId, u32)> {
        let groups = self.groups.made().map(|(id, it)| (id, it.tags.number()));
        groups.filter(|(_, number)| *number > 0).collect()
    }

    /// How many purged tags are remembered, of all groups.
    pub(super) fn remembered_tags(&self) -> usize {
        self.groups.made().map(|(_, it)| it.tags.len()).sum()
    }

    /// Begins the next epoch of a group that holds `items` entries; returns how many of them could
    /// be found until now.
    pub(super) fn next(&self, group: GroupId, items: u64) -> u64 {
        let epoch = self.groups.of(group);
        epoch.number.fetch_add(1, Ordering::AcqRel);
        let outdated = epoch.outdated.fetch_max(items, Ordering::AcqRel);
        items.saturating_sub(outdated)
    }

    /// An entry has left the store.
    pub(super) fn gone(&self, entry: &Entry) {
        let epoch = self.groups.of(entry.group());
        // What went with a tag was not counted as outdated.
        if is_of(epoch, entry) {
            return;
        }
        let one_less = |outdated: u64| Some(outdated.saturating_sub(1));
        let (at_last, at_first) = (Ordering::AcqRel, Ordering::Acquire);
        let _ = epoch.outdated.fetch_update(at_last, at_first, one_less);
    }

    /// Asks for a sweep. True for the caller that has to do it: no other does.
    pub(super) fn ask(&self) -> bool {
        self.asked.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// How many sweeps are asked for now.
    pub(super) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Acquire)
    }

    /// Ends the sweep that began when `asked` were asked for. False if it has to go on: more were
    /// asked for meanwhile.
    pub(super) fn swept(&self, asked: u32) -> bool {
        let swept = self
            .asked
            .compare_exchange(asked, 0, Ordering::AcqRel, Ordering::Acquire);
        swept.is_ok()
    }
}
