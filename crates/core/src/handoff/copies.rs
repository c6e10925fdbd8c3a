//! Copies at a second member: of new entries at once, and of all that are in use again and again.
//!
//! A copy is not used while the owner is alive, so its holder's store would evict it before
//! anything else. So every few seconds the owner announces which entries were used since the last
//! time: their copies are kept as warm as if they were used where they are, and those that were
//! evicted, purged or refused meanwhile are asked for. Unused entries are not announced. The cost
//! is one key per entry in use, and no message for a get.

use std::time::Duration;

use super::{
    Handoff,
    parts::{BREATH, STRIDE},
    plan::other_holder,
    receipts::How,
    streams::Streams,
};
use crate::{copy_queue::QueuedKeys, key::GroupId, key::HashedKey, membership::IdHash};

/// New entries wait this long for company before they are copied.
const GATHER: Duration = Duration::from_millis(20);

impl Handoff {
    /// Copies new entries to the member next in ring order: those of `keys`, and those that come in
    /// the next moment.
    pub(super) async fn copy_new(
        &self,
        wanted: &mut QueuedKeys,
        keys: &mut Vec<(GroupId, Box<str>)>,
    ) {
        tokio::time::sleep(GATHER).await;
        while let Ok(key) = wanted.try_recv() {
            keys.push(key);
        }
        self.copy(keys.drain(..)).await;
    }

    /// Copies new entries to the member next in ring order.
    async fn copy(&self, keys: impl Iterator<Item = (GroupId, Box<str>)> + Send) {
        let topology = self.parts.cluster.snapshot();
        let mut streams = Streams::new(&self.parts, self.background(), &topology);
        for (group, key) in keys {
            let now = self.parts.clock.now();
            let hashed = HashedKey::new(group, &key);
            if let Some(entry) = self.parts.store.peek_usable(&hashed, now) {
                self.step(&topology, entry, 0, &mut streams).await;
            }
        }
        streams.finish().await;
    }

    /// Announces the entries that came or were used since the last time to the holders of their
    /// copies.
    pub(super) async fn announce_used(&self) {
        let topology = self.parts.cluster.snapshot();
        let mut streams = Streams::new(&self.parts, self.background(), &topology);
        let now = self.parts.clock.now();
        for (step, entry) in self.parts.store.walk().enumerate() {
            if step % STRIDE == STRIDE - 1 {
                tokio::time::sleep(BREATH).await;
            }
            let used =
                entry.is_unannounced() && entry.use_count() >= self.rules.copy_from_use_count;
            let group = self.parts.groups.numbered(entry.group());
            let (true, true, Some(group)) = (used, entry.is_fresh(now), group) else {
                continue;
            };
            if let Some(to) = other_holder(&topology, group.hash(entry.key())) {
                streams.add(to, entry, How::Announced).await;
            }
        }
        streams.finish().await;
    }

    /// Assumes that no other member holds these entries. Call it after a ring in which this node
    /// did not settle: others may have given away the copies that it relies on.
    pub(super) async fn forget_copies(&self) {
        for (step, entry) in self.parts.store.walk().enumerate() {
            if step % STRIDE == STRIDE - 1 {
                tokio::time::sleep(BREATH).await;
            }
            entry.set_replica_at(IdHash::NONE);
        }
    }
}
