//! Leaving: out of the ring, off the list, and only then silent. Every step has a bound.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::parts::Joined;
use gaocache_core::{
    cluster::Topology,
    membership::{IdHash, MemberState},
    ports::Peers,
};

/// Bound on taking the registration back; after it the lease's end does the same.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a registry may be away before nothing more is expected of it. The lease's end tells the
/// others then.
const AWAY: Duration = Duration::from_secs(1);

/// Bound on seeing what the others have seen already.
const OWN_VIEW_TIMEOUT: Duration = Duration::from_secs(1);

impl Joined {
    /// Takes this node out of the ring, hands over what it holds, and takes it off the list,
    /// waiting until every other member has seen it go. Meanwhile it keeps answering. Returns
    /// true if all of that finished within `bound`.
    pub(super) async fn leave(&self, draining: &CancellationToken, bound: Duration) -> bool {
        let parts = &*self.parts;
        parts.metrics.membership.draining();
        draining.cancel();
        tracing::info!("draining: leaving the ring");
        let in_time = timeout(bound, self.drain(bound)).await.is_ok();
        if !in_time {
            let bound_seconds = bound.as_secs_f64();
            tracing::warn!(
                bound_seconds,
                "draining timed out; entries that were not handed over will be loaded again (node.drain_timeout_seconds)"
            );
        }
        // Once off the list, this node is no longer notified of removals, while clients may still
        // ask it. So it keeps nothing from here on and asks the owners like anybody else.
        parts.standing.fence.end();
        parts.groups.drop_everything();
        // Members that rely on this node's vouchers have to do without them first.
        let until = parts.standing.stop_vouching();
        tokio::time::sleep(until.since(parts.clock.now())).await;
        let deregistered = self.deregister(Instant::now() + LEAVE_TIMEOUT).await;
        in_time && deregistered
    }

    /// Takes the registration back, if there is one; true if it is gone.
    async fn deregister(&self, until: Instant) -> bool {
        let registered = self.session.health().borrow().registered;
        let left = async {
            tokio::select! {
                left = timeout_at(until, self.session.leave()) => left.ok(),
                () = self.registry_is_away() => None,
            }
        };
        match left.await {
            Some(Ok(revision)) => {
                tracing::info!(revision, "deregistered");
                if timeout_at(until, self.seen_by_all(revision)).await.is_err() {
                    // Usual when all nodes stop at once: the last one sees no list any more.
                    tracing::info!("timed out waiting for peers to see the deregistration");
                }
                true
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "could not deregister; the lease will expire");
                !registered
            }
            None => {
                tracing::warn!("deregistering timed out; the lease will expire");
                !registered
            }
        }
    }

    async fn drain(&self, bound: Duration) {
        let announced = timeout(bound / 2, async {
            match self.session.announce(MemberState::Draining).await {
                Ok(revision) => self.seen_by_all(revision).await,
                Err(error) => {
                    tracing::warn!(%error, "could not announce to the registry that this node is leaving");
                }
            }
        });
        let in_time = tokio::select! {
            announced = announced => announced.is_ok(),
            () = self.registry_is_away() => false,
        };
        if !in_time {
            tracing::warn!(
                "timed out waiting for peers to see that this node is leaving; handing over entries anyway"
            );
        }
        self.seen_by_itself().await;
        let moved = self.parts.handoff.leave(bound / 2).await;
        tracing::info!(entries = moved.sent, "handed over entries");
    }

    /// Returns when the registry has been away for [`AWAY`].
    async fn registry_is_away(&self) {
        let mut health = self.session.health();
        loop {
            if health.wait_for(|it| !it.problem.is_empty()).await.is_err() {
                return std::future::pending().await;
            }
            let back = timeout(AWAY, health.wait_for(|it| it.problem.is_empty()));
            if back.await.is_err() {
                return;
            }
        }
    }

    /// Returns when this node's own ring is without it. Where the registry can't tell (it is away,
    /// or a fixed list) the node concludes it by itself: the others will find it gone, and ask
    /// those who come next in ring order.
    async fn seen_by_itself(&self) {
        let leaving = |topology: &Arc<Topology>| {
            topology
                .me()
                .is_none_or(|me| me.state == MemberState::Draining)
        };
        let mut rings = self.parts.cluster.rings();
        if let Ok(Ok(_)) = timeout(OWN_VIEW_TIMEOUT, rings.wait_for(leaving)).await {
            return;
        }
        self.parts.cluster.leave();
    }

    /// Returns when every other member's view has reached the revision, or could not be asked.
    async fn seen_by_all(&self, revision: Option<u64>) {
        let Some(revision) = revision else { return };
        let topology = self.parts.cluster.snapshot();
        let seen = topology
            .others()
            .filter(|member| !member.vanished)
            .map(|member| {
                let peers = &self.parts.peers;
                peers.await_revision(member, revision, IdHash::NONE)
            });
        let unreached = join_all(seen)
            .await
            .iter()
            .filter(|seen| seen.is_err())
            .count();
        tracing::info!(revision, unreached, "peers have seen the change");
    }
}
