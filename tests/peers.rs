//! Peers that are gone, slow, or speak another version: no read fails, and what happened is
//! counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use common::*;
use gaocache::{
    Result, internal,
    internal::wire::{
        self,
        peer_server::{Peer, PeerServer},
    },
};
use gaocache_core::{
    membership::{Member, MemberState, View},
    ports::{Registry, RegistryHealth, Session},
};
use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tonic::{Request, Response, Status};

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
            health: watch::Sender::default(),
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
    let registry: Arc<dyn Registry> = Arc::new(Told(watch::Sender::new(View::new(1, members))));
    let builder = builder(&settings("me", url, further)).registry(internal::registry(registry));
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

#[tokio::test]
async fn the_keys_of_a_peer_that_is_gone_are_served_all_the_same() {
    let origin = CountingOrigin::start().await;
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let node = node_among(&[("gone", gone)], &origin.url(), &[]).await;
    let others = read_all(&node).await;
    assert!(others > 10, "some keys are the other's: {others}");
    assert_eq!(origin.loads(), 60);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    let tried = metric(
        &node,
        "gaocache_peer_fetches_total",
        &["gone", "unreachable"],
    )
    .await;
    assert!(
        (1.0..=3.0).contains(&tried),
        "ejected at once, so asked hardly ever: {tried}"
    );
    read_all(&node).await;
    assert_eq!(origin.loads(), 60, "what a stand-in loaded is kept");
}

#[tokio::test]
async fn a_peer_that_answers_nothing_is_given_up_within_its_time() {
    let origin = CountingOrigin::start().await;
    // Accepts (the kernel does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let further = [
        "peer.timeout_seconds=0.3",
        "peer.connect_timeout_seconds=0.3",
    ];
    let node = node_among(&[("silent", address)], &origin.url(), &further).await;
    read_all(&node).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_by_probing() {
    let origin = CountingOrigin::start().await;
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let node = node_among(&[("late", address)], &origin.url(), &[]).await;
    read_all(&node).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    let listen = format!("peer.listen={address}");
    let late = settings("late", &origin.url(), &[&listen]);
    let mut late = TestNode::start(builder(&late).bind().await.expect("binds"));
    late.ready().await;
    within("the probe", async {
        while metric(&node, "gaocache_peers_ejected", &[]).await > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.client()
        .await
        .purge(wire::PurgeRequest {
            group: "users".into(),
        })
        .await
        .expect("reaches it");
    read_all(&node).await;
    assert!(metric(&node, "gaocache_peer_fetches_total", &["late", "origin"]).await > 0.0);
}

/// Answers in a format of the future, or, like a release without the service, not at all.
#[derive(Default)]
struct Other {
    format: Option<u32>,
    /// The revision that its view has reached; asked for a later one, it waits.
    revision: Option<watch::Receiver<u64>>,
    asked: watch::Sender<u64>,
}

#[tonic::async_trait]
impl Peer for Other {
    async fn fetch(
        &self,
        _: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        match self.format {
            Some(format) => Ok(Response::new(wire::FetchResponse {
                format,
                entry: Some(wire::Entry {
                    value: "not to be trusted".into(),
                    found: true,
                    ..wire::Entry::default()
                }),
                ..wire::FetchResponse::default()
            })),
            None => Err(Status::unimplemented("")),
        }
    }
    async fn peek(
        &self,
        _: Request<wire::PeekRequest>,
    ) -> Result<Response<wire::PeekResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn remove(
        &self,
        _: Request<wire::RemoveHereRequest>,
    ) -> Result<Response<wire::RemoveHereResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn vouch(
        &self,
        _: Request<wire::VouchRequest>,
    ) -> Result<Response<wire::VouchResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn promise(
        &self,
        _: Request<wire::PromiseRequest>,
    ) -> Result<Response<wire::PromiseResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn await_revision(
        &self,
        request: Request<wire::AwaitRevisionRequest>,
    ) -> Result<Response<wire::AwaitRevisionResponse>, Status> {
        let Some(mut revisions) = self.revision.clone() else {
            return Err(Status::unimplemented(""));
        };
        let wanted = request.into_inner().revision;
        self.asked.send_replace(wanted);
        let reached = revisions.wait_for(|revision| *revision >= wanted).await;
        let revision = *reached.map_err(|_| Status::cancelled(""))?;
        Ok(Response::new(wire::AwaitRevisionResponse { revision }))
    }
    type HandoffStream = tokio_stream::Empty<Result<wire::HandoffReceipt, Status>>;
    async fn handoff(
        &self,
        _: Request<tonic::Streaming<wire::HandoffBatch>>,
    ) -> Result<Response<Self::HandoffStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn serve(other: Other) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(PeerServer::new(other));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn a_leaving_node_answers_until_the_others_have_seen_it_go() {
    let origin = CountingOrigin::start().await;
    let (reached, revision) = watch::channel(0);
    let asked = watch::Sender::new(0);
    let address = serve(Other {
        revision: Some(revision),
        asked: asked.clone(),
        ..Other::default()
    })
    .await;
    let node = node_among(&[("slow", address)], &origin.url(), &[]).await;
    node.stop();
    // First out of the ring, then off the list; each time it waits for the other.
    for step in [7, 8] {
        let mut asked = asked.subscribe();
        within("the question", asked.wait_for(|it| *it == step))
            .await
            .unwrap();
        let mut client = node.client().await;
        let request = wire::GetRequest {
            group: "users".into(),
            key: "alice".into(),
        };
        client.get(request).await.expect("it still answers");
        reached.send_replace(step);
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_peer_of_another_version_is_not_believed_and_costs_no_read() {
    for format in [Some(2), Some(0), None] {
        let origin = CountingOrigin::start().await;
        let address = serve(Other {
            format,
            ..Other::default()
        })
        .await;
        let node = node_among(&[("other", address)], &origin.url(), &[]).await;
        read_all(&node).await;
        let counted = metric(
            &node,
            "gaocache_peer_fetches_total",
            &["other", "incompatible"],
        )
        .await;
        assert!(counted > 0.0, "{format:?}");
        let ejected = metric(&node, "gaocache_peers_ejected", &[]).await;
        assert_eq!(ejected, 0.0, "it answers, so it lives: {format:?}");
    }
}

/// A way to `target` whose connections can be cut.
struct Way {
    address: SocketAddr,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Way {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<JoinSet<()>>>::default();
        let accepted = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                accepted.lock().spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self {
            address,
            connections,
            accepting,
        }
    }

    /// Ends what is connected.
    async fn cut(&self) {
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
    }

    /// The same, and nothing can be connected any more.
    async fn end(self) {
        self.accepting.abort();
        assert!(self.accepting.await.is_err(), "its listener is closed");
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
    }
}

/// A node, another that it believes in and reaches by a way, and a key of the other's.
async fn two_nodes(origin: &CountingOrigin) -> (TestNode, TestNode, Way, String) {
    let far = builder(&settings("far", &origin.url(), &[]));
    let far = far.registry(gaocache::Registry::memory());
    let mut far = TestNode::start(far.bind().await.expect("binds"));
    far.ready().await;
    let way = Way::to(far.addresses.peer).await;
    let node = node_among(&[("far", way.address)], &origin.url(), &[]).await;
    let mut client = node.client().await;
    let mut number = 0;
    let key = loop {
        let key = format!("user-{number}");
        let answer = client.get(get_request(&key)).await.expect("a value");
        if answer.into_inner().owner == "far" {
            break key;
        }
        number += 1;
    };
    let removed = wire::RemoveRequest {
        group: "users".into(),
        key: key.clone(),
    };
    client.remove(removed).await.expect("removed");
    (node, far, way, key)
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_load_is_made_anew_and_the_load_is_joined() {
    let origin = CountingOrigin::start().await;
    let (node, _far, way, key) = two_nodes(&origin).await;
    let before = origin.loads_of(&key);
    origin.hold();
    let mut client = node.client().await;
    let asked = key.clone();
    let get = tokio::spawn(async move { client.get(get_request(&asked)).await });
    within("the load", async {
        while origin.loads_of(&key) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    way.cut().await;
    // It is asked by a new connection, while the load still runs.
    within("the new connection", async {
        while way.connections.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.release();
    let answer = within("the value", get).await.unwrap().expect("a value");
    assert_eq!(answer.into_inner().value, format!("value of {key}"));
    assert_eq!(origin.loads_of(&key), before + 1);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
}

#[tokio::test]
async fn an_owner_that_dies_under_a_load_is_replaced_at_once() {
    let origin = CountingOrigin::start().await;
    let (node, _far, way, key) = two_nodes(&origin).await;
    let before = origin.loads_of(&key);
    origin.hold();
    let mut client = node.client().await;
    let asked = key.clone();
    let get = tokio::spawn(async move { client.get(get_request(&asked)).await });
    let loads = async |wanted| {
        within("the load", async {
            while origin.loads_of(&key) < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    loads(before + 1).await;
    way.end().await;
    loads(before + 2).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    origin.release();
    within("the value", get).await.unwrap().expect("a value");
}
