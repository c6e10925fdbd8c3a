//! A fixed list of members: every node knows all others from its settings. No member joins or
//! leaves. A node finds out that a member is down only by calling it.

use async_trait::async_trait;
use tokio::sync::watch;

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{Member, MemberState, View},
    ports::{Registry, RegistryHealth, Session},
};

/// The registry of a fixed list.
pub struct FixedRegistry {
    members: Vec<Member>,
}

impl FixedRegistry {
    /// These members, and no others ever; this node among them.
    pub fn new(members: Vec<Member>) -> Self {
        Self { members }
    }
}

#[async_trait]
impl Registry for FixedRegistry {
    async fn join(&self, me: Member) -> Result<Box<dyn Session>> {
        // This node, too, uses its address from the list: all nodes must compute the same
        // fingerprint.
        if !self.members.iter().any(|member| member.id == me.id) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("this node's id '{}' is not in the fixed list", me.id),
            ));
        }
        let (views, _) = watch::channel(View::new(0, self.members.iter().cloned()));
        let (health, _) = watch::channel(RegistryHealth {
            registered: true,
            ..RegistryHealth::default()
        });
        Ok(Box::new(FixedSession { views, health }))
    }
}

struct FixedSession {
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
}

#[async_trait]
impl Session for FixedSession {
    fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn announce(&self, _state: MemberState) -> Result<Option<u64>> {
        // There are no observers to notify. Nodes that call a departed member eject it.
        Ok(None)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_without_this_node_is_a_wrong_configuration() {
        let registry = FixedRegistry::new(vec![Member::new("a", "h:1")]);
        let joined = registry.join(Member::new("b", "h:2")).await;
        let error = joined.err().expect("not in the list");
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}
