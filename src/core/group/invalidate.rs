//! Invalidation: after `remove` or `purge` answers OK, no node serves the old value.
//!
//! Every member is told twice. The first round empties every `owned` store and grounds the loads under way, so from then on
//! every node's owned value is new. But while it ran, a node that was already told could fetch the old value from one that was not, and
//! keep a hot copy. The second round drops those copies and grounds the fetches still under way. Hot copies are never
//! copied again (see the module above), so nothing can come back after it.

use std::sync::Arc;

use futures::future::join_all;

use super::{Group, check_key};
use crate::{
    core::membership::Member,
    error::{Error, ErrorKind, Result},
    ports::PeerError,
};

const ROUNDS: usize = 2;

impl Group {
    /// Drops a key everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`], naming each member that could not be told: it may still serve the old value. Telling goes on for
    /// all others. Calling again is safe.
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
        match key {
            Some(key) => {
                let owned = self.local.ground(key, || shared.owned.remove(self.id, key));
                let hot = self.remote.ground(key, || shared.hot.remove(self.id, key));
                u64::from(owned) + u64::from(hot)
            }
            None => {
                // Flights first: one that lands between the two is purged with the rest.
                self.local.ground_all();
                self.remote.ground_all();
                shared.owned.purge(self.id) + shared.hot.purge(self.id)
            }
        }
    }

    async fn invalidate_everywhere(&self, key: Option<&str>) -> Result<u64> {
        let mut entries = 0;
        for _ in 0..ROUNDS {
            entries += self.invalidation_round(key).await?;
        }
        Ok(entries)
    }

    async fn invalidation_round(&self, key: Option<&str>) -> Result<u64> {
        let topology = self.shared.cluster.shared();
        let told = join_all(
            topology
                .others()
                .map(async |member| (member, self.tell(member, key).await)),
        );
        let mut entries = self.invalidate_here(key);
        let mut missed = Vec::new();
        for (member, result) in told.await {
            match result {
                Ok(dropped) => entries += dropped,
                Err(error) => {
                    missed.push(format!("{} at {}: {error}", member.id, member.address));
                }
            }
        }
        if missed.is_empty() {
            return Ok(entries);
        }
        Err(Error::new(
            ErrorKind::PeerUnreachable,
            format!("may still serve the old value: {}", missed.join("; ")),
        ))
    }

    async fn tell(&self, member: &Member, key: Option<&str>) -> Result<u64> {
        let told = self.shared.peers.invalidate(member, self.name(), key).await;
        match told {
            Ok(dropped) => Ok(dropped),
            // A member without the group (another configuration, mid-rollout) holds nothing of it.
            Err(PeerError::Answered(error)) if error.kind() == ErrorKind::UnknownGroup => Ok(0),
            Err(PeerError::Answered(error) | PeerError::Unreachable(error)) => Err(error),
        }
    }
}
