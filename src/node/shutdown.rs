//! Leaving: out of the ring, off the list, and only then silent. Every step has a bound.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{cluster::Cluster, group::Groups, membership::MemberState},
    ports::{Peers, Session},
};

/// Bound on taking the registration back; after it the lease's end does the same.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What leaving needs.
pub(super) struct Leaving<'a> {
    pub(super) session: &'a dyn Session,
    pub(super) cluster: &'a Cluster,
    pub(super) peers: &'a dyn Peers,
    pub(super) groups: &'a Groups,
    pub(super) draining: &'a CancellationToken,
    pub(super) bound: Duration,
}

impl Leaving<'_> {
    /// Takes this node out of the ring, then off the list, each time waiting until every other member has seen it. Meanwhile it goes on
    /// answering. True if all of that came to its end in time.
    pub(super) async fn run(self) -> bool {
        self.draining.cancel();
        tracing::info!("draining: leaving the ring");
        let out_of_the_ring = timeout(self.bound, async {
            match self.session.announce(MemberState::Draining).await {
                Ok(revision) => self.seen_by_all(revision).await,
                Err(error) => {
                    tracing::warn!(%error, "the registry does not know that this node leaves");
                }
            }
        });
        let in_time = out_of_the_ring.await.is_ok();
        if !in_time {
            let bound_seconds = self.bound.as_secs_f64();
            tracing::warn!(
                bound_seconds,
                "draining took too long; going on all the same"
            );
        }
        // Off the list, nobody tells this node of removals any more, while clients may still ask it. So it keeps nothing from here on and
        // asks the owners like anybody else.
        self.groups.retire();
        let off_the_list = timeout(LEAVE_TIMEOUT, async {
            match self.session.leave().await {
                Ok(revision) => {
                    tracing::info!(revision, "deregistered");
                    self.seen_by_all(revision).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "could not deregister; the lease will end by itself");
                }
            }
        });
        if off_the_list.await.is_err() {
            tracing::warn!("deregistering took too long; the lease will end by itself");
        }
        in_time
    }

    /// Returns when every other member's view has reached the revision, or could not be asked.
    async fn seen_by_all(&self, revision: Option<u64>) {
        let Some(revision) = revision else { return };
        let topology = self.cluster.shared();
        let seen = topology
            .others()
            .map(|member| self.peers.await_revision(member, revision));
        let unreached = join_all(seen)
            .await
            .iter()
            .filter(|seen| seen.is_err())
            .count();
        tracing::info!(revision, unreached, "the others have seen it");
    }
}
