//! Handoff over real sockets: who may hand over what, and that the origin notices nothing when
//! nodes come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{
    etcd::Etcd,
    peer::{batch, handoff},
    process::{NodeProcess, agree},
    *,
};
use futures::future::join_all;
use gaocache::{
    Registry,
    internal::wire::{self, handoff_entry::What, peer_client::PeerClient},
};
use gaocache_core::membership::IdHash;
use tonic::{Code, transport::Channel};

const KEYS: usize = 300;

/// A peer of nodes that accept every caller.
async fn peer(node: &TestNode) -> PeerClient<Channel> {
    let url = format!("http://{}", node.addresses.peer);
    PeerClient::connect(url).await.expect("connects")
}

fn fates(receipt: &wire::HandoffReceipt) -> Vec<wire::HandoffFate> {
    receipt.fates().collect()
}

async fn read(node: &TestNode, keys: impl Iterator<Item = usize>) {
    let client = node.client().await;
    let gets = keys.map(|key| {
        let mut client = client.clone();
        async move {
            let request = wire::GetRequest {
                group: "users".into(),
                key: format!("k{key}"),
            };
            let answer = client.get(request).await.expect("a value").into_inner();
            assert_eq!(answer.value, format!("value of k{key}"));
        }
    });
    join_all(gets).await;
}

#[tokio::test]
async fn batches_of_strangers_or_in_a_wrong_format_are_refused() {
    use wire::HandoffFate::*;
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &["peer.insecure=true"]).await;
    let mut to = peer(&nodes[0]).await;
    let n1 = nodes[1].incarnation();
    let refused = handoff(&mut to, batch(IdHash(7), "b")).await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unavailable);
    let mut future = batch(n1, "b");
    future.format = 2;
    let refused = handoff(&mut to, future).await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unimplemented);
    let mut unknown = batch(n1, "b");
    unknown.entries[0].group = "no such group".into();
    let receipt = handoff(&mut to, unknown).await.expect("answered");
    assert_eq!(fates(&receipt), [UnknownGroup]);
    let mut expired = batch(n1, "b");
    if let Some(What::Entry(entry)) = &mut expired.entries[0].what {
        entry.ttl_remaining_ms = Some(0);
    }
    let receipt = handoff(&mut to, expired).await.expect("answered");
    assert_eq!(fates(&receipt), [Refused]);
    // Counted before it is decoded: in memory, an empty entry is fifty times as large.
    let mut crowded = batch(n1, "b");
    crowded.entries = vec![wire::HandoffEntry::default(); 4_000];
    let refused = handoff(&mut to, crowded).await;
    assert_eq!(refused.expect_err("refused").code(), Code::InvalidArgument);
    let mut undated = batch(n1, "b");
    undated.receipts = 2;
    let refused = handoff(&mut to, undated).await;
    assert_eq!(refused.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn entries_are_taken_from_members_and_not_if_they_were_removed_a_moment_ago() {
    use wire::HandoffFate::*;
    let origin = CountingOrigin::start().await;
    let mut nodes = cluster(2, &origin.url(), &["peer.insecure=true"]).await;
    let mut to = peer(&nodes[0]).await;
    let n1 = nodes[1].incarnation();
    let receipt = handoff(&mut to, batch(n1, "a")).await.expect("taken");
    assert_eq!(fates(&receipt), [Kept]);
    let receipt = handoff(&mut to, batch(n1, "a")).await.expect("answered");
    assert_eq!(fates(&receipt), [Known]);
    let peek = wire::PeekRequest {
        group: "users".into(),
        key: "a".into(),
    };
    let found = to
        .peek(peek.clone())
        .await
        .expect("answers")
        .into_inner()
        .answer;
    let found = found.expect("it is there");
    let value = found.entry.expect("with its record").value;
    assert_eq!((&*value, found.uncacheable), (&b"handed over"[..], false));

    // What was removed a moment ago is accepted from no member.
    let mut client = nodes[1].client().await;
    let remove = wire::RemoveRequest {
        group: "users".into(),
        key: "c".into(),
    };
    client.remove(remove).await.expect("removed");
    let receipt = handoff(&mut to, batch(n1, "c")).await.expect("answered");
    assert_eq!(fates(&receipt), [Refused]);
    let received = metric(
        &nodes[0],
        "gaocache_handoff_entries_total",
        &["received", "kept"],
    );
    assert_eq!(received.await, 1.0);
    for node in nodes.drain(..) {
        node.stopped().await;
    }
}

#[tokio::test]
async fn nodes_come_and_go_and_the_origin_notices_nothing() {
    for replicas in ["cache.replicas=1", "cache.replicas=2"] {
        let origin = CountingOrigin::start().await;
        let registry = Registry::memory();
        let mut nodes = Vec::new();
        for id in ["n0", "n1", "n2"] {
            nodes.push(joining(&registry, id, &origin.url(), &[replicas]).await);
        }
        for node in &mut nodes {
            node.ring_of(3).await;
            node.ready().await;
        }
        read(&nodes[0], 0..KEYS).await;
        assert_eq!(origin.loads(), KEYS);
        // Each is replaced in turn, without a rest.
        for number in 0..3 {
            nodes.remove(0).stopped().await;
            let id = format!("n{number}");
            let mut node = joining(&registry, &id, &origin.url(), &[replicas]).await;
            node.ready().await;
            read(&node, 0..KEYS).await;
            nodes.push(node);
        }
        for node in &nodes {
            read(node, 0..KEYS).await;
        }
        assert_eq!(origin.loads(), KEYS, "{replicas}");
        let mut sent = 0.0;
        for node in &nodes {
            sent += metric(node, "gaocache_handoff_entries_total", &["sent", "kept"]).await;
        }
        assert!(sent > 0.0);
        for node in nodes {
            node.stopped().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_eight_at_once_and_what_moves_is_not_loaded_again() {
    const MANY: usize = 1_000;
    let origin = CountingOrigin::start().await;
    let registry = Registry::memory();
    let start = async |id: &str| joining(&registry, id, &origin.url(), &[]).await;
    let mut nodes = join_all(["n0", "n1", "n2"].map(start)).await;
    for node in &mut nodes {
        node.ring_of(3).await;
        node.ready().await;
    }
    read(&nodes[0], 0..MANY).await;
    assert_eq!(origin.loads(), MANY);
    let joined = join_all(["n3", "n4", "n5", "n6", "n7"].map(start)).await;
    // At once, while the others still see each of them come.
    join_all(joined.iter().map(|node| read(node, 0..MANY))).await;
    nodes.extend(joined);
    for node in &mut nodes {
        node.ring_of(8).await;
        read(node, 0..MANY).await;
    }
    let moved = MANY * 5 / 8;
    let again = origin.loads() - MANY;
    println!("{again} of {moved} moved keys loaded again");
    assert!(again * 200 <= moved);
    for node in nodes {
        node.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_while_etcd_is_away_hands_its_entries_to_those_who_stand_in() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let ids = ["n0", "n1", "n2"];
    let further = ["node.drain_timeout_seconds=4"];
    let mut nodes: Vec<NodeProcess> = ids
        .map(|id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &further))
        .into();
    agree(&nodes).await;
    let client = common::http();
    let read_all = async |node: &NodeProcess| {
        for key in 0..KEYS {
            let url = format!("http://127.0.0.1:{}/v1/users/k{key}", node.http);
            let answer = client.get(url).send().await.expect("answers");
            let value = answer.text().await.expect("text");
            assert_eq!(value, format!("value of k{key}"));
        }
    };
    read_all(&nodes[0]).await;
    assert_eq!(origin.loads(), KEYS);
    etcd.kill();
    let mut leaving = nodes.pop().expect("three");
    let ended = leaving.terminated().await;
    assert_eq!(
        ended.code(),
        Some(1),
        "it could not take itself off the list"
    );
    // They could not be notified: they find it gone, and ask the next in ring order.
    for node in &nodes {
        read_all(node).await;
    }
    assert_eq!(origin.loads(), KEYS);
}
