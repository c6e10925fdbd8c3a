//! Nodes that make their own keys: the holder of a registered one is accepted.

use std::sync::Arc;

use gaocache::internal::{
    self,
    wire::{self, peer_client::PeerClient},
};
use gaocache_core::{
    membership::{Contact, Member},
    ports::{Registry, Session},
};
use tonic::{Code, transport::Endpoint};

use super::{
    attacker::{Held, caller, showing, shown_by, with_key},
    calls::*,
    common::{
        peer::{FORGED_TAG, batch},
        *,
    },
};

#[tokio::test]
async fn who_holds_no_key_gets_no_connection() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    let (address, sender) = (nodes[0].addresses.peer, nodes[0].incarnation());
    let plaintext = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut peer = PeerClient::new(plaintext.connect_lazy());
    gets_no_connection(&nodes[0], &mut peer, sender).await;
    gets_no_connection(&nodes[0], &mut caller(address, showing(None)), sender).await;
    // The certificate of a member, which everybody can see, without its key.
    let (certificate, held) = (shown_by(address).await, Held::new());
    let mut peer = caller(address, showing(Some((&certificate, &held))));
    gets_no_connection(&nodes[0], &mut peer, sender).await;
    assert_eq!(origin.loads(), 0);
}

#[tokio::test]
async fn a_self_made_key_is_refused_by_every_call_until_its_member_is_registered() {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let mut node = joining(
        &internal::registry(registry.clone()),
        "n0",
        &origin.url(),
        &[],
    )
    .await;
    node.ready().await;
    let held = Held::new();
    let mut peer = with_key(node.addresses.peer, &held);
    is_answered(&mut peer, node.incarnation(), Code::Unauthenticated).await;
    assert_eq!(refusals(&node, "unknown").await, CALLS as f64);
    assert_eq!(origin.loads(), 0);
    let answer = node.client().await.get(get_request("alice")).await;
    assert_eq!(answer.unwrap().into_inner().value, "value of alice");

    // The same connection is a member's from the moment at which the node knows its key.
    let (me, _session) = register(&registry, "friend", &held).await;
    node.ring_of(2).await;
    is_answered(&mut peer, me.incarnation(), Code::Ok).await;
}

/// Registers a member that holds this key, at an address without a listener.
async fn register(
    registry: &Arc<dyn Registry>,
    id: &str,
    held: &Held,
) -> (Member, Box<dyn Session>) {
    let mut me = Member::new(id, "127.0.0.1:1");
    me.instance = "1".into();
    me.contact = Contact {
        address: "127.0.0.1:1".into(),
        key: Some(held.fingerprint()),
    };
    let session = registry.join(me.clone()).await.expect("a free id");
    (me, session)
}

#[tokio::test]
async fn a_member_speaks_for_no_other_and_gives_no_value_a_life_or_a_tag_of_its_own() {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let of_nodes = internal::registry(registry.clone());
    let mut node = joining(&of_nodes, "n0", &origin.url(), &[]).await;
    let mut other = joining(&of_nodes, "n1", &origin.url(), &[]).await;
    let held = Held::new();
    let (me, _session) = register(&registry, "friend", &held).await;
    node.ring_of(3).await;
    other.ring_of(3).await;
    let mut peer = with_key(node.addresses.peer, &held);
    for sender in [node.incarnation(), other.incarnation()] {
        let refused = plant(&mut peer, batch(sender, "a")).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        let vouch = wire::VouchRequest {
            asker: sender.0,
            counted: Vec::new(),
        };
        let refused = peer.vouch(vouch).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(refusals(&node, "sender").await, 4.0);
    // Its own word counts, within what the group allows. Some of the keys are the node's.
    let mut kept = None;
    for number in 0..100 {
        let key = format!("k{number}");
        let fate = plant(&mut peer, batch(me.incarnation(), &key)).await;
        if fate.expect("heard") == wire::HandoffFate::Kept {
            kept = Some(key);
            break;
        }
    }
    let key = kept.expect("a key of the node");
    let answer = node.client().await.get(get_request(&key)).await;
    let answer = answer.expect("a value").into_inner();
    assert_eq!(answer.value, "handed over");
    let left = answer.ttl_remaining_ms.expect("a life as the group has it");
    assert!(left <= 600_000, "{left}");
    assert_ne!(answer.entity_tag, FORGED_TAG);
}

#[tokio::test]
async fn a_node_tells_nothing_to_who_holds_another_key_than_the_member() {
    let registered = Held::new().fingerprint();
    tells_nothing(&[], Some(registered), Held::new()).await;
}

#[tokio::test]
async fn nodes_that_are_told_to_be_insecure_form_a_cluster_of_their_own() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["peer.insecure=true"]).await;
    for node in &nodes {
        let answer = node.client().await.get(get_request("alice")).await;
        assert_eq!(answer.unwrap().into_inner().value, "value of alice");
    }
    assert_eq!(origin.loads(), 1);
}
