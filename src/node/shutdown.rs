//! Leaving: out of the ring, until the others have seen it, then away. Every step has a bound.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{cluster::Cluster, membership::MemberState},
    ports::{Peers, Session},
};

/// Bound on taking the registration back; after it the lease's end does the same.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Announces `draining` and waits until every other member's ring is without this node. True if all of that came to its end in
/// time. Meanwhile the node goes on answering.
pub(super) async fn drain(
    session: &dyn Session,
    cluster: &Cluster,
    peers: &dyn Peers,
    draining: &CancellationToken,
    bound: Duration,
) -> bool {
    draining.cancel();
    tracing::info!("draining: leaving the ring");
    let leaving = async {
        if let Err(error) = session.announce(MemberState::Draining).await {
            tracing::warn!(%error, "the registry does not know that this node leaves");
            return;
        }
        // Our own watch tells at which revision we left.
        let mut views = session.views();
        let my_id = cluster.my_id();
        let left = views.wait_for(|view| {
            view.member(my_id)
                .is_none_or(|me| me.state == MemberState::Draining)
        });
        let revision = match left.await {
            Ok(view) => view.revision,
            Err(_) => return,
        };
        let topology = cluster.shared();
        let seen = topology
            .others()
            .map(|member| peers.await_revision(member, revision));
        let unreached = join_all(seen)
            .await
            .iter()
            .filter(|seen| seen.is_err())
            .count();
        tracing::info!(revision, unreached, "the others have seen this node leave");
    };
    let in_time = timeout(bound, leaving).await.is_ok();
    if !in_time {
        tracing::warn!(
            bound_seconds = bound.as_secs_f64(),
            "draining took too long; stopping all the same"
        );
    }
    in_time
}

/// Takes the registration back.
pub(super) async fn leave(session: &dyn Session) {
    match timeout(LEAVE_TIMEOUT, session.leave()).await {
        Ok(Ok(())) => tracing::info!("deregistered"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "could not deregister; the lease will end by itself")
        }
        Err(_) => tracing::warn!("deregistering took too long; the lease will end by itself"),
    }
}
