//! What is known about a key, for people: which members should hold it, which do, and why it may
//! have been missed.
//!
//! It must never load, and doesn't count as a use.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use super::{Group, check_key};
use crate::{
    cluster::Owner,
    error::{Error, Result},
    membership::Member,
    metadata::Metadata,
    ports::{PeerError, Timestamp},
    record::Record,
    store::{Entry, GoneReason},
};

/// Number of other members that are asked: the owner, and those next in ring order.
const ASKED: usize = 2;

/// What another member holds, or why it could not be asked.
pub type Told = Result<Option<Held>, String>;

/// What is known of a key at one node.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The first members in ring order: the owner, and those that stand in for it or hold its
    /// replica.
    pub ranked: Vec<Member>,
    /// Whether each key has a replica at the second of them.
    pub replicated: bool,
    /// What this node holds as owner or for it.
    pub owned: Option<Held>,
    /// Its copy of what another member holds.
    pub hot: Option<Held>,
    /// What others hold, or why they could not be asked.
    pub others: Vec<(Arc<str>, Told)>,
    /// Why the key left this node's memory, if it did so recently and has not come back.
    pub last_departure: Option<GoneReason>,
    /// The error that gets end with until it is forgotten, because the last load failed.
    pub failure: Option<Error>,
    /// Whether it was removed so recently that only its origin is trusted.
    pub removed: bool,
    /// Whether this node is sure to be a member. If not, it answers nothing from memory.
    pub sure: bool,
}

/// An entry that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Size of the value; `None`: it is remembered that there is no such key.
    pub bytes: Option<usize>,
    /// The hash of the value.
    pub entity_tag: u64,
    /// How long it is held at most; `None`: there is no limit.
    pub left: Option<Duration>,
    /// Whether it has expired, and may still be served as stale.
    pub stale: bool,
    /// What its origin said of it.
    pub metadata: Metadata,
    /// How often it was used; `None` where the holder doesn't say.
    pub use_count: Option<u32>,
}

impl Held {
    fn of(record: &Record, use_count: Option<u32>, now: Timestamp) -> Self {
        let expires = record.expires_at;
        Self {
            bytes: (!record.is_absent()).then(|| record.value_bytes()),
            entity_tag: record.entity_tag,
            left: (expires != Timestamp::NEVER).then(|| expires.since(now)),
            stale: !record.is_fresh(now),
            metadata: record.metadata.clone(),
            use_count,
        }
    }
}

impl Group {
    /// What is known of the key here, and what the members that are to hold it have in memory.
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for an empty or oversized key.
    pub async fn explain(&self, key: &str) -> Result<Explained> {
        check_key(key)?;
        let (hashed, hash, now) = (self.hashed(key), self.hash(key), self.shared.clock.now());
        let topology = self.shared.cluster.snapshot();
        let me = topology.me();
        let ranked = topology.ranked(hash).take(ASKED).filter_map(|it| match it {
            Owner::Me => me,
            Owner::Other(member) => Some(member),
        });
        let ranked: Vec<Member> = ranked.cloned().collect();
        let others = ranked
            .iter()
            .filter(|it| it.id != *self.shared.cluster.my_id());
        let others = others.map(async |member| {
            let peeked = self.shared.peers.peek(member, &self.name, key).await;
            let now = self.shared.clock.now();
            let held = match peeked {
                Ok(peeked) => Ok(peeked.entry.map(|it| Held::of(&it.record, None, now))),
                Err(PeerError::Answered(error) | PeerError::Unreachable(error)) => {
                    Err(error.to_string())
                }
            };
            (member.id.clone(), held)
        });
        let here = |entry: Option<Entry>| {
            entry.map(|entry| Held::of(&entry.record(), Some(entry.use_count()), now))
        };
        let others = join_all(others).await;
        let (owned, hot) = (&self.shared.owned, &self.shared.hot);
        let held_owned = here(self.peek_servable(&hashed, now));
        let held_hot = here(hot.peek(&hashed, now));
        let why_gone = || owned.why_gone(&hashed).or_else(|| hot.why_gone(&hashed));
        let is_held = held_owned.is_some() || held_hot.is_some();
        Ok(Explained {
            others,
            replicated: self.shared.replicas > 1,
            owned: held_owned,
            hot: held_hot,
            last_departure: if is_held { None } else { why_gone() },
            failure: self.failures.of(hash, now),
            removed: self.tombstones.refuse(hash, now),
            sure: self.is_sure(),
            ranked,
        })
    }
}
