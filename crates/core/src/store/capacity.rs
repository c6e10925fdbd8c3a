//! What an entry weighs, and how the capacity is divided. The store's interface to quick_cache.

use std::sync::Arc;

use quick_cache::{Lifecycle, Weighter};

use super::entry::Entry;
use crate::key::OwnedKey;

/// What an entry costs beside its key's and value's bytes: the slot and hash table of quick_cache
/// with the slack of their doubling, the ghost entries, two allocations, their headers and the
/// allocator's rounding. Chosen so that a store full of small entries stays within its capacity by
/// resident memory; `tests/memory.rs` measures it.
pub const ENTRY_OVERHEAD_BYTES: u64 = 272;

/// The number of shards. quick_cache rejects an entry that exceeds its shard's share of the
/// capacity, so there are enough shards to avoid contention, but each is large enough for several
/// of the largest values.
pub(super) fn shards(capacity: u64, largest_value: u64) -> usize {
    let wanted = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4);
    let possible = capacity / (largest_value.saturating_add(ENTRY_OVERHEAD_BYTES) * 4).max(1);
    // A power of two, rounded down. quick_cache would round up, so the shards could be too small.
    let bounded = wanted
        .min(usize::try_from(possible).unwrap_or(usize::MAX))
        .max(1);
    1 << bounded.ilog2()
}

/// The size of quick_cache's ghost list. Its tables grow by themselves.
pub(super) fn estimated_items(capacity: u64) -> usize {
    usize::try_from(capacity / 1024).unwrap_or(usize::MAX)
}

#[derive(Clone)]
pub(super) struct Bytesize;

impl Weighter<OwnedKey, Arc<Entry>> for Bytesize {
    fn weight(&self, place: &OwnedKey, entry: &Arc<Entry>) -> u64 {
        weight(&place.text, entry)
    }
}

pub(super) fn weight(key: &str, entry: &Entry) -> u64 {
    (key.len() + entry.record.bytes()) as u64 + ENTRY_OVERHEAD_BYTES
}

/// Collects the entries that an insertion evicts, so that they are counted and freed after the
/// store's lock is released.
#[derive(Clone)]
pub(super) struct Collect;

impl Lifecycle<OwnedKey, Arc<Entry>> for Collect {
    type RequestState = Vec<(OwnedKey, Arc<Entry>)>;

    fn on_evict(&self, left: &mut Self::RequestState, place: OwnedKey, entry: Arc<Entry>) {
        left.push((place, entry));
    }
}
