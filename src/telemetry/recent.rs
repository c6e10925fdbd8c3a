//! The latest loads and misses of a group by key, for `explain`: a bounded list, to which
//! hits add nothing.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use parking_lot::Mutex;

use crate::clock::unix_seconds;
use gaocache_core::error::Error;

/// How many are kept.
const KEPT: usize = 512;
/// Letters of an error's message that are kept.
const MESSAGE: usize = 200;

/// How a load or a get of a key ended.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Note {
    #[serde(skip)]
    key: u64,
    /// Seconds since the Unix epoch.
    pub at_seconds: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// Where the value came from, or the kind of error.
    pub outcome: &'static str,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The latest ones.
#[derive(Default)]
pub struct Recent {
    hashes: RandomState,
    notes: Mutex<VecDeque<Note>>,
}

impl Recent {
    /// Adds one.
    pub fn add(&self, key: &str, took: Duration, outcome: Result<&'static str, &Error>) {
        let note = Note {
            key: self.hashes.hash_one(key),
            at_seconds: unix_seconds(),
            took_seconds: took.as_secs_f64(),
            outcome: outcome.unwrap_or_else(|error| error.kind().name()),
            error: outcome
                .err()
                .map(|error| error.message().chars().take(MESSAGE).collect()),
        };
        let mut notes = self.notes.lock();
        if notes.len() >= KEPT {
            notes.pop_front();
        }
        notes.push_back(note);
    }

    /// The latest one of a key.
    pub fn of(&self, key: &str) -> Option<Note> {
        let key = self.hashes.hash_one(key);
        let notes = self.notes.lock();
        notes.iter().rev().find(|note| note.key == key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_key_is_found_and_the_oldest_give_way() {
        let recent = Recent::default();
        recent.add("a", Duration::from_secs(1), Ok("peer"));
        let failed = Error::origin_failed("x".repeat(1000));
        recent.add("a", Duration::from_secs(2), Err(&failed));
        let note = recent.of("a").expect("noted");
        assert_eq!((note.outcome, note.took_seconds), ("origin_failed", 2.0));
        assert!(note.error.is_some_and(|it| it.len() == MESSAGE));
        for number in 0..KEPT {
            recent.add(&number.to_string(), Duration::ZERO, Ok("origin"));
        }
        assert!(recent.of("a").is_none());
        assert_eq!(recent.notes.lock().len(), KEPT);
    }
}
