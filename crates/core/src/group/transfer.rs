//! Entries that come from other nodes instead of the origin: peeked at before a load, or handed
//! over.
//!
//! Removed values must not come in this way. A key that was removed lately is not accepted
//! (`tombstones`), and entries are accepted only from members, while this node is one itself
//! (`Standing::may_accept`).

use std::sync::{Arc, atomic::Ordering};

use tokio::time::timeout;

use super::{FlightOutcome, Group, MAX_KEY_BYTES, Source};
use crate::{
    cluster::Owner,
    membership::IdHash,
    ports::{Parcel, PeerAnswer, TRANSFER_TIMEOUT},
    ring::KeyHash,
    store::{Entry, Offered},
};

/// What became of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The store's word.
    Offered(Offered),
    /// Expired, removed or purged lately, or too large.
    Refused,
}

impl Group {
    /// The key's value from a member that may still hold it. Nobody is asked while the ring is old
    /// and the key this node's.
    pub(super) async fn ask_previous_owners(
        &self,
        key: &str,
        hash: KeyHash,
    ) -> Option<FlightOutcome> {
        let now = self.shared.clock.now();
        let asked = self.shared.cluster.may_hold(hash, now);
        if asked.is_empty() || self.tombstones.refuse(hash, now) {
            return None;
        }
        let peers = &self.shared.peers;
        for member in asked.iter().filter(|member| peers.usable(member)) {
            // Out of reach, or without the group: the next, and in the end the origin, will do.
            // Bounded here too: what is on its way for longer could outlast a tombstone.
            let peek = timeout(TRANSFER_TIMEOUT, peers.peek(member, self.name(), key)).await;
            let Ok(Ok(Some(answer))) = peek else {
                continue;
            };
            if let Some(outcome) = self.usable_here(&answer) {
                self.observer.asked_previous_owners(true);
                return Some(outcome);
            }
        }
        self.observer.asked_previous_owners(false);
        None
    }

    fn usable_here(&self, answer: &PeerAnswer) -> Option<FlightOutcome> {
        let fits = answer.record.value_bytes() as u64 <= self.rules.max_value;
        let fresh = answer.record.is_fresh(self.shared.clock.now());
        (fits && fresh).then(|| FlightOutcome {
            entry: Arc::new(Entry::new(&answer.record)),
            source: Source::Peer,
            uncacheable: answer.uncacheable,
        })
    }

    /// Whether this node is to hold the key, as owner or as the one who holds a copy.
    pub(super) fn holds(&self, hash: KeyHash) -> bool {
        let topology = self.shared.cluster.topology();
        topology.owner(hash) == Owner::Me
            || (self.shared.replicas > 1
                && topology
                    .ranked(hash)
                    .take(self.shared.replicas)
                    .any(|owner| owner == Owner::Me))
    }

    /// Takes an entry that another member hands over.
    pub fn accept(&self, parcel: &Parcel, sender: IdHash) -> Accepted {
        let now = self.shared.clock.now();
        let record = &parcel.record;
        let valid = (1..=MAX_KEY_BYTES).contains(&parcel.key.len());
        let fits = record.value_bytes() as u64 <= self.rules.max_value;
        if !valid || !fits || !record.is_fresh(now) {
            return Accepted::Refused;
        }
        let (key, hash) = (self.hashed(&parcel.key), self.hash(&parcel.key));
        let entry = Entry::new(record).with_use_count(parcel.use_count);
        if parcel.copy {
            entry.set_replica_at(sender);
        }
        // Under the lock that removals take: either they see the entry, or we see that the key was
        // removed.
        self.local.hold(&key, || {
            if !self.is_sure() || self.tombstones.refuse(hash, now) {
                return Accepted::Refused;
            }
            let offered = self.shared.owned.offer(&key, entry.into(), now);
            if offered == Offered::Kept {
                self.shared.copies.wanted(self.id, key.text());
            }
            Accepted::Offered(offered)
        })
    }

    /// From now on nothing is taken over any more: this node is handing over what it has itself.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether [`Group::leave`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }
}
