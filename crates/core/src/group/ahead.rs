//! Which values are loaded anew before their lives end: those that are asked for near their end, by
//! the rule of XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
//! Prevention, VLDB 2015).
//!
//! A get within `L · -ln(u)` of the end of a life starts the load, where `L` is how long loads take
//! and `u` is random between 0 and 1. So one get of many starts it early enough, and keys that
//! nobody asks for are not loaded.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64;

use crate::{ports::Timestamp, ring::KeyHash};

/// How long loads take, while values are to be loaded ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// A moving average, in milliseconds; 0 while none is known.
    load_millis: AtomicU64,
}

impl Ahead {
    /// The draw of more than `e^20` comes before any other.
    const LONGEST_DRAW: u64 = 20;

    /// A load took that long. If two threads race, one of their loads doesn't count.
    pub(super) fn took(&self, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let average = match self.load_millis.load(Ordering::Relaxed) {
            0 => took,
            known => (known.saturating_mul(7).saturating_add(took)) / 8,
        };
        self.load_millis.store(average.max(1), Ordering::Relaxed);
    }

    /// Other rules hold.
    pub(super) fn forget(&self) {
        self.load_millis.store(0, Ordering::Relaxed);
    }

    /// Whether it is on, and a load has ended.
    pub(super) fn is_on(&self) -> bool {
        self.load_millis.load(Ordering::Relaxed) != 0
    }

    /// Whether a get at `now` may be one that loads a value ahead; false for nearly all of them.
    pub(super) fn may_be_due(&self, expires_at: Timestamp, now: Timestamp) -> bool {
        let load = self.load_millis.load(Ordering::Relaxed);
        let left = expires_at.since(now).as_millis();
        left <= u128::from(load.saturating_mul(Self::LONGEST_DRAW))
    }

    /// Whether a get at `now` loads the value ahead. The core has no dice: the key and the moment
    /// decide.
    pub(super) fn is_due(&self, hash: KeyHash, expires_at: Timestamp, now: Timestamp) -> bool {
        let load = self.load_millis.load(Ordering::Relaxed);
        let mixed = xxh3_64(&(hash.0 ^ now.0.rotate_left(32)).to_le_bytes());
        // Never 0, whose logarithm is infinite.
        let random = (mixed as f64 + 1.0) / (u64::MAX as f64 + 1.0);
        expires_at.since(now).as_millis() as f64 <= load as f64 * -random.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand keys a get loads ahead that comes so long before the end, where loads
    /// take 100 ms.
    fn due(left: u64) -> usize {
        let ahead = Ahead::default();
        ahead.took(Duration::from_millis(100));
        let (now, end) = (Timestamp(5_000_000), Timestamp(5_000_000 + left));
        let is_due = |key: &u64| ahead.is_due(KeyHash(*key), end, now);
        (0..1000).filter(is_due).count()
    }

    #[test]
    fn a_get_loads_ahead_with_the_probability_of_the_rule() {
        // e^-1 and e^-3 of them.
        assert!((320..420).contains(&due(100)), "{}", due(100));
        assert!((25..80).contains(&due(300)), "{}", due(300));
        assert_eq!(due(0), 1000);
        assert_eq!(due(3_000), 0);
    }

    #[test]
    fn loads_are_averaged_and_other_rules_begin_anew() {
        let ahead = Ahead::default();
        let end = |millis: u64| Timestamp(1_000 + millis);
        let may_be = |ahead: &Ahead, left| ahead.may_be_due(end(left), Timestamp(1_000));
        ahead.took(Duration::from_millis(80));
        assert!(may_be(&ahead, 1_600) && !may_be(&ahead, 1_601));
        ahead.took(Duration::ZERO);
        assert!(may_be(&ahead, 1_400) && !may_be(&ahead, 1_401), "70 ms");
        ahead.forget();
        assert!(!may_be(&ahead, 1));
    }
}
