//! Peers that are gone, slow, or speak another version: no read fails, and what happened is
//! counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broken_connection;
#[path = "../common/mod.rs"]
mod common;
mod fetch_held;
mod made_up;
mod many;
mod other_release;
mod slow;
mod unreachable;
mod zones;

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use common::*;
use gaocache::{
    Result,
    internal::{self, wire},
};
use gaocache_core::{
    membership::{KeyFingerprint, Member, MemberState, View},
    ports::{Registry, RegistryHealth, Session},
};
use tokio::{net::TcpListener, sync::watch};

/// A registry that says what the test wants. It takes what is announced at revision 7.
struct Told(watch::Sender<View>);

#[async_trait]
impl Registry for Told {
    async fn join(&self, me: Member) -> Result<Box<dyn Session>> {
        self.0.send_modify(|view| {
            let others = view.members.iter().cloned();
            *view = View::new(view.revision + 1, others.chain([me]));
        });
        Ok(Box::new(ToldSession {
            views: self.0.clone(),
            health: watch::Sender::new(RegistryHealth {
                registered: true,
                ..RegistryHealth::default()
            }),
        }))
    }
}

struct ToldSession {
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
}

#[async_trait]
impl Session for ToldSession {
    fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }
    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }
    async fn announce(&self, _: MemberState) -> Result<Option<u64>> {
        Ok(Some(7))
    }
    async fn leave(&self) -> Result<Option<u64>> {
        Ok(Some(8))
    }
}

/// A node `me` that believes in these other members.
async fn node_among(others: &[(&str, SocketAddr)], url: &str, further: &[&str]) -> TestNode {
    let members = others
        .iter()
        .map(|(id, address)| Member::new(*id, address.to_string()));
    let mut given = vec!["peer.insecure=true"];
    given.extend(further);
    node_with(members, url, &given).await
}

/// The same with these members, and nothing set but what is given.
async fn node_with(
    members: impl IntoIterator<Item = Member>,
    url: &str,
    given: &[&str],
) -> TestNode {
    let registry: Arc<dyn Registry> = Arc::new(Told(watch::Sender::new(View::new(1, members))));
    let builder = builder(&settings("me", url, given)).registry(internal::registry(registry));
    let mut node = TestNode::start(builder.bind().await.expect("binds"));
    node.ready().await;
    node
}

async fn read_all(node: &TestNode) -> usize {
    let mut client = node.client().await;
    let mut others = 0;
    for key in 0..60 {
        let request = wire::GetRequest {
            group: "users".into(),
            key: format!("user-{key}"),
        };
        let answer = within("an answer", client.get(request))
            .await
            .expect("a value")
            .into_inner();
        assert_eq!(answer.value, format!("value of user-{key}"));
        others += usize::from(answer.owner != "me");
    }
    others
}
