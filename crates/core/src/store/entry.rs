//! An entry of a store: a record, and what its store notes of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{membership::IdHash, record::Record};

/// Uses are counted up to this limit, so that the hottest entries are no longer written to.
pub const MAX_USE_COUNT: u32 = 255;

/// A kept answer. Its record is immutable; a newer entry replaces it.
#[derive(Debug)]
pub struct Entry {
    /// What is served.
    pub record: Record,
    /// How often it was requested, on this node and on the one that it came from, see
    /// [`MAX_USE_COUNT`]; and the bit [`UNTOLD`].
    uses: AtomicU32,
    /// How often its group had been purged when it was kept.
    pub(super) epoch: AtomicU32,
    /// How often tags of its group had been purged when it was kept, or when its own were last
    /// found not to be among them.
    pub(super) tag_epoch: AtomicU32,
    /// The incarnation of the other member that is known to hold it; 0 if there is none.
    replica_at: AtomicU64,
    /// The owner of its key; see [`Entry::owner_in`].
    owner: AtomicU64,
}

/// The bit of [`Entry::uses`] for an entry that came or was used since the holder of its replica
/// last learned of it. In the same word as the count, so that a hit writes to one place, and to
/// none once both are set.
const UNTOLD: u32 = 1 << 31;

/// Bits of [`Entry::owner`] that hold the index of the member.
const OWNER_BITS: u32 = 24;

impl Entry {
    /// An entry whose value is copied to a buffer of exactly its size.
    pub fn new(record: &Record) -> Self {
        Self {
            record: record.detached(),
            uses: AtomicU32::new(UNTOLD),
            epoch: AtomicU32::new(0),
            tag_epoch: AtomicU32::new(0),
            replica_at: AtomicU64::new(0),
            owner: AtomicU64::new(0),
        }
    }

    /// An entry with the same value in the same buffer, in place of this one: only its times and
    /// its metadata are new.
    #[must_use]
    pub fn renewed(&self, record: Record) -> Self {
        let value = self.record.value.clone();
        Self {
            record: Record { value, ..record },
            uses: AtomicU32::new(UNTOLD),
            epoch: AtomicU32::new(0),
            tag_epoch: AtomicU32::new(0),
            replica_at: AtomicU64::new(0),
            owner: AtomicU64::new(0),
        }
        .with_use_count(self.use_count())
    }

    /// Sets the use count.
    #[must_use]
    pub fn with_use_count(self, use_count: u32) -> Self {
        self.raise_use_count(use_count);
        self
    }

    /// How often it was requested, on this node and on the one that it came from; at most
    /// [`MAX_USE_COUNT`].
    pub fn use_count(&self) -> u32 {
        self.uses.load(Ordering::Relaxed) & !UNTOLD
    }

    /// Raises the use count to that of the same entry elsewhere.
    pub(super) fn raise_use_count(&self, use_count: u32) {
        let noted = self.uses.load(Ordering::Relaxed);
        let hotter = use_count.min(MAX_USE_COUNT).max(noted & !UNTOLD);
        self.uses.store(noted & UNTOLD | hotter, Ordering::Relaxed);
    }

    /// Counts a use. If two threads race, one use is lost and the entry looks slightly cooler,
    /// which is harmless.
    pub(super) fn used(&self) {
        let noted = self.uses.load(Ordering::Relaxed);
        let counted = ((noted & !UNTOLD) + 1).min(MAX_USE_COUNT) | UNTOLD;
        if counted != noted {
            self.uses.store(counted, Ordering::Relaxed);
        }
    }

    /// Whether it came or was used since [`Entry::set_told`].
    pub fn is_untold(&self) -> bool {
        self.uses.load(Ordering::Relaxed) & UNTOLD != 0
    }

    /// The holder of its replica knows that it is in use.
    pub fn set_told(&self) {
        self.uses.fetch_and(!UNTOLD, Ordering::Relaxed);
    }

    /// The incarnation of the other member that is known to hold it.
    pub fn replica_at(&self) -> IdHash {
        IdHash(self.replica_at.load(Ordering::Relaxed))
    }

    /// Records that this member also holds it.
    pub fn set_replica_at(&self, member: IdHash) {
        self.replica_at.store(member.0, Ordering::Relaxed);
    }

    /// The index of the owner of its key in the topology of that number, if it was noted: a hit is
    /// not to compute it each time. Numbers begin with 1.
    pub fn owner_in(&self, topology: u64) -> Option<usize> {
        let noted = self.owner.load(Ordering::Relaxed);
        let index = noted & ((1 << OWNER_BITS) - 1);
        (noted >> OWNER_BITS == topology).then_some(index as usize)
    }

    /// Notes the index of the owner of its key in the topology of that number.
    pub fn note_owner(&self, topology: u64, index: usize) {
        if index >> OWNER_BITS == 0 {
            let noted = topology << OWNER_BITS | index as u64;
            self.owner.store(noted, Ordering::Relaxed);
        }
    }
}
