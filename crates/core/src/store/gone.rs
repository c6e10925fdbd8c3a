//! Why keys left the store lately, for `explain`. It is a table of a fixed size in which a
//! later key takes the place of an earlier one, and costs nothing but where an entry goes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stats::GoneReason;
use crate::key::HashedKey;

const PLACES: usize = 4096;

/// The last byte says why; the rest is that of the key's hash.
pub(super) struct GoneKeys(Box<[AtomicU64]>);

impl GoneKeys {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, key: &HashedKey<'_>) -> &AtomicU64 {
        // The upper bits: the last byte is not kept.
        &self.0[(key.hash() >> 52) as usize % PLACES]
    }

    pub(super) fn note(&self, key: &HashedKey<'_>, why: GoneReason) {
        let noted = key.hash() & !0xff | why as u64;
        self.place(key).store(noted, Ordering::Relaxed);
    }

    pub(super) fn why(&self, key: &HashedKey<'_>) -> Option<GoneReason> {
        let noted = self.place(key).load(Ordering::Relaxed);
        let all = [
            GoneReason::Evicted,
            GoneReason::Expired,
            GoneReason::Dropped,
        ];
        let why = all.into_iter().find(|why| *why as u64 == noted & 0xff)?;
        (noted & !0xff == key.hash() & !0xff).then_some(why)
    }
}
