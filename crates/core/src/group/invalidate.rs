//! Invalidation: after `remove` or `purge` answers OK, no node serves the old value.
//!
//! Every member is told twice. The first round empties every `owned` store and grounds the loads
//! under way; from then on a member takes the key from its origin alone (`tombstones`), so after
//! the round every node's owned value is new. Whom a member may have given a copy is among the
//! members that it knows; it names them if the asker told others, and they are told in the same
//! round.
//!
//! While the first round ran, a node that was already told could fetch the old value from one that
//! was not, and keep a hot copy. The second round drops those copies and grounds the fetches still
//! under way. Hot copies are never copied again (see the module above), so nothing can come back
//! after it.

use std::{collections::HashSet, sync::Arc};

use futures::future::join_all;

use super::{Group, check_key};
use crate::{
    error::{Error, ErrorKind, Result},
    membership::{Fingerprint, Member},
    ports::{Invalidated, PeerError},
};

const ROUNDS: usize = 2;

impl Group {
    /// Drops a key everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`], naming each member that could not be told: it may still
    /// serve the old value. Telling goes on for all others. Calling again is safe.
    pub async fn remove(self: &Arc<Self>, key: &str) -> Result<()> {
        check_key(key)?;
        self.invalidate_everywhere(Some(key)).await.map(|_| ())
    }

    /// Drops all keys of the group everywhere; returns how many entries went.
    ///
    /// # Errors
    /// As [`Group::remove`].
    pub async fn purge(self: &Arc<Self>) -> Result<u64> {
        self.invalidate_everywhere(None).await
    }

    /// Drops a key, or with `None` all keys, at this node only; returns how many entries went.
    pub fn invalidate_here(&self, key: Option<&str>) -> u64 {
        let shared = &self.shared;
        let now = shared.clock.now();
        match key {
            Some(key) => {
                let hash = self.hash(key);
                let owned = self.local.ground(key, || {
                    self.tombstones.removed(hash, now);
                    shared.owned.remove(self.id, key)
                });
                let hot = self.remote.ground(key, || shared.hot.remove(self.id, key));
                u64::from(owned) + u64::from(hot)
            }
            None => {
                self.tombstones.purged(now);
                // Flights first: one that lands between the two is purged with the rest.
                self.local.ground_all();
                self.remote.ground_all();
                shared.owned.purge(self.id) + shared.hot.purge(self.id)
            }
        }
    }

    /// Another node's invalidation: here only. `known` are the members that it tells.
    pub fn invalidate_for_peer(&self, key: Option<&str>, known: Fingerprint) -> Invalidated {
        // The entries first: whom they went to before that is among the members seen after it.
        let entries = self.invalidate_here(key);
        let topology = self.shared.cluster.topology();
        let same = topology.view.fingerprint() == known;
        let members = if same {
            Vec::new()
        } else {
            topology.view.members.to_vec()
        };
        Invalidated { entries, members }
    }

    async fn invalidate_everywhere(&self, key: Option<&str>) -> Result<u64> {
        let mut entries = 0;
        for _ in 0..ROUNDS {
            entries += self.invalidation_round(key).await?;
        }
        Ok(entries)
    }

    async fn invalidation_round(&self, key: Option<&str>) -> Result<u64> {
        let topology = self.shared.cluster.snapshot();
        let fingerprint = topology.view.fingerprint();
        let mut entries = self.invalidate_here(key);
        let mut told = HashSet::from([self.shared.cluster.my_id().clone()]);
        let mut to_tell: Vec<Member> = topology.others().cloned().collect();
        let mut missed = Vec::new();
        // Ends, since each turn tells members that were not told before, and there are only so
        // many.
        while !to_tell.is_empty() {
            told.extend(to_tell.iter().map(|member| member.id.clone()));
            let answers = to_tell
                .iter()
                .map(async |member| (member, self.tell(member, key, fingerprint).await));
            let mut named: Vec<Member> = Vec::new();
            for (member, answer) in join_all(answers).await {
                match answer {
                    Ok(answer) => {
                        entries += answer.entries;
                        named.extend(answer.members);
                    }
                    Err(error) => {
                        missed.push(format!("{} at {}: {error}", member.id, member.address));
                    }
                }
            }
            named.retain(|member| !told.contains(&member.id));
            named.sort_by(|a, b| a.id.cmp(&b.id));
            named.dedup_by(|a, b| a.id == b.id);
            to_tell = named;
        }
        if missed.is_empty() {
            return Ok(entries);
        }
        Err(Error::new(
            ErrorKind::PeerUnreachable,
            format!("may still serve the old value: {}", missed.join("; ")),
        ))
    }

    async fn tell(
        &self,
        member: &Member,
        key: Option<&str>,
        known: Fingerprint,
    ) -> Result<Invalidated> {
        let peers = &self.shared.peers;
        match peers.invalidate(member, self.name(), key, known).await {
            Ok(answer) => Ok(answer),
            // A member without the group (another configuration, mid-rollout) holds nothing of it.
            Err(PeerError::Answered(error)) if error.kind() == ErrorKind::UnknownGroup => {
                Ok(Invalidated::default())
            }
            Err(PeerError::Answered(error) | PeerError::Unreachable(error)) => Err(error),
        }
    }
}
