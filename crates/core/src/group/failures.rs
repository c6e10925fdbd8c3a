//! Remembers recent failures of loads: until they expire, gets of these keys fail with the same
//! error, and the origin is not asked.
//!
//! It must never hold a failure past a removal of its key: a removal means that the key should be
//! loaded again.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    error::{Error, ErrorKind},
    ports::Timestamp,
    ring::KeyHash,
};

/// Maximum number of keys. Beyond it, the oldest failures are forgotten.
const MOST_KEYS: usize = 10_000;
/// The origin may ask for this long a pause at most.
const LONGEST: Duration = Duration::from_secs(60);

/// The failures of one group.
#[derive(Default)]
pub(super) struct Failures {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<KeyHash, Failure>,
    /// In the order in which they came. A key that failed again is in it twice.
    order: VecDeque<(Timestamp, KeyHash)>,
}

struct Failure {
    error: Error,
    until: Timestamp,
}

impl Failures {
    /// The failure of the key, if it is to be kept in mind: with the time that is left of it.
    pub(super) fn of(&self, key: KeyHash, now: Timestamp) -> Option<Error> {
        let kept = self.kept.lock();
        let failure = kept.by_key.get(&key).filter(|it| now < it.until)?;
        let left = failure.until.since(now);
        Some(failure.error.clone().with_retry_after(left))
    }

    /// Keeps the failure in mind for that long, if it is one of the origin; zero: not at all.
    pub(super) fn note(&self, key: KeyHash, error: &Error, ttl: Duration, now: Timestamp) {
        let Some(time) = kept_for(error, ttl) else {
            return;
        };
        let until = now.after(time);
        let mut kept = self.kept.lock();
        kept.make_room(now);
        let error = error.clone();
        kept.by_key.insert(key, Failure { error, until });
        kept.order.push_back((until, key));
    }

    /// The key was removed.
    pub(super) fn forget(&self, key: KeyHash) {
        self.kept.lock().by_key.remove(&key);
    }

    /// All keys were removed.
    pub(super) fn forget_all(&self) {
        *self.kept.lock() = Kept::default();
    }
}

/// For how long a failure is kept in mind; `None`: not at all.
fn kept_for(error: &Error, ttl: Duration) -> Option<Duration> {
    let of_origin = matches!(
        error.kind(),
        ErrorKind::OriginFailed | ErrorKind::OriginTimeout | ErrorKind::ValueTooLarge
    );
    let asked = error.retry_after().unwrap_or_default().min(LONGEST);
    (of_origin && !ttl.is_zero()).then(|| ttl.max(asked))
}

/// A failure as its first callers get it: a retry can't help before it is forgotten.
pub(super) fn with_time(error: Error, ttl: Duration) -> Error {
    match kept_for(&error, ttl) {
        Some(time) => {
            let asked = error.retry_after().unwrap_or_default();
            error.with_retry_after(time.max(asked))
        }
        None => error,
    }
}

impl Kept {
    /// Forgets those at the front that have run out, and the oldest if there are too many.
    fn make_room(&mut self, now: Timestamp) {
        while let Some(&(until, key)) = self.order.front() {
            if now < until && self.order.len() < MOST_KEYS {
                break;
            }
            self.order.pop_front();
            if self.by_key.get(&key).is_some_and(|it| it.until == until) {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    fn kinds(failures: &Failures, key: u64, now: u64) -> Option<ErrorKind> {
        let error = failures.of(KeyHash(key), Timestamp(now));
        error.map(|error| error.kind())
    }

    #[test]
    fn failures_of_the_origin_are_kept_for_their_time_or_as_long_as_it_asked() {
        let failures = Failures::default();
        let at = Timestamp(0);
        failures.note(KeyHash(1), &Error::origin_failed("down"), TTL, at);
        let error = failures.of(KeyHash(1), Timestamp(400)).expect("kept");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(600)));
        assert_eq!(kinds(&failures, 1, 1000), None);
        for (asked, until) in [(0, 1000), (5, 5000), (1_000_000, 60_000)] {
            let error = Error::origin_failed("busy").with_retry_after(Duration::from_secs(asked));
            failures.note(KeyHash(2), &error, TTL, at);
            let wanted = Some(ErrorKind::OriginFailed);
            assert_eq!(kinds(&failures, 2, until - 1), wanted, "{asked}");
            assert_eq!(kinds(&failures, 2, until), None, "{asked}");
        }
        for &kind in ErrorKind::ALL {
            failures.note(KeyHash(3), &Error::new(kind, "x"), TTL, at);
            let origin_s = kind.fault() == crate::error::Fault::Origin;
            let kept = origin_s && !matches!(kind, ErrorKind::NotFound | ErrorKind::BreakerOpen);
            assert_eq!(kinds(&failures, 3, 0), kept.then_some(kind));
            failures.forget(KeyHash(3));
        }
    }

    #[test]
    fn a_flood_of_failures_is_bounded_and_forgets_the_oldest() {
        let failures = Failures::default();
        for key in 0..2 * MOST_KEYS as u64 {
            failures.note(
                KeyHash(key),
                &Error::origin_failed("down"),
                TTL,
                Timestamp(0),
            );
        }
        let kept = failures.kept.lock();
        assert!(kept.by_key.len() <= MOST_KEYS && kept.order.len() <= MOST_KEYS);
        drop(kept);
        assert_eq!(kinds(&failures, 0, 0), None);
        let newest = 2 * MOST_KEYS as u64 - 1;
        assert!(kinds(&failures, newest, 0).is_some());
        failures.forget_all();
        assert_eq!(kinds(&failures, newest, 0), None);
    }
}
