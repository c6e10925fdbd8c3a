//! What a program that embeds a node can see of it while it runs.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use gaocache_core::{
    cluster::Topology,
    error::{Error, ErrorKind, Result},
};

/// Whether a node is ready, and how many nodes it shares the keys with. Cheap to clone, and
/// outlives the node.
///
/// ```
/// # use gaocache::{Error, NodeBuilder, Settings};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let node = NodeBuilder::new(Settings::standalone("only")).bind().await?;
/// let status = node.status();
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let running = tokio::spawn(node.run(async { drop(stopped.await) }));
/// status.ready().await?;
/// assert_eq!(status.members(), 1);
/// drop(stop);
/// running.await.expect("no panic")?;
/// assert!(!status.is_ready());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NodeStatus {
    readiness: watch::Receiver<Arc<str>>,
    rings: watch::Receiver<Arc<Topology>>,
}

impl NodeStatus {
    pub(super) fn new(
        readiness: watch::Receiver<Arc<str>>,
        rings: watch::Receiver<Arc<Topology>>,
    ) -> Self {
        Self { readiness, rings }
    }

    /// Whether the node serves.
    pub fn is_ready(&self) -> bool {
        self.readiness.borrow().is_empty()
    }

    /// Why the node is not ready, for people; empty: it is.
    pub fn why_not_ready(&self) -> Arc<str> {
        self.readiness.borrow().clone()
    }

    /// How many nodes the keys are shared out to, as this node sees it.
    pub fn members(&self) -> usize {
        self.rings.borrow().ring_len()
    }

    /// Returns when the node is ready.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if the node has ended before.
    pub async fn ready(&self) -> Result<()> {
        let mut readiness = self.readiness.clone();
        let ready = readiness.wait_for(|why_not| why_not.is_empty()).await;
        ready.map(|_| ()).map_err(|_| ended())
    }

    /// Returns when the keys are shared out to at least so many nodes.
    ///
    /// # Errors
    /// As [`NodeStatus::ready`].
    pub async fn wait_for_members(&self, members: usize) -> Result<()> {
        let mut rings = self.rings.clone();
        let reached = rings.wait_for(|ring| ring.ring_len() >= members).await;
        reached.map(|_| ()).map_err(|_| ended())
    }
}

impl fmt::Debug for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeStatus")
            .field("why_not_ready", &self.why_not_ready())
            .field("members", &self.members())
            .finish()
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::NotReady, "the node has ended")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use gaocache_core::membership::{Member, View};

    use super::*;

    #[test]
    fn more_members_than_were_waited_for_are_enough() {
        let ring = |ids: &[&str]| {
            let members = ids.iter().map(|id| Member::new(*id, "10.0.0.1:7071"));
            Arc::new(Topology::new("a", View::new(1, members)))
        };
        let (_readiness, readiness) = watch::channel("".into());
        let (rings, seen) = watch::channel(ring(&["a", "b"]));
        let status = NodeStatus::new(readiness, seen);
        let mut three = Box::pin(status.wait_for_members(3));
        assert!(three.as_mut().now_or_never().is_none());
        rings.send_replace(ring(&["a", "b", "c", "d"]));
        assert!(three.now_or_never().expect("has seen four").is_ok());
    }
}
