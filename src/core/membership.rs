//! Who is in the cluster: members, the view at a revision, and how snapshots and events become a view. Pure.
//!
//! Two rules shape it. A snapshot *replaces* what was known, because whatever happened while nobody watched is in it and only
//! in it; merging it would leave ghosts. But a registry that lost its history (wiped, restored from an old backup) knows
//! less than we do: then whoever is missing is held for a grace time, in which the living register again.

use std::{collections::BTreeMap, fmt, sync::Arc};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The weight of a member that says nothing of it.
pub const DEFAULT_WEIGHT: u32 = 100;

/// What a member is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Owns its share of the keys.
    #[default]
    Serving,
    /// Is leaving: out of the ring, still reachable.
    Draining,
}

impl MemberState {
    /// As written in etcd and in `/ring`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// A node as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Stable over restarts (the pod's name); what the ring hashes.
    pub id: Arc<str>,
    /// `host:port` of its gRPC door; may change with every restart.
    pub address: Arc<str>,
    /// Where it runs; empty if nobody said.
    pub zone: Arc<str>,
    /// Its share of the keys, relative to the others'. At least 1.
    pub weight: u32,
    /// Whether it owns keys.
    pub state: MemberState,
    /// The release it runs.
    pub version: Arc<str>,
    /// The port of its admin door; 0 if nobody said.
    pub admin_port: u16,
    /// Which start of the process this is: tells a restarted member from one that shares its id by mistake.
    pub instance: Arc<str>,
    /// The lease that its registration stands under; 0: none.
    pub lease: i64,
}

/// A member's id in eight bytes, for where every byte counts: in each fetch, in each entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdHash(pub u64);

impl IdHash {
    /// Stands for an id that nobody told.
    pub const UNTOLD: Self = Self(0);

    /// Of this id.
    pub fn of(id: &str) -> Self {
        Self(xxh3_64(id.as_bytes()))
    }
}

impl Member {
    /// Tells this start of the member's process from earlier ones, which held other entries.
    pub fn incarnation(&self) -> IdHash {
        let mut hash = Xxh3::new();
        hash.update(self.id.as_bytes());
        hash.update(&[0]);
        hash.update(self.instance.as_bytes());
        IdHash(hash.digest())
    }

    /// A serving member with nothing but an id and an address.
    pub fn new(id: impl Into<Arc<str>>, address: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            address: address.into(),
            zone: "".into(),
            weight: DEFAULT_WEIGHT,
            state: MemberState::Serving,
            version: "".into(),
            admin_port: 0,
            instance: "".into(),
            lease: 0,
        }
    }
}

/// The members at a revision of the registry, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The registry's revision of the last change seen; 0 where the registry has none.
    pub revision: u64,
    /// Ordered by id, each id once.
    pub members: Arc<[Member]>,
}

impl View {
    /// A view of these members, whatever their order. Of two with one id the later stays.
    pub fn new(revision: u64, members: impl IntoIterator<Item = Member>) -> Self {
        let by_id: BTreeMap<Arc<str>, Member> = members
            .into_iter()
            .map(|member| (member.id.clone(), member))
            .collect();
        Self {
            revision,
            members: by_id.into_values().collect(),
        }
    }

    /// The member of that id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members
            .binary_search_by(|member| (*member.id).cmp(id))
            .ok()
            .map(|at| &self.members[at])
    }

    /// Equal for equal members (id, address, zone, weight, state), on any node and any platform.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Xxh3::new();
        let mut field = |bytes: &[u8]| {
            // Lengths first, so that no two lists of fields read the same.
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for member in self.members.iter() {
            field(member.id.as_bytes());
            field(member.address.as_bytes());
            field(member.zone.as_bytes());
            field(&member.weight.to_le_bytes());
            field(member.state.name().as_bytes());
        }
        Fingerprint(hash.digest())
    }
}

/// Tells whether two nodes know the same members; see [`View::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

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
    /// The registry is younger than what we know of it: whoever is missing may be about to register again.
    Lost,
}

/// Turns listings and events into the set of members, by key. Times are milliseconds of any clock that doesn't run backwards.
#[derive(Debug)]
pub struct Reconciler<T> {
    members: BTreeMap<Arc<str>, T>,
    /// Members missing from a registry that lost its history, and until when they are kept all the same.
    held: BTreeMap<Arc<str>, u64>,
    revision: u64,
    hold_ms: u64,
}

impl<T> Reconciler<T> {
    /// `hold_ms`: how long a member that a forgetful registry doesn't list is kept. One lease's time to live is right:
    /// by then whoever lives has registered again.
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
    /// An empty listing where members were known counts as [`History::Lost`]: an empty list never wipes the ring.
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
                // A second listing doesn't prolong the grace of the first, unless that ended while we were cut off.
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

    /// Lets go of held members whose grace has ended; true if any was. Not to be called while cut off from the registry: then nobody could
    /// be seen to register again, and the last list must stay (the simulation found what happens otherwise).
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
#[path = "membership_tests.rs"]
mod tests;
