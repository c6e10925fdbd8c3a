//! Bytes that cross zones, for which clouds charge: how many there are, and what spares them.

use std::collections::HashMap;

use super::*;
use common::peer::{batch, handoff};
use gaocache::internal::wire::peer_client::PeerClient;

const KEYS: usize = 60;

/// Nodes `n0` and so on, in these zones.
async fn nodes_in(zones: &[&str], origin: &CountingOrigin, further: &[&str]) -> Vec<TestNode> {
    let registry = gaocache::Registry::memory();
    let mut nodes = Vec::new();
    for (number, zone) in zones.iter().enumerate() {
        let zone = format!("node.zone={zone}");
        let settings = [&[zone.as_str()], further].concat();
        nodes.push(joining(&registry, &format!("n{number}"), &origin.url(), &settings).await);
    }
    for node in &mut nodes {
        node.ring_of(zones.len()).await;
        node.ready().await;
    }
    nodes
}

async fn received(node: &TestNode, call: &str) -> [f64; 3] {
    let mut bytes = [0.0; 3];
    for (bytes, zone) in bytes.iter_mut().zip(["same", "other", "unknown"]) {
        let labels = [&*format!("call=\"{call}\""), &*format!("zone=\"{zone}\"")];
        *bytes = metric(node, "gaocache_peer_received_bytes_total", &labels).await;
    }
    bytes
}

#[tokio::test]
async fn values_of_other_members_are_counted_by_zone() {
    let origin = CountingOrigin::start().await;
    let further = ["cache.hot_after_requests=0", "peer.insecure=true"];
    let nodes = nodes_in(&["a", "a", "b", ""], &origin, &further).await;
    assert_eq!(received(&nodes[0], "fetch").await, [0.0; 3]);
    let mut client = nodes[0].client().await;
    let mut by_owner = HashMap::from(["n0", "n1", "n2", "n3"].map(|it| (it.to_owned(), 0)));
    for number in 0..KEYS {
        let answer = client.get(get_request(&format!("k{number}"))).await;
        let answer = answer.expect("a value").into_inner();
        *by_owner.get_mut(&answer.owner).expect("a member") += answer.value.len();
    }
    assert!(by_owner.values().all(|it| *it > 0), "{by_owner:?}");
    let expected = ["n1", "n2", "n3"].map(|it| by_owner[it] as f64);
    assert_eq!(received(&nodes[0], "fetch").await, expected);

    let url = format!("http://{}", nodes[0].addresses.peer);
    let mut peer = PeerClient::connect(url).await.expect("connects");
    for (sender, times) in [(1, 1), (2, 2), (3, 3)] {
        for time in 0..times {
            let key = format!("of-{sender}-{time}");
            let handed = handoff(&mut peer, batch(nodes[sender].incarnation(), &key)).await;
            handed.expect("a receipt");
        }
    }
    let each = "handed over".len() as f64;
    assert_eq!(
        received(&nodes[0], "handoff").await,
        [each, 2.0 * each, 3.0 * each]
    );
}

#[tokio::test]
async fn hot_copies_are_served_without_crossing_zones() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes_in(&["a", "b"], &origin, &["cache.hot_after_requests=2"]).await;
    let mut client = nodes[0].client().await;
    let mut key = String::new();
    for number in 0..KEYS {
        key = format!("k{number}");
        let answer = client.get(get_request(&key)).await.expect("a value");
        if answer.into_inner().owner == "n1" {
            break;
        }
    }
    let copied = async {
        while metric(&nodes[0], "gaocache_hot_copies_total", &[]).await == 0.0 {
            client.get(get_request(&key)).await.expect("a value");
        }
    };
    within("a hot copy", copied).await;
    let before = received(&nodes[0], "fetch").await;
    assert!(before[1] > 0.0, "{before:?}");
    for _ in 0..100 {
        client.get(get_request(&key)).await.expect("a value");
    }
    assert_eq!(received(&nodes[0], "fetch").await, before);
    assert_eq!(origin.loads_of(&key), 1);
}
