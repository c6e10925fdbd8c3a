//! Finds other members' keys that are requested here often enough for a hot copy to pay off.
//!
//! A count-min sketch over two time windows. It never underestimates, uses a fixed amount of
//! memory, and forgets by itself. Counting is a few relaxed atomic additions; a lost one makes a
//! key look slightly cooler, which is harmless.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ring::KeyHash;
use crate::ports::Timestamp;

/// How the capacity of a node is divided, in bytes: what it may hold as an owner or replica, and
/// the eighth that is kept for hot copies.
pub fn divide(capacity: u64) -> (u64, u64) {
    let hot = capacity / 8;
    (capacity - hot, hot)
}

const ROWS: usize = 4;
const COLUMNS: usize = 4096;
/// Length of a window. A key is judged by the current window and the previous one.
const WINDOW_MS: u64 = 5_000;

/// Counts requests per key over the last five to ten seconds.
pub struct HotKeys {
    windows: [Window; 2],
    /// Number of the current window, counted from the epoch.
    running: AtomicU64,
    threshold: u32,
}

struct Window([[AtomicU32; COLUMNS]; ROWS]);

impl HotKeys {
    /// A key is hot once it was requested `threshold` times within the last five to ten seconds.
    /// With 0, no key is ever hot.
    pub fn new(threshold: u32) -> Self {
        Self {
            windows: [Window::new(), Window::new()],
            running: AtomicU64::new(0),
            threshold,
        }
    }

    /// Counts one request. Returns true if the key is now hot.
    pub fn count(&self, key: KeyHash, now: Timestamp) -> bool {
        if self.threshold == 0 {
            return false;
        }
        let number = now.0 / WINDOW_MS;
        self.turn_to(number);
        let running = &self.windows[(number % 2) as usize];
        let before = &self.windows[((number + 1) % 2) as usize];
        let recent = running.add(key).saturating_add(before.estimate(key));
        recent >= self.threshold
    }

    /// Whether the next request makes the key hot, or it is already.
    pub fn is_nearly_hot(&self, key: KeyHash, now: Timestamp) -> bool {
        if self.threshold == 0 {
            return false;
        }
        self.turn_to(now.0 / WINDOW_MS);
        let recent = self.windows.iter().map(|window| window.estimate(key));
        recent.fold(1, u32::saturating_add) >= self.threshold
    }

    /// Clears the windows that are stale in window `number`. If several threads see the change at
    /// the same time, only one of them clears.
    fn turn_to(&self, number: u64) {
        let running = self.running.load(Ordering::Acquire);
        if number <= running
            || self
                .running
                .compare_exchange(running, number, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        self.windows[(number % 2) as usize].clear();
        if number > running + 1 {
            self.windows[((number + 1) % 2) as usize].clear();
        }
    }
}

impl Window {
    fn new() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| AtomicU32::new(0))
        }))
    }

    /// Adds one and returns the new estimate.
    fn add(&self, key: KeyHash) -> u32 {
        (0..ROWS)
            .map(|row| self.0[row][column(key, row)].fetch_add(1, Ordering::Relaxed) + 1)
            .min()
            .unwrap_or(0)
    }

    fn estimate(&self, key: KeyHash) -> u32 {
        (0..ROWS)
            .map(|row| self.0[row][column(key, row)].load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    fn clear(&self) {
        for counter in self.0.iter().flatten() {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Each row uses different bits of the hash, which are independent.
fn column(key: KeyHash, row: usize) -> usize {
    (key.0 >> (row * 13)) as usize % COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::hash_key;

    #[test]
    fn a_key_is_hot_from_the_threshold_on_and_cools_again() {
        let hot = HotKeys::new(3);
        let key = hash_key(0, "popular");
        let start = Timestamp(1_000_000);
        assert!(!hot.count(key, start));
        assert!(!hot.is_nearly_hot(key, start));
        assert!(!hot.count(key, start));
        assert!(hot.is_nearly_hot(key, start));
        assert!(hot.count(key, start));
        // The window before still counts, the one before that doesn't.
        assert!(hot.count(key, Timestamp(start.0 + WINDOW_MS)));
        let later = Timestamp(start.0 + 4 * WINDOW_MS);
        assert!(!hot.is_nearly_hot(key, later));
        assert!(!hot.count(key, later));
    }

    #[test]
    fn many_cold_keys_don_t_make_each_other_hot() {
        let hot = HotKeys::new(10);
        let heated = (0..4_000)
            .filter(|n| hot.count(hash_key(0, &n.to_string()), Timestamp(0)))
            .count();
        assert_eq!(heated, 0);
    }

    #[test]
    fn a_threshold_of_zero_switches_it_off() {
        let hot = HotKeys::new(0);
        for _ in 0..100 {
            assert!(!hot.count(KeyHash(1), Timestamp(0)));
        }
    }
}
