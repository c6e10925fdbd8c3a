//! A walk over the entries of a store, in strides: each takes the lock of one shard once.

use super::{entry::Entry, shard::Locked, slab::Place};

/// Entries that are taken out of a shard at once.
const STRIDE: usize = 64;

/// All entries of these shards.
pub(super) struct Walk<'a> {
    shards: &'a [Locked],
    /// The place in the first of them before which to continue.
    place: Place,
    taken: std::vec::IntoIter<Entry>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shards: &'a [Locked]) -> Self {
        Self {
            shards,
            place: Place::MAX,
            taken: Vec::new().into_iter(),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.taken.next() {
                return Some(entry);
            }
            let (shard, others) = self.shards.split_first()?;
            let (taken, next) = shard.0.read().walk(self.place, STRIDE);
            self.taken = taken.into_iter();
            self.place = next.unwrap_or(Place::MAX);
            if next.is_none() {
                self.shards = others;
            }
        }
    }
}
