//! A fixed list of members: every node knows all others from its settings. No member joins or
//! leaves. A node finds out that a member is down only by calling it.

use async_trait::async_trait;
use tokio::sync::watch;

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{Member, MemberState, View},
    ports::{Registry, RegistryHealth, Session},
};

/// Parses entries of the form `id=host:port`.
///
/// # Errors
/// An entry that does not have that form, a duplicate id, or a list without `my_id`.
pub fn parse(peers: &[String], my_id: &str) -> Result<Vec<Member>> {
    let wrong = |message: String| Error::new(ErrorKind::InvalidRequest, message);
    let mut members: Vec<Member> = Vec::new();
    for peer in peers {
        let parts = peer.split_once('=').filter(|(id, address)| {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            !id.is_empty() && matches!(port, Some(Ok(_)))
        });
        let Some((id, address)) = parts else {
            return Err(wrong(format!(
                "'{peer}' does not have the form id=host:port"
            )));
        };
        if members.iter().any(|member| *member.id == *id) {
            return Err(wrong(format!("two peers have the id '{id}'")));
        }
        members.push(Member::new(id, address));
    }
    if !members.iter().any(|member| *member.id == *my_id) {
        return Err(wrong(format!(
            "this node's id '{my_id}' is not in the list; every node must have the same list, including itself"
        )));
    }
    Ok(members)
}

/// The registry of a fixed list.
pub struct FixedRegistry {
    members: Vec<Member>,
}

impl FixedRegistry {
    /// A registry of exactly these members; see [`parse`].
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
                ErrorKind::InvalidRequest,
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
        // There is nobody to notify. Nodes that call a departed member eject it.
        Ok(None)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn wrong_lists_are_told_apart() {
        let parse = |peers: &[&str]| {
            let peers: Vec<String> = peers.iter().map(|&peer| peer.to_owned()).collect();
            super::parse(&peers, "a").map_err(|error| error.message().to_owned())
        };
        assert_eq!(parse(&["a=h:1", "b=[::1]:2"]).map(|list| list.len()), Ok(2));
        assert!(
            parse(&["b=h:1"])
                .unwrap_err()
                .contains("'a' is not in the list")
        );
        assert!(
            parse(&["a=h:1", "a=h:2"])
                .unwrap_err()
                .contains("two peers")
        );
        for wrong in ["a", "=h:1", "a=h", "a=h:99999"] {
            assert!(
                parse(&[wrong])
                    .unwrap_err()
                    .contains("does not have the form"),
                "{wrong}"
            );
        }
    }
}
