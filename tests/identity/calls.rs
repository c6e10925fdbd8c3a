//! Calls to a node by callers that must not make them, and what becomes of them.

use std::sync::Arc;

use gaocache::internal::{
    self,
    wire::{self, peer_client::PeerClient},
};
use gaocache_core::membership::{Contact, IdHash, KeyFingerprint, Member};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status, transport::Channel};

use super::{
    attacker::Held,
    common::{
        peer::{batch, handoff},
        *,
    },
};

/// Hands one batch over and returns what became of its entry.
pub(super) async fn plant(
    peer: &mut PeerClient<Channel>,
    batch: wire::HandoffBatch,
) -> Result<wire::HandoffFate, Status> {
    let receipt = handoff(peer, batch).await?;
    Ok(receipt.fates().next().expect("one for each entry"))
}

/// The methods.
pub(super) const CALLS: usize = 8;

/// What a call of each method answers.
pub(super) async fn every_call(
    peer: &mut PeerClient<Channel>,
    sender: IdHash,
) -> [(&'static str, Code); CALLS] {
    let (group, key) = ("users".to_owned(), "alice".to_owned());
    let fetch = wire::FetchRequest {
        group: group.clone(),
        key: key.clone(),
    };
    let want = wire::WantRequest {
        group: group.clone(),
        key: key.clone(),
        clients: vec![1],
    };
    let peek = wire::PeekRequest {
        group: group.clone(),
        key: key.clone(),
    };
    let remove = wire::RemoveHereRequest {
        group,
        key: Some(key),
        tag: None,
    };
    let vouch = wire::VouchRequest {
        asker: sender.0,
        counted: Vec::new(),
    };
    let promise = wire::PromiseRequest { against: sender.0 };
    let revision = wire::AwaitRevisionRequest::default();
    let code = |result: Option<Status>| result.map_or(Code::Ok, |status| status.code());
    [
        ("fetch", code(peer.fetch(fetch).await.err())),
        ("want", code(peer.want(want).await.err())),
        ("peek", code(peer.peek(peek).await.err())),
        ("remove", code(peer.remove(remove).await.err())),
        ("vouch", code(peer.vouch(vouch).await.err())),
        ("promise", code(peer.promise(promise).await.err())),
        ("revision", code(peer.await_revision(revision).await.err())),
        (
            "handoff",
            code(plant(peer, batch(sender, "alice")).await.err()),
        ),
    ]
}

/// Every call of this peer fails before it is heard: it gets no connection, which is counted.
pub(super) async fn gets_no_connection(
    node: &TestNode,
    peer: &mut PeerClient<Channel>,
    sender: IdHash,
) {
    let before = refusals(node, "handshake").await;
    for (call, code) in every_call(peer, sender).await {
        assert_ne!(code, Code::Ok, "{call}");
    }
    assert!(refusals(node, "handshake").await > before);
}

/// Every call of this peer has that answer.
pub(super) async fn is_answered(peer: &mut PeerClient<Channel>, sender: IdHash, wanted: Code) {
    for (call, code) in every_call(peer, sender).await {
        assert_eq!(code, wanted, "{call}");
    }
}

pub(super) async fn refusals(node: &TestNode, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    metric(node, "gaocache_peer_refusals_total", &[&reason]).await
}

/// A node of these settings gets a member whose address leads to the holder of another key, which
/// must not be sent anything.
pub(super) async fn tells_nothing(
    further: &[&str],
    registered: Option<KeyFingerprint>,
    impostor: Held,
) {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let of_nodes = internal::registry(registry.clone());
    let mut node = joining(&of_nodes, "n0", &origin.url(), further).await;
    node.ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut member = Member::new("gone", "127.0.0.1:1");
    member.contact = Contact {
        address: listener.local_addr().unwrap().to_string().into(),
        key: registered,
    };
    let (tried, mut tries) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(impostor.server()));
        while let Ok((stream, _)) = listener.accept().await {
            let _ = tried.try_send(acceptor.accept(stream).await.is_ok());
        }
    });
    let _session = registry.join(member).await.expect("a free id");
    node.ring_of(2).await;
    let mut client = node.client().await;
    for number in 0..40 {
        let answer = client.get(get_request(&format!("k{number}"))).await;
        let value = answer.expect("a value").into_inner().value;
        assert_eq!(value, format!("value of k{number}"));
    }
    let completed = within("a connection", tries.recv()).await;
    assert_eq!(completed, Some(false), "it was hung up on in the handshake");
    let unreachable = ["gone", "unreachable"];
    assert!(metric(&node, "gaocache_peer_fetches_total", &unreachable).await > 0.0);
}
