//! Entries that come from other nodes instead of the origin: peeked at before a load, or handed
//! over.
//!
//! Removed values must not come in this way. A key that was removed recently is not accepted
//! (`tombstones`), and entries are accepted only from members, while this node is one itself
//! (`Standing::may_accept`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::{Course, FlightOutcome, Group, MAX_KEY_BYTES, Source};
use crate::{
    cluster::Owner,
    key::HashedKey,
    membership::Member,
    ports::{Fate, Handed, Parcel, Peeked, PeerAnswer, Sender, TRANSFER_TIMEOUT, Timestamp},
    record::Record,
    ring::KeyHash,
    store::{Entry, Offered},
};

/// Members that are asked for a key at the same time.
const ASKED_AT_ONCE: usize = 8;
/// Bound on peeking for a key at other members, all of them together.
const PEEKS: Duration = Duration::from_secs(2);
impl Group {
    /// The key's value from a member that may still hold it. No member is asked once the last move
    /// has ended and the key is this node's.
    pub(super) async fn ask_previous_owners(
        &self,
        key: &str,
        hash: KeyHash,
    ) -> Option<FlightOutcome> {
        let asked = self.shared.cluster.may_hold(hash);
        if asked.is_empty() || self.tombstones.refuse(hash, self.shared.clock.now()) {
            return None;
        }
        // Bounded also because what is on its way for too long could outlast a tombstone.
        let found = timeout(PEEKS.min(TRANSFER_TIMEOUT), self.ask_all(asked, key)).await;
        let found = found.ok().flatten();
        self.observer.asked_previous_owners(found.is_some());
        found
    }

    /// Asks all of them, several at a time, until one has it.
    async fn ask_all(&self, members: Vec<Member>, key: &str) -> Option<FlightOutcome> {
        let usable = members
            .into_iter()
            .filter(|it| self.shared.peers.usable(it));
        let usable: Vec<Member> = usable.collect();
        let (peers, cluster) = (self.shared.peers.clone(), self.shared.cluster.clone());
        let hashed = self.hashed(key);
        let (group, key): (_, Arc<str>) = (self.name().clone(), key.into());
        let asking = usable.into_iter().map(move |member| {
            let (peers, cluster) = (peers.clone(), cluster.clone());
            let (group, key) = (group.clone(), key.clone());
            async move {
                // Out of reach, or without the group: the others, and in the end the origin, will
                // do.
                let Peeked { entry, settled } = peers.peek(&member, &group, &key).await.ok()?;
                cluster.heard(&member, settled);
                entry
            }
        });
        let mut answers = stream::iter(asking).buffer_unordered(ASKED_AT_ONCE);
        while let Some(answer) = answers.next().await {
            if let Some(outcome) = answer.and_then(|entry| self.usable_here(&hashed, &entry)) {
                // Many calls that are dropped half-way look like an attack to a peer.
                self.shared.spawn(answers.for_each(async |_| {}));
                return Some(outcome);
            }
        }
        None
    }

    fn usable_here(&self, key: &HashedKey<'_>, answer: &PeerAnswer) -> Option<FlightOutcome> {
        let now = self.shared.clock.now();
        let record = self.believed(&answer.record, now)?;
        let removed = self.tombstones.refuse_tags(&record.metadata, now);
        (record.is_fresh(now) && !removed).then(|| FlightOutcome {
            entry: Entry::new(key, &record),
            source: Source::Peer,
            course: Course::default(),
            uncacheable: answer.uncacheable,
        })
    }

    /// What another member says about a key, as far as this node can check it: its size, its
    /// lifetime, and the tag of its value. `None` if it is of no use here.
    fn believed(&self, record: &Record, now: Timestamp) -> Option<Record> {
        let max_value = self.max_value();
        let record = &record.clone().with_little_absence(max_value);
        if record.value_bytes() as u64 > max_value || !record.is_usable(now) {
            return None;
        }
        let mut record = self.now.load().rules.within_life(record, now)?;
        record.entity_tag = record.value.as_deref().map_or(0, xxh3_64);
        Some(record)
    }

    /// Whether this node should hold the key, as its owner or as the holder of a copy.
    pub(super) fn holds(&self, hash: KeyHash) -> bool {
        let topology = self.shared.cluster.topology();
        topology.owner(hash) == Owner::Me
            || (self.shared.replicas > 1
                && topology
                    .ranked(hash)
                    .take(self.shared.replicas)
                    .any(|owner| owner == Owner::Me))
    }

    /// Whether an entry from that sender may be taken. An entry that neither belongs here nor was
    /// the sender's to give would be stranded where no member looks for it. If this node doesn't
    /// see yet that it is to hold the entry, the sender's ring has to be no older than its own.
    fn is_place_for(&self, hash: KeyHash, sender: Sender) -> bool {
        let topology = self.shared.cluster.topology();
        self.holds(hash)
            || (sender.revision >= topology.view.revision
                && matches!(topology.owner(hash), Owner::Other(it) if it.incarnation() == sender.member))
    }

    /// Takes an entry that another member hands over, or, for an announcement, reports what it
    /// would do with it.
    pub fn accept(&self, parcel: &Parcel, sender: Sender) -> Fate {
        let now = self.shared.clock.now();
        let valid = (1..=MAX_KEY_BYTES).contains(&parcel.key.len());
        let handed = match &parcel.what {
            Handed::Over(record) => self.believed(record, now).map(Handed::Over),
            Handed::Announced { value_bytes } => {
                let fits = *value_bytes <= self.max_value();
                fits.then(|| parcel.what.clone())
            }
        };
        let Some(handed) = handed.filter(|_| valid) else {
            return Fate::Refused;
        };
        let (key, hash) = (self.hashed(&parcel.key), self.hash(&parcel.key));
        if !self.is_place_for(hash, sender) {
            return Fate::Misdirected;
        }
        // Under the lock that removals take: either they see the entry, or we see that the key was
        // removed.
        self.local.hold(&key, || {
            // Before the look at the tombstones: a tag that is purged after it is seen by this.
            let under_way = self.shared.owned.departs(self.id);
            let removed = match &handed {
                Handed::Over(record) => self.tombstones.refuse_tags(&record.metadata, now),
                Handed::Announced { .. } => false,
            };
            if !self.is_sure() || removed || self.tombstones.refuse(hash, now) {
                return Fate::Refused;
            }
            match &handed {
                Handed::Over(record) => {
                    let entry = Entry::new(&key, record).with_use_count(parcel.use_count);
                    match under_way.brings(&entry) {
                        true => self.keep(&key, entry, parcel, sender, now),
                        false => Fate::Refused,
                    }
                }
                Handed::Announced { value_bytes } => {
                    let store = &self.shared.owned;
                    match store.would_keep_copy(&key, *value_bytes, parcel.use_count, now) {
                        Offered::Kept => Fate::Wanted,
                        Offered::Known => Fate::Held,
                        Offered::Full => Fate::Full,
                    }
                }
            }
        })
    }

    fn keep(
        &self,
        key: &HashedKey<'_>,
        entry: Entry,
        parcel: &Parcel,
        sender: Sender,
        now: Timestamp,
    ) -> Fate {
        if parcel.copy {
            entry.set_replica_at(sender.member);
            // The other holder is the one that sent it.
            entry.set_announced();
        }
        match self.shared.owned.offer(entry, now) {
            Offered::Kept => {
                self.shared.copies.wanted(self.id, key.text());
                Fate::Kept
            }
            Offered::Known => Fate::Known,
            Offered::Full => Fate::Full,
        }
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
