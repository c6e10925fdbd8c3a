//! Turns listings and events into the set of members. Pure: no IO, no clock.
//!
//! There are two rules. First, a listing *replaces* what was known, because it is the only record
//! of what happened while there was no watch; merging it would leave ghosts. Second, a registry
//! that lost its history (wiped, or restored from an old backup) knows less than we do, so members
//! that are missing from it are kept for a grace period, in which live members register again.

use std::{collections::BTreeMap, sync::Arc};

/// A change that a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The member with that key registered or changed its data.
    Put(Arc<str>, T),
    /// The member with that key is gone.
    Delete(Arc<str>),
}

/// How a listing relates to what was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// The registry has its full history: a missing member is gone.
    Kept,
    /// The registry has lost its history: a missing member may be about to register again.
    Lost,
}

/// Turns listings and events into the set of members, by key. Times are in milliseconds of any
/// monotonic clock.
#[derive(Debug)]
pub struct Reconciler<T> {
    members: BTreeMap<Arc<str>, T>,
    /// Members that are missing from a registry that lost its history, with the end of their grace
    /// period.
    held: BTreeMap<Arc<str>, u64>,
    revision: u64,
    /// Changes that are older were in the last listing.
    listed: u64,
    hold_ms: u64,
}

impl<T> Reconciler<T> {
    /// `hold_ms` is the grace period for members that are missing after the registry lost its
    /// history. At least the lease's time to live: by then, every live member has registered again.
    pub fn new(hold_ms: u64) -> Self {
        Self {
            members: BTreeMap::new(),
            held: BTreeMap::new(),
            revision: 0,
            listed: 0,
            hold_ms,
        }
    }

    /// The current members, by key.
    pub fn members(&self) -> &BTreeMap<Arc<str>, T> {
        &self.members
    }

    /// Those of them that are missing from a registry that lost its history.
    pub fn held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.held.keys()
    }

    /// The members that the registry knows, by key.
    pub fn listed(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        let members = self.members.iter();
        members.filter(|(id, _)| !self.held.contains_key(*id))
    }

    /// The revision of the newest change seen.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies a full listing. `revision` is the revision of the newest change in it.
    ///
    /// An empty listing counts as [`History::Lost`] if members were known: an empty list never
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
        self.listed = self.revision;
        let held = std::mem::take(&mut self.held);
        for (id, member) in known {
            if self.members.contains_key(&id) {
                continue;
            }
            let until = match held.get(&id) {
                // A second listing doesn't extend the grace period of the first, unless that period
                // ended while we were cut off.
                Some(&until) if until > now_ms => until,
                Some(_) => now_ms.saturating_add(self.hold_ms),
                None if lost => now_ms.saturating_add(self.hold_ms),
                None => continue,
            };
            self.held.insert(id.clone(), until);
            self.members.insert(id, member);
        }
    }

    /// Applies one change, made at `revision`. The changes of one key have to come in order, those
    /// of several need not. What is older than the last listing is ignored.
    pub fn apply(&mut self, revision: u64, event: Event<T>) {
        if revision < self.listed {
            return;
        }
        self.revision = self.revision.max(revision);
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

    /// When the next grace period ends, if any.
    pub fn next_release_ms(&self) -> Option<u64> {
        self.held.values().min().copied()
    }

    /// Removes held members whose grace period has ended. Returns true if there were any. Must not
    /// be called while cut off from the registry: no member could be seen to register again, so the
    /// last list must stay (the simulation found what happens otherwise).
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
