//! What a node notes of an entry: how often it was requested, who else holds it, and who owns its
//! key.

use std::sync::atomic::Ordering;

use super::Entry;
use crate::membership::IdHash;

/// Bits of [`Head::owner`](super::Head::owner) that hold the index of the member, plus one.
const OWNER_BITS: u32 = 12;

impl Entry {
    /// Sets the use count.
    #[must_use]
    pub fn with_use_count(self, use_count: u32) -> Self {
        self.raise_use_count(use_count);
        self
    }

    /// How often it was requested, on this node and on the one that it came from; at most
    /// [`MAX_USE_COUNT`](super::MAX_USE_COUNT).
    pub fn use_count(&self) -> u32 {
        self.0.head().uses.load(Ordering::Relaxed).into()
    }

    /// Raises the use count to that of the same entry elsewhere.
    pub(crate) fn raise_use_count(&self, use_count: u32) {
        let hotter = u8::try_from(use_count).unwrap_or(u8::MAX);
        self.0.head().uses.fetch_max(hotter, Ordering::Relaxed);
    }

    /// Whether another member is known to hold it.
    pub fn has_replica(&self) -> bool {
        self.0.head().replica_at.load(Ordering::Relaxed) != 0
    }

    /// Whether it is this incarnation of a member that is known to hold it. Of two whose hashes
    /// are the same in half of their bits, both seem to: one pair in four billion.
    pub fn has_replica_at(&self, member: IdHash) -> bool {
        let at = shortened(member);
        at != 0 && self.0.head().replica_at.load(Ordering::Relaxed) == at
    }

    /// Records that this member also holds it.
    pub fn set_replica_at(&self, member: IdHash) {
        let at = shortened(member);
        self.0.head().replica_at.store(at, Ordering::Relaxed);
    }

    /// The index of the owner of its key in the topology of that number, if it was noted: a hit is
    /// not to compute it each time. Of the number, 20 bits are compared: after a million others,
    /// an entry that nobody has asked for since may name who was the owner then.
    pub fn owner_in(&self, topology: u64) -> Option<usize> {
        let noted = self.0.head().owner.load(Ordering::Relaxed);
        let index = noted & ((1 << OWNER_BITS) - 1);
        let same = noted >> OWNER_BITS == topology as u32 & (u32::MAX >> OWNER_BITS);
        (same && index > 0).then(|| index as usize - 1)
    }

    /// Notes the index of the owner of its key in the topology of that number.
    pub fn note_owner(&self, topology: u64, index: usize) {
        let index = index + 1;
        if index >> OWNER_BITS == 0 {
            let noted = (topology as u32) << OWNER_BITS | index as u32;
            self.0.head().owner.store(noted, Ordering::Relaxed);
        }
    }
}

/// 0 for nobody alone.
fn shortened(IdHash(hash): IdHash) -> u32 {
    let short = (hash >> 32) as u32 ^ hash as u32;
    if hash == 0 { 0 } else { short.max(1) }
}
