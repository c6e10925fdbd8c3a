//! Purges: of a group, and of a tag. They take no longer for many entries than for none, and a
//! sweep frees the memory.

use std::sync::Arc;

use super::{Entry, Store, walk::Walk};
use crate::{key::GroupId, tags::TagHash};

/// A load that is under way: it is remembered for it which tags are purged meanwhile.
#[must_use]
pub struct UnderWay {
    store: Arc<Store>,
    group: GroupId,
    /// How often tags of the group had been purged by then.
    departed: u32,
}

impl UnderWay {
    /// Whether the entry that it brought may be kept: none of its tags was purged since the load
    /// departed. To be asked before [`Store::insert`] and [`Store::offer`].
    pub fn brings(&self, entry: &Entry) -> bool {
        self.store
            .epochs
            .tags(self.group)
            .mark(entry, self.departed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.store.epochs.tags(self.group).arrives(self.departed);
    }
}

/// Entries that a sweep looks at before others on its thread get their turn.
const STRIDE: usize = 256;

impl Store {
    /// A walk over all entries that were not purged. No lock is held between steps, so concurrent
    /// insertions and removals may or may not be seen.
    pub fn walk(&self) -> impl Iterator<Item = Entry> + Send + '_ {
        self.everything()
            .filter(|it| self.epochs.is_current(it.group(), it))
    }

    fn everything(&self) -> impl Iterator<Item = Entry> + Send + '_ {
        Walk::new(&self.shards)
    }

    /// From now on, no entry of the group that was kept before is found. Takes no longer for many
    /// entries than for none; their memory is freed by [`Store::sweep`]. Returns how many entries
    /// went.
    pub fn purge(&self, group: GroupId) -> u64 {
        self.epochs.next(group, self.stats.read(group).items)
    }

    /// From now on, no entry of the group with that tag that was kept before is found. Takes no
    /// longer for many entries than for none.
    pub fn purge_tag(&self, group: GroupId, tag: TagHash) {
        let tags = self.epochs.tags(group);
        if !tags.purge(tag) {
            // Before the purge: nothing that comes in after it may have a number of before.
            tags.begin_anew();
            self.purge(group);
        }
    }

    /// A load of a key of the group departs.
    pub fn departs(self: &Arc<Self>, group: GroupId) -> UnderWay {
        UnderWay {
            departed: self.epochs.tags(group).departs(),
            store: self.clone(),
            group,
        }
    }

    /// How many purged tags are remembered, until a sweep has gone over all entries and the loads
    /// that were under way have ended.
    pub fn purged_tags(&self) -> usize {
        self.epochs.remembered_tags()
    }

    /// Frees the memory of entries that were purged. While one caller sweeps, others return at
    /// once, and the sweep takes their purges along.
    pub async fn sweep(&self) {
        if !self.epochs.ask() {
            return;
        }
        loop {
            let (asked, tag_purges) = (self.epochs.asked(), self.epochs.tag_purges());
            for (step, found) in self.everything().enumerate() {
                if step % STRIDE == STRIDE - 1 {
                    tokio::task::yield_now().await;
                }
                if !self.epochs.is_current(found.group(), &found) {
                    self.remove_exactly(&found);
                }
            }
            for (group, number) in tag_purges {
                self.epochs.tags(group).compared(number);
            }
            if self.epochs.swept(asked) {
                return;
            }
        }
    }
}
