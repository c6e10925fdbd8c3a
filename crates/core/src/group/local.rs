//! Local flights: a key that this node is to load, for its clients or for other nodes.
//!
//! They peek at previous owners and ask the origin. They must never ask another node to load.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{FlightOutcome, Group, Source, failures, many::LoadSeat};
use crate::{
    cluster::Owner,
    error::Result,
    flight::{Leader, Sharing},
    key::HashedKey,
    ports::Timestamp,
    ring::KeyHash,
    store::Entry,
};

/// The duty to load one key.
pub(super) type Duty = Leader<Result<FlightOutcome>>;

/// Why a local flight departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For those who wait for it. If they all give up before the load begins, it doesn't begin.
    Answer,
    /// In place of a value whose life is over. The load begins whoever waits for it: they may have
    /// been answered with the old value.
    Refresh,
    /// In place of a value whose life will soon be over, at that moment.
    Ahead(Timestamp),
}

/// How a local flight departs.
pub(super) struct Departure {
    pub(super) why: Purpose,
    /// If it loads as a part of a batch.
    pub(super) seat: Option<LoadSeat>,
}

impl From<Purpose> for Departure {
    fn from(why: Purpose) -> Self {
        Self { why, seat: None }
    }
}

/// A place in a flight.
pub(super) struct Waiting {
    pub(super) waiter: oneshot::Receiver<Result<FlightOutcome>>,
    /// Another has begun the flight.
    pub(super) collapsed: bool,
}

impl Group {
    /// Joins the load of the key, or begins it, once for all who ask this node at the same moment.
    pub(super) fn join_here(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        departure: Departure,
    ) -> Waiting {
        // Under a tombstone these flights ask only the origin, so they may be shared.
        let sharing = if self.is_sure() {
            Sharing::UnderWay
        } else {
            Sharing::Next
        };
        let joined = self.local.join(key, sharing, (self.shared.askers)());
        let collapsed = joined.leader.is_none();
        if let Some(leader) = joined.leader {
            self.depart(key, hash, leader, departure);
        }
        Waiting {
            waiter: joined.waiter,
            collapsed,
        }
    }

    /// Loads the entry that was asked for anew, if it expires soon. Only its owner does.
    pub(super) fn refresh_ahead(self: &Arc<Self>, key: &HashedKey<'_>, entry: &Entry) {
        let expires_at = entry.expires_at();
        // First, since it costs nearly nothing while this is off.
        if !self.ahead.is_on() || expires_at == Timestamp::NEVER {
            return;
        }
        let now = self.shared.clock.now();
        if !self.ahead.may_be_due(expires_at, now) {
            return;
        }
        let hash = self.hash(key.text());
        if self.ahead.is_due(hash, expires_at, now)
            && self.shared.cluster.topology().owner(hash) == Owner::Me
        {
            self.join_here(key, hash, Purpose::Ahead(expires_at).into());
        }
    }

    /// Flies in a task of its own.
    fn depart(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        leader: Duty,
        departure: Departure,
    ) {
        let (group, text) = (self.clone(), key.text().to_owned());
        self.shared.spawn(async move {
            let key = group.hashed(&text);
            let mut next = Some((leader, departure));
            while let Some((duty, departure)) = next {
                let again = group.fly_locally(&key, hash, duty, departure).await;
                next = again.map(|duty| (duty, Purpose::Answer.into()));
            }
        });
    }

    /// One flight; returns the duty to fly again, if somebody waits for that.
    async fn fly_locally(
        &self,
        key: &HashedKey<'_>,
        hash: KeyHash,
        leader: Duty,
        departure: Departure,
    ) -> Option<Duty> {
        let fence = &self.shared.standing.fence;
        let pass = fence.pass(self.shared.clock.now());
        let under_way = self.shared.owned.departs(self.id);
        let result = match self.find_instead(key, hash, departure.why).await {
            Some(Found::Here(entry)) => {
                return leader.land(Ok(FlightOutcome::hit(entry)), || {});
            }
            Some(Found::Elsewhere(outcome)) => Ok(outcome),
            None => match self.failures.of(hash, self.shared.clock.now()) {
                Some(error) => {
                    let result = self.or_stale(key, Err(error));
                    return leader.land(result, || {});
                }
                None => self.load(key, hash, &leader, departure).await,
            },
        };
        let kept = result.as_ref().ok().filter(|outcome| {
            // What another member holds is kept only where it belongs. What was loaded is kept
            // where it was loaded, or it would be loaded again.
            !outcome.uncacheable && (outcome.source == Source::Origin || self.holds(hash))
        });
        let kept = kept.map(|outcome| outcome.entry.clone());
        let error_ttl = self.now.load().rules.error_ttl;
        let result = result.map_err(|error| failures::with_time(error, error_ttl));
        let failed = result.as_ref().err().cloned();
        let replaced = matches!(&result, Ok(outcome) if outcome.uncacheable);
        let result = self.or_stale(key, result);
        leader.land(result, || {
            let now = self.shared.clock.now();
            if let Some(error) = failed {
                self.failures.note(hash, &error, error_ttl, now);
            }
            // Only if the fence was open all the time: otherwise this node may have missed a
            // removal.
            let sure = pass.is_some_and(|pass| fence.still(pass, now));
            let Some(entry) = kept.filter(|_| sure) else {
                if replaced {
                    // The origin's answer is not kept; the value before it must not come back as a
                    // stale one.
                    self.shared.owned.remove(key);
                }
                return;
            };
            if !under_way.brings(&entry) {
                return;
            }
            if self.shared.owned.insert(entry) {
                self.shared.copies.wanted(self.id, key.text());
            } else {
                self.observer.refused_by_store();
            }
        })
    }

    /// What makes a load needless.
    async fn find_instead(
        &self,
        key: &HashedKey<'_>,
        hash: KeyHash,
        why: Purpose,
    ) -> Option<Found> {
        if let Purpose::Ahead(over) = why {
            // Another flight may have landed since that value was seen.
            let newer = self.find_owned(key);
            let newer = newer.filter(|entry| entry.expires_at() != over);
            return newer.map(Found::Here);
        }
        // A second look into memory: we may have missed while an earlier flight was under way, and
        // joined after it landed. It stored its value before it left the table, so now we must see
        // it. Without this, the origin would be asked twice.
        if let Some(entry) = self.find_owned(key) {
            return Some(Found::Here(entry));
        }
        if let Some(outcome) = self.ask_previous_owners(key.text(), hash).await {
            return Some(Found::Elsewhere(outcome));
        }
        // Once more in memory: a member hands an entry over and then drops it, perhaps just before
        // it was asked.
        self.find_owned(key).map(Found::Here)
    }
}

/// What makes a load needless.
enum Found {
    /// In this node's memory.
    Here(Entry),
    /// In that of a member that owned the key before.
    Elsewhere(FlightOutcome),
}
