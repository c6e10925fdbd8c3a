//! Read-through: memory, then the owner, then the origin; and the way back, removal.
//!
//! Two stores and two kinds of flight keep the invariants simple:
//! - `owned` holds the entries that this node is to hold: loaded from the origin, or handed over by
//!   a previous holder (`transfer`). `hot` holds only copies of other members' entries. Peers are
//!   answered from `owned` alone, so a hot copy is never copied again.
//! - A *local* flight peeks at previous owners and loads from the origin. A *remote* flight asks a
//!   peer and may end in a local one, never the other way round. So two nodes that each take the
//!   other for the owner can't wait for each other (mailgun/groupcache#72). A peek never waits for
//!   a flight.

mod ahead;
mod explain;
mod failures;
mod groups;
mod held;
mod load;
mod local;
mod many;
mod parts;
mod remote;
mod removal;
mod stale;
mod together;
mod tombstones;
mod transfer;

use std::sync::{Arc, atomic::AtomicBool};

use ahead::Ahead;
use arc_swap::ArcSwap;
pub use explain::{Explained, Held, Told};
use failures::Failures;
pub use groups::{GroupChanges, Groups};
pub use held::Batch;
pub use many::Room;
pub use parts::{
    Answer, GROUP_NAME_RULE, GroupRules, MAX_GROUP_NAME_BYTES, Query, Shared, Wanted, is_group_name,
};
use tombstones::Tombstones;

use super::{
    cluster::Owner,
    flight::{Flights, Sharing},
    key::GroupId,
    key::HashedKey,
    record::Record,
    ring::{KeyHash, group_seed, hash_key},
    store::Entry,
};
use crate::{
    absence::NotFoundBody,
    askers::Asker,
    error::{Error, ErrorKind, Result},
    ports::{GroupObserver, LoadQueue, Peeked, PeerAnswer, TRANSFER_TIMEOUT, Timestamp},
};

pub use crate::ports::{Course, Source};

/// The longest key that is taken, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 4096;

/// What a flight brings: the entry and where it came from.
#[derive(Clone, Debug)]
struct FlightOutcome {
    entry: Entry,
    source: Source,
    course: Course,
    uncacheable: bool,
}

impl FlightOutcome {
    fn hit(entry: Entry) -> Self {
        Self {
            entry,
            source: Source::Hit,
            course: Course::default(),
            uncacheable: false,
        }
    }
}

/// One group of keys with one origin.
pub struct Group {
    id: GroupId,
    name: Arc<str>,
    seed: u64,
    /// What it is at the moment; see [`Group::adjust`].
    now: ArcSwap<Wanted>,
    observer: Arc<dyn GroupObserver>,
    shared: Shared,
    local: Flights<Result<FlightOutcome>>,
    remote: Flights<Landed>,
    tombstones: Tombstones,
    failures: Failures,
    ahead: Ahead,
    /// Takes nothing over any more; see [`Group::leave`].
    leaving: AtomicBool,
}

impl Group {
    /// A group; `id` is its number within this node.
    pub fn new(
        id: GroupId,
        rules: GroupRules,
        origin: Arc<dyn LoadQueue>,
        observer: Arc<dyn GroupObserver>,
        shared: Shared,
    ) -> Self {
        let tombstones = Tombstones::new(shared.standing.tombstone());
        Self {
            id,
            name: rules.name.clone(),
            seed: group_seed(&rules.name),
            failures: Failures::default(),
            ahead: Ahead::default(),
            now: ArcSwap::from_pointee(Wanted { rules, origin }),
            observer,
            shared,
            local: Flights::new(),
            remote: Flights::new(),
            tombstones,
            leaving: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its rules at the moment.
    pub fn rules(&self) -> GroupRules {
        self.now.load().rules.clone()
    }

    /// Where its values come from at the moment.
    pub fn origin(&self) -> Arc<dyn LoadQueue> {
        self.now.load().origin.clone()
    }

    /// The largest value that it takes at the moment.
    fn max_value(&self) -> u64 {
        self.now.load().rules.max_value
    }

    /// From now on loads from this origin, by these rules. What is held stays, for as long as it
    /// was to stay.
    pub(super) fn adjust(&self, wanted: Wanted) {
        self.ahead.forget();
        self.now.store(Arc::new(wanted));
    }

    /// Its number within this node.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The key, hashed for the tables of this node.
    fn hashed<'a>(&self, key: &'a str) -> HashedKey<'a> {
        HashedKey::new(self.id, key)
    }

    /// The key's place in hash space, which is the same on every node.
    pub fn hash(&self, key: &str) -> KeyHash {
        hash_key(self.seed, key)
    }

    /// The value of `key`, wherever it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for an empty or oversized key, [`ErrorKind::NotFound`] if the
    /// origin has no such key, and what the load ended with otherwise.
    pub async fn get(self: &Arc<Self>, key: &str) -> Result<Answer> {
        check_key(key)?;
        if let Some(held) = self.held(key, self.shared.clock.now()) {
            return held;
        }
        let key = self.hashed(key);
        let hash = self.hash(key.text());
        let mine = self.shared.cluster.topology().owner(hash) == Owner::Me && self.is_sure();
        let outcome = if mine {
            self.get_here(&key, hash).await
        } else {
            self.ask_owner(&key, hash).await
        }?;
        self.answer(outcome, || hash)
    }

    /// The answer to a get where this node's memory has it.
    fn held(self: &Arc<Self>, key: &str, now: Timestamp) -> Option<Result<Answer>> {
        let key = self.hashed(key);
        let entry = self.find(&key, now)?;
        self.refresh_ahead(&key, &entry);
        Some(self.answer(FlightOutcome::hit(entry), || self.hash(key.text())))
    }

    /// Answers another node: from what this node holds, or by loading it now. Never forwarded,
    /// whatever our ring says.
    ///
    /// # Errors
    /// As [`Group::get`], except that a missing key is an answer without a value.
    pub async fn answer_peer(self: &Arc<Self>, key: &str) -> Result<PeerAnswer> {
        if let Some(held) = self.held_for_peer(key) {
            return held;
        }
        let outcome = self.get_here(&self.hashed(key), self.hash(key)).await?;
        Ok(to_peer(&outcome))
    }

    /// The load of this key, if one is under way here, is for these, too; whether one is.
    pub fn also_wanted(&self, key: &str, askers: &[Asker]) -> bool {
        self.local.also_wanted(&self.hashed(key), askers)
    }

    /// Whether other members may be answered at all.
    fn may_answer_peers(&self, now: Timestamp) -> Result<()> {
        if self.shared.standing.fence.is_open(now) {
            return Ok(());
        }
        // Another member's memory may have it, and this node would load it without keeping it.
        let why = "this node can't be certain right now that it is a member";
        Err(Error::new(ErrorKind::NotReady, why))
    }

    /// What this node holds of the key; never loads, and doesn't count as a use.
    pub fn peek_for_peer(&self, key: &str) -> Peeked {
        // Read before the store, so that everything it covers has already left.
        let settled = self.shared.cluster.settled();
        // What it has can't be seen while it is not sure to be a member.
        let settled = if self.is_sure() { settled } else { 0 };
        let now = self.shared.clock.now();
        let entry = self.shared.owned.peek(&self.hashed(key), now);
        Peeked {
            entry: entry.map(|entry| to_peer(&FlightOutcome::hit(entry))),
            settled,
        }
    }

    /// Whether this node is sure to be a member: only then it answers from memory, keeps what it
    /// gets, and shares flights.
    fn is_sure(&self) -> bool {
        let standing = &self.shared.standing;
        standing.fence.is_open(self.shared.clock.now())
    }

    /// Which flights a get of this node may share where a flight may bring what another member
    /// holds.
    fn sharing(&self, hash: KeyHash) -> Sharing {
        let now = self.shared.clock.now();
        // What a flight brings may have any tag.
        let removed = self.tombstones.refuse(hash, now) || self.tombstones.has_tags(now);
        if removed || !self.is_sure() {
            // A member that is notified later than this one may still hand out the old value; and
            // once off the list, this node is not notified of removals that would ground its
            // flights.
            Sharing::Next
        } else {
            // A flight that departed under a tombstone that has since expired may return the
            // removed value.
            Sharing::Younger(TRANSFER_TIMEOUT)
        }
    }

    fn find(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        let owned = self.shared.owned.get(key, now);
        owned.or_else(|| self.shared.hot.get(key, now))
    }

    fn find_owned(&self, key: &HashedKey<'_>) -> Option<Entry> {
        self.shared.owned.get(key, self.shared.clock.now())
    }

    fn answer(&self, outcome: FlightOutcome, hash: impl FnOnce() -> KeyHash) -> Result<Answer> {
        let entry = outcome.entry;
        if entry.is_absent() {
            return Err(self.no_such_key(&entry.record()));
        }
        Ok(Answer {
            expires_at: entry.expires_at(),
            entity_tag: entry.entity_tag(),
            source: outcome.source,
            owner: self.owner_of(&entry, hash),
            metadata: entry.metadata().clone(),
            course: outcome.course,
            // Last: the value takes the handle along.
            value: entry.into_value().unwrap_or_default(),
        })
    }

    /// With what the origin said in place of the value.
    fn no_such_key(&self, record: &Record) -> Error {
        let error = Error::not_found(format!("group '{}' has no such key", self.name));
        match &record.value {
            Some(body) => {
                let said = record.metadata.of_headers_alone();
                error.with_source(NotFoundBody::new(body.clone(), said))
            }
            None => error,
        }
    }

    /// The id of the entry's owner, computed once for each topology.
    fn owner_of(&self, entry: &Entry, hash: impl FnOnce() -> KeyHash) -> Arc<str> {
        let topology = self.shared.cluster.topology();
        let noted = entry.owner_in(topology.number());
        let index = noted.or_else(|| {
            let index = topology.owner_index(hash())?;
            entry.note_owner(topology.number(), index);
            Some(index)
        });
        let owner = index.and_then(|index| topology.id_for_answer(index));
        owner.unwrap_or_default()
    }
}

/// What a remote flight brings; `None`: the value is too large for the batch that asked for it, and
/// has to be asked for alone.
type Landed = Result<Option<FlightOutcome>>;

fn to_peer(outcome: &FlightOutcome) -> PeerAnswer {
    PeerAnswer {
        record: outcome.entry.record(),
        source: match outcome.source {
            // Who asked need not know of a third node.
            Source::Peer => Source::Hit,
            source => source,
        },
        course: outcome.course,
        uncacheable: outcome.uncacheable,
    }
}

fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0 => Err(Error::new(ErrorKind::InvalidRequest, "the key is empty")),
        1..=MAX_KEY_BYTES => Ok(()),
        length => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("the key has {length} bytes; at most {MAX_KEY_BYTES} are taken"),
        )),
    }
}

fn abandoned(key: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!(
            "the load of a key of {} bytes panicked; see the log",
            key.len()
        ),
    )
}

#[cfg(test)]
mod tests;
