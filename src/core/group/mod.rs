//! Read-through: memory, then the owner, then the origin; and the way back, invalidation.
//!
//! Two stores and two kinds of flight keep the invariants simple:
//! - `owned` holds what this node is to hold, loaded from the origin or taken over from who held it before (`transfer`); `hot` only copies
//!   of what another node holds as owned. A peer is answered from `owned` alone, so a hot copy is never copied again.
//! - a *local* flight looks around and loads from the origin, a *remote* one asks a peer and may end in a local one; never the other way
//!   round, so two nodes that each take the other for the owner can't wait for each other (mailgun/groupcache#72). A look waits for nothing.

mod groups;
mod invalidate;
mod parts;
mod tombstones;
mod transfer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

pub use groups::Groups;
pub use parts::{Answer, GroupRules, Shared, Source};
pub use tombstones::TRANSFER_TIMEOUT;
use tombstones::Tombstones;
pub use transfer::Taken;

use super::{
    cluster::Owner,
    flight::{Boarding, Flights, Ticket},
    membership::{IdHash, Member},
    ring::{KeyHash, group_seed, hash_key},
    store::{Entry, GroupId},
};
use crate::{
    error::{Error, ErrorKind, Result},
    ports::{Freshness, GroupObserver, Loaded, Origin, PeerAnswer, PeerError, Timestamp},
};

/// The longest key that is taken, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 4096;

/// How many stand-ins are tried for an owner that is out of reach, before this node loads the value itself.
const MAX_STAND_INS: usize = 2;

/// How far the clocks of two members may be apart: by so much a value may seem to have expired already when its owner finds it fresh.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// What a flight brings: the entry and where it came from.
#[derive(Clone, Debug)]
struct Cargo {
    entry: Arc<Entry>,
    source: Source,
    uncacheable: bool,
}

impl Cargo {
    fn hit(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            source: Source::Hit,
            uncacheable: false,
        }
    }
}

/// One group of keys with one origin.
pub struct Group {
    id: GroupId,
    seed: u64,
    rules: GroupRules,
    origin: Arc<dyn Origin>,
    observer: Arc<dyn GroupObserver>,
    shared: Shared,
    local: Flights<Result<Cargo>>,
    remote: Flights<Result<Cargo>>,
    tombstones: Tombstones,
    /// Takes nothing over any more; see [`Group::leave`].
    leaving: AtomicBool,
    /// Keeps nothing any more; see [`Group::retire`].
    retired: AtomicBool,
}

impl Group {
    /// A group; `id` is its number within this node.
    pub fn new(
        id: GroupId,
        rules: GroupRules,
        origin: Arc<dyn Origin>,
        observer: Arc<dyn GroupObserver>,
        shared: Shared,
    ) -> Self {
        Self {
            id,
            seed: group_seed(&rules.name),
            rules,
            origin,
            observer,
            shared,
            local: Flights::new(),
            remote: Flights::new(),
            tombstones: Tombstones::default(),
            leaving: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.rules.name
    }

    /// Its number within this node.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The key's place in hash space.
    pub fn hash(&self, key: &str) -> KeyHash {
        hash_key(self.seed, key)
    }

    /// The value of `key`, wherever it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for an empty or oversized key, [`ErrorKind::NotFound`] if the origin has no such key, and
    /// what the load ended with otherwise.
    pub async fn get(self: &Arc<Self>, key: &str) -> Result<Answer> {
        check_key(key)?;
        if let Some(entry) = self.look(key) {
            return self.answer(key, &entry, Source::Hit);
        }
        let hash = self.hash(key);
        let mine = self.shared.cluster.topology().owner(hash) == Owner::Me;
        let cargo = if mine {
            self.load_here(key).await
        } else {
            self.ask_owner(key, hash).await
        }?;
        self.answer(key, &cargo.entry, cargo.source)
    }

    /// Answers another node: from what this node holds, or by loading it now. Never forwarded, whatever our ring says.
    ///
    /// # Errors
    /// As [`Group::get`], except that a missing key is an answer without a value.
    pub async fn answer_peer(self: &Arc<Self>, key: &str, asker: IdHash) -> Result<PeerAnswer> {
        check_key(key)?;
        let cargo = match self.look_owned(key) {
            Some(entry) => Cargo::hit(entry),
            None => self.load_here(key).await?,
        };
        Ok(self.to_peer(&cargo, asker))
    }

    /// What this node holds of the key; never loads, and doesn't count as a use.
    pub fn look_for_peer(&self, key: &str, asker: IdHash) -> Option<PeerAnswer> {
        let now = self.shared.clock.now();
        let entry = self.shared.owned.peek(self.id, key, now)?;
        Some(self.to_peer(&Cargo::hit(entry), asker))
    }

    /// From now on nothing is kept here, and what was kept is gone: for a node that invalidations no longer reach.
    pub fn retire(&self) {
        // The flag first: a flight that lands after the purge sees it, since landings and groundings share a lock.
        self.retired.store(true, Ordering::SeqCst);
        self.invalidate_here(None);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    fn look(&self, key: &str) -> Option<Arc<Entry>> {
        let now = self.shared.clock.now();
        self.shared
            .owned
            .get(self.id, key, now)
            .or_else(|| self.shared.hot.get(self.id, key, now))
    }

    fn look_owned(&self, key: &str) -> Option<Arc<Entry>> {
        self.shared.owned.get(self.id, key, self.shared.clock.now())
    }

    fn answer(&self, key: &str, entry: &Entry, source: Source) -> Result<Answer> {
        let Some(value) = &entry.value else {
            return Err(Error::not_found(format!(
                "group '{}' has no such key",
                self.rules.name
            )));
        };
        let topology = self.shared.cluster.topology();
        let owner = topology.owner_id(self.hash(key));
        Ok(Answer {
            value: value.clone(),
            expires_at: entry.expires_at,
            entity_tag: entry.entity_tag,
            source,
            owner: owner.cloned().unwrap_or_default(),
        })
    }

    fn to_peer(&self, cargo: &Cargo, asker: IdHash) -> PeerAnswer {
        PeerAnswer {
            value: cargo.entry.value.clone(),
            expires_at: cargo.entry.expires_at,
            entity_tag: cargo.entry.entity_tag,
            was_hit: cargo.source != Source::Origin,
            // A removal told by our list of members would not reach who is not on it.
            uncacheable: cargo.uncacheable || !self.shared.cluster.topology().knows(asker),
        }
    }

    /// Gets the value here, once for all who ask this node at the same moment.
    async fn load_here(self: &Arc<Self>, key: &str) -> Result<Cargo> {
        let boarding = self.board(&self.local, key);
        if let Some(ticket) = boarding.ticket {
            let (group, key) = (self.clone(), key.to_owned());
            self.shared
                .spawn(async move { group.fly_locally(&key, ticket).await });
        } else {
            self.observer.waited_for_flight();
        }
        boarding.seat.await.unwrap_or_else(|_| Err(abandoned(key)))
    }

    /// A seat in the key's flight. Once retired, a node boards no flight that is under way: nobody grounds it any more when the key is
    /// removed, so it may bring what was removed before it was asked for (the simulation found this).
    fn board(&self, flights: &Flights<Result<Cargo>>, key: &str) -> Boarding<Result<Cargo>> {
        if self.is_retired() {
            flights.ground(key, || ());
        }
        flights.board(key)
    }

    async fn fly_locally(&self, key: &str, ticket: Ticket<Result<Cargo>>) {
        // A second look: we may have missed in memory while an earlier flight was under way, and boarded after it landed. It
        // stored its value before it left the table, so now we must see it; without this look the origin is asked twice.
        if let Some(entry) = self.look_owned(key) {
            return ticket.land(Ok(Cargo::hit(entry)), || {});
        }
        let hash = self.hash(key);
        let result = match self.look_around(key, hash).await {
            Some(cargo) => Ok(cargo),
            // Once more here: a member hands an entry over and drops it then, perhaps just before it was asked.
            None => match self.look_owned(key) {
                Some(entry) => return ticket.land(Ok(Cargo::hit(entry)), || {}),
                None => self.load(key).await,
            },
        };
        let kept = result.as_ref().ok().filter(|cargo| {
            // What another member holds is kept only where it belongs; what was loaded, wherever it was loaded, or it would be again.
            !cargo.uncacheable && (cargo.source == Source::Origin || self.holds(hash))
        });
        let kept = kept.map(|cargo| cargo.entry.clone());
        ticket.land(result, || {
            let Some(entry) = kept.filter(|_| !self.is_retired()) else {
                return;
            };
            if self.shared.owned.insert(self.id, key, entry) {
                self.shared.copies.wanted(self.id, key);
            } else {
                self.observer.refused_by_store();
            }
        });
    }

    async fn load(&self, key: &str) -> Result<Cargo> {
        let loaded = self.origin.load(key).await;
        let now = self.shared.clock.now();
        let cargo = |value: Option<&[u8]>, expires_at, uncacheable| Cargo {
            entry: Arc::new(Entry::owned(value, expires_at, value.map_or(0, xxh3_64))),
            source: Source::Origin,
            uncacheable,
        };
        match loaded {
            Ok(loaded) => {
                self.check_value(&loaded.value)?;
                let (expires_at, uncacheable) = self.expiry(&loaded, now);
                Ok(cargo(Some(&loaded.value), expires_at, uncacheable))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let ttl = self.rules.negative_ttl;
                Ok(cargo(None, now.after(ttl), ttl.is_zero()))
            }
            Err(error) => Err(error),
        }
    }

    fn check_value(&self, value: &Bytes) -> Result<()> {
        if value.len() as u64 <= self.rules.max_value {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ValueTooLarge,
            format!(
                "the origin's value has {} bytes; group '{}' takes {} (max_value)",
                value.len(),
                self.rules.name,
                self.rules.max_value
            ),
        ))
    }

    /// When a value loaded now expires, and whether it must not be kept at all.
    fn expiry(&self, loaded: &Loaded, now: Timestamp) -> (Timestamp, bool) {
        match loaded.freshness {
            Freshness::Uncacheable => (now, true),
            Freshness::For(ttl) => (now.after(ttl), ttl.is_zero()),
            Freshness::Unsaid => match self.rules.ttl {
                Some(ttl) => (now.after(ttl), ttl.is_zero()),
                None => (Timestamp::NEVER, false),
            },
        }
    }

    /// Asks the owner, or who stands in for it, once for all who ask this node at the same moment.
    async fn ask_owner(self: &Arc<Self>, key: &str, hash: KeyHash) -> Result<Cargo> {
        let hot = self.shared.hot_keys.count(hash, self.shared.clock.now());
        let boarding = self.board(&self.remote, key);
        if let Some(ticket) = boarding.ticket {
            let (group, key) = (self.clone(), key.to_owned());
            self.shared
                .spawn(async move { group.fly_remotely(&key, hash, hot, ticket).await });
        } else {
            self.observer.waited_for_flight();
        }
        boarding.seat.await.unwrap_or_else(|_| Err(abandoned(key)))
    }

    async fn fly_remotely(
        self: &Arc<Self>,
        key: &str,
        hash: KeyHash,
        hot: bool,
        ticket: Ticket<Result<Cargo>>,
    ) {
        let result = self.fetch(key, hash).await;
        let copy = result
            .as_ref()
            .ok()
            .filter(|(cargo, from_peer)| hot && *from_peer && !cargo.uncacheable)
            .map(|(cargo, _)| cargo.entry.clone());
        ticket.land(result.map(|(cargo, _)| cargo), || {
            if let Some(entry) = copy
                && !self.is_retired()
                && self.shared.hot.insert(self.id, key, entry)
            {
                self.observer.kept_hot_copy();
            }
        });
    }

    /// The value from the owner or a stand-in; true beside it if it came from a peer, false if we ended up loading it.
    async fn fetch(self: &Arc<Self>, key: &str, hash: KeyHash) -> Result<(Cargo, bool)> {
        let topology = self.shared.cluster.shared();
        let owner = topology.owner(hash);
        if let Some(answer) = self.try_member(owner, key).await {
            return answer.map(|cargo| (cargo, true));
        }
        let stand_ins = topology.ranked(hash).skip(1).take(MAX_STAND_INS);
        for stand_in in stand_ins.take_while(|stand_in| *stand_in != Owner::Me) {
            if let Some(answer) = self.try_member(stand_in, key).await {
                return answer.map(|cargo| (cargo, true));
            }
        }
        self.load_here(key).await.map(|cargo| (cargo, false))
    }

    /// One peer's answer; `None` if it is us, set aside, or out of reach.
    async fn try_member(&self, owner: Owner<'_>, key: &str) -> Option<Result<Cargo>> {
        let Owner::Other(member) = owner else {
            return None;
        };
        if !self.shared.peers.usable(member) {
            return None;
        }
        match self.fetch_from(member, key).await {
            Ok(cargo) => Some(Ok(cargo)),
            Err(PeerError::Answered(error)) => Some(Err(error)),
            Err(PeerError::Unreachable(_)) => None,
        }
    }

    async fn fetch_from(&self, member: &Member, key: &str) -> Result<Cargo, PeerError> {
        let peers = &self.shared.peers;
        let answer = peers.fetch(member, &self.rules.name, key).await?;
        let now = self.shared.clock.now();
        if answer.expires_at.after(CLOCKS_DIFFER) <= now {
            // It was long on its way (the simulation found this): ask on.
            return Err(PeerError::Unreachable(Error::new(
                ErrorKind::PeerUnreachable,
                format!(
                    "the answer of {} came after its value had expired",
                    member.id
                ),
            )));
        }
        Ok(Cargo {
            source: if answer.was_hit {
                Source::Peer
            } else {
                Source::Origin
            },
            // Clocks differ a little: what has just expired by ours is served, since its owner found it fresh, but not kept.
            uncacheable: answer.uncacheable || answer.expires_at <= now,
            entry: Arc::new(Entry::owned(
                answer.value.as_deref(),
                answer.expires_at,
                answer.entity_tag,
            )),
        })
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
        format!("the load of a key of {} bytes died; see the log", key.len()),
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
