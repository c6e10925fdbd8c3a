//! Local flights: a key that this node is to load, for its clients or for other nodes.
//!
//! They peek at previous owners and ask the origin. They must never ask another node to load.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::{FlightOutcome, Group, Source, abandoned, stale::Life};
use crate::{
    error::{Error, ErrorKind, Result},
    flight::{Leader, Sharing},
    key::HashedKey,
    record::Record,
    ring::KeyHash,
    store::Entry,
};

/// The duty to load one key.
type Duty = Leader<Result<FlightOutcome>>;
/// The callers that wait for a load.
type Waiter = oneshot::Receiver<Result<FlightOutcome>>;

impl Group {
    /// Gets the value here, once for all who ask this node at the same moment.
    pub(super) async fn load_here(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
    ) -> Result<FlightOutcome> {
        // Under a tombstone these flights ask only the origin, so they may be shared.
        let sharing = if self.is_sure() {
            Sharing::UnderWay
        } else {
            Sharing::Next
        };
        let joined = self.local.join(key, sharing);
        match joined.leader {
            Some(leader) => self.depart(key, hash, leader, None),
            None => self.observer.waited_for_flight(),
        }
        joined
            .waiter
            .await
            .unwrap_or_else(|_| Err(abandoned(key.text())))
    }

    /// Flies in a task of its own. `held` is a waiter that keeps the flight wanted.
    pub(super) fn depart(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        leader: Duty,
        held: Option<Waiter>,
    ) {
        let (group, text) = (self.clone(), key.text().to_owned());
        self.shared.spawn(async move {
            let key = group.hashed(&text);
            let mut leader = Some(leader);
            while let Some(duty) = leader {
                leader = group.fly_locally(&key, hash, duty).await;
            }
            drop(held);
        });
    }

    /// One flight; returns the duty to fly again, if somebody waits for that.
    async fn fly_locally(&self, key: &HashedKey<'_>, hash: KeyHash, leader: Duty) -> Option<Duty> {
        let fence = &self.shared.standing.fence;
        let pass = fence.pass(self.shared.clock.now());
        // A second look into memory: we may have missed while an earlier flight was under way, and
        // joined after it landed. It stored its value before it left the table, so now we must see
        // it. Without this, the origin would be asked twice.
        if let Some(entry) = self.find_owned(key) {
            return leader.land(Ok(FlightOutcome::hit(entry)), || {});
        }
        let result = match self.ask_previous_owners(key.text(), hash).await {
            Some(outcome) => Ok(outcome),
            // Once more in memory: a member hands an entry over and then drops it, perhaps just
            // before it was asked.
            None => match self.find_owned(key) {
                Some(entry) => return leader.land(Ok(FlightOutcome::hit(entry)), || {}),
                None => match self.failures.of(hash, self.shared.clock.now()) {
                    Some(error) => {
                        let result = self.or_stale(key, Err(error));
                        return leader.land(result, || {});
                    }
                    None => self.load(key.text(), hash, &leader).await,
                },
            },
        };
        let kept = result.as_ref().ok().filter(|outcome| {
            // What another member holds is kept only where it belongs. What was loaded is kept
            // where it was loaded, or it would be loaded again.
            !outcome.uncacheable && (outcome.source == Source::Origin || self.holds(hash))
        });
        let kept = kept.map(|outcome| outcome.entry.clone());
        let failed = result.as_ref().err().cloned();
        let replaced = matches!(&result, Ok(outcome) if outcome.uncacheable);
        let result = self.or_stale(key, result);
        leader.land(result, || {
            let now = self.shared.clock.now();
            if let Some(error) = failed {
                let ttl = self.now.load().rules.error_ttl;
                self.failures.note(hash, &error, ttl, now);
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
            if self.shared.owned.insert(key, entry) {
                self.shared.copies.wanted(self.id, key.text());
            } else {
                self.observer.refused_by_store();
            }
        })
    }

    /// Loads from the origin. A load that everybody has given up on while it waited for its turn
    /// doesn't begin; one that runs goes on, and its value is kept.
    async fn load(&self, key: &str, hash: KeyHash, duty: &Duty) -> Result<FlightOutcome> {
        let abandoned = Box::pin(duty.abandoned());
        let origin = self.origin();
        let loaded = origin.load_in_turn(key, abandoned).await;
        let loaded = loaded.map_err(Error::from_loader);
        let now = self.shared.clock.now();
        let outcome = |value: Option<Bytes>, life: Life| FlightOutcome {
            entry: Arc::new(Entry::new(&Record {
                entity_tag: value.as_deref().map_or(0, xxh3_64),
                value,
                expires_at: life.expires_at,
                stale: life.stale,
            })),
            source: Source::Origin,
            uncacheable: life.uncacheable,
        };
        match loaded {
            Ok(loaded) => {
                self.check_value(&loaded.value)?;
                let life = self.life(loaded.freshness, hash, now);
                Ok(outcome(Some(loaded.value), life))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let ttl = self.now.load().rules.negative_ttl;
                Ok(outcome(None, Life::without_staleness(ttl, now)))
            }
            Err(error) => Err(error),
        }
    }

    fn check_value(&self, value: &Bytes) -> Result<()> {
        let max_value = self.max_value();
        if value.len() as u64 <= max_value {
            return Ok(());
        }
        Err(Error::value_too_large(
            format!(
                "the origin's value has {} bytes; group '{}' takes {max_value} (max_value)",
                value.len(),
                self.name
            ),
            max_value,
        ))
    }
}
