//! How snapshots and events become the set of members. Pure: no IO and no clock of its own.
//!
//! Two rules shape it. A snapshot *replaces* what was known, because whatever happened while nobody
//! watched is in it and only in it; merging it would leave ghosts. But a registry that lost its
//! history (wiped, restored from an old backup) knows less than we do: then whoever is missing is
//! held for a grace time, in which the living register again.

use std::{collections::BTreeMap, sync::Arc};

/// A change that a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The member of that key registered, or changed what it says of itself.
    Put(Arc<str>, T),
    /// The member of that key is gone.
    Delete(Arc<str>),
}

/// How a snapshot relates to what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The registry remembers all that it ever told: whoever is missing is gone.
    Kept,
    /// The registry is younger than what we know of it: whoever is missing may be about to register
    /// again.
    Lost,
}

/// Turns listings and events into the set of members, by key. Times are milliseconds of any clock
/// that doesn't run backwards.
#[derive(Debug)]
pub struct Reconciler<T> {
    members: BTreeMap<Arc<str>, T>,
    /// Members missing from a registry that lost its history, and until when they are kept all the
    /// same.
    held: BTreeMap<Arc<str>, u64>,
    revision: u64,
    hold_ms: u64,
}

impl<T> Reconciler<T> {
    /// `hold_ms`: how long a member that a forgetful registry doesn't list is kept. One lease's
    /// time to live is right: by then whoever lives has registered again.
    pub fn new(hold_ms: u64) -> Self {
        Self {
            members: BTreeMap::new(),
            held: BTreeMap::new(),
            revision: 0,
            hold_ms,
        }
    }

    /// The members as they are now, by key.
    pub fn members(&self) -> &BTreeMap<Arc<str>, T> {
        &self.members
    }

    /// The revision of the last change seen.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes a whole listing. `revision` is that of the newest change in it.
    ///
    /// An empty listing where members were known counts as [`History::Lost`]: an empty list never
    /// wipes the ring.
    pub fn replace(
        &mut self,
        now_ms: u64,
        revision: u64,
        fresh: BTreeMap<Arc<str>, T>,
        history: History,
    ) {
        let lost = history == History::Lost || (fresh.is_empty() && !self.members.is_empty());
        let known = std::mem::replace(&mut self.members, fresh);
        self.revision = if history == History::Lost {
            revision
        } else {
            self.revision.max(revision)
        };
        let held = std::mem::take(&mut self.held);
        for (id, member) in known {
            if self.members.contains_key(&id) {
                continue;
            }
            let until = match held.get(&id) {
                // A second listing doesn't prolong the grace of the first, unless that ended while
                // we were cut off.
                Some(&until) if until > now_ms => until,
                Some(_) => now_ms.saturating_add(self.hold_ms),
                None if lost => now_ms.saturating_add(self.hold_ms),
                None => continue,
            };
            self.held.insert(id.clone(), until);
            self.members.insert(id, member);
        }
    }

    /// Takes one change, seen at `revision`. Changes older than what is known are ignored.
    pub fn apply(&mut self, revision: u64, event: Event<T>) {
        if revision < self.revision {
            return;
        }
        self.revision = revision;
        match event {
            Event::Put(id, member) => {
                self.held.remove(&id);
                self.members.insert(id, member);
            }
            Event::Delete(id) => {
                self.held.remove(&id);
                self.members.remove(&id);
            }
        }
    }

    /// When the next held member's grace ends, if one is held.
    pub fn next_release_ms(&self) -> Option<u64> {
        self.held.values().min().copied()
    }

    /// Lets go of held members whose grace has ended; true if any was. Not to be called while cut
    /// off from the registry: then nobody could be seen to register again, and the last list must
    /// stay (the simulation found what happens otherwise).
    pub fn release(&mut self, now_ms: u64) -> bool {
        let over: Vec<Arc<str>> = self
            .held
            .iter()
            .filter(|(_, until)| **until <= now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &over {
            self.held.remove(id);
            self.members.remove(id);
        }
        !over.is_empty()
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
