//! Gets of another member's keys that come at the same moment.

use futures::future::join_all;

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    made_up::{Heard, Other},
    *,
};

const KEYS: usize = 64;

/// The values of all keys, asked for at the same moment over one connection.
async fn get_at_once(node: &TestNode, keys: &[String]) -> Vec<Vec<u8>> {
    let client = node.client().await;
    let gets = keys.iter().map(|key| {
        let mut client = client.clone();
        async move { client.get(get_request(key)).await.expect("a value") }
    });
    let all = within("all answers", join_all(gets)).await;
    all.into_iter()
        .map(|it| it.into_inner().value.to_vec())
        .collect()
}

async fn messages(node: &TestNode, call: &str) -> f64 {
    let call = format!("call=\"{call}\"");
    metric(node, "gaocache_peer_messages_total", &[&call]).await
}

/// So many keys that the second node owns.
async fn keys_of_the_other(nodes: &[TestNode], origin: &CountingOrigin) -> Vec<String> {
    let all: Vec<String> = (0..4 * KEYS)
        .map(|number| format!("key-{number}"))
        .collect();
    let mut owned = Vec::new();
    for key in all {
        let mut client = nodes[1].client().await;
        let answer = client.get(get_request(&key)).await.expect("a value");
        if answer.into_inner().owner == "n1" {
            assert_eq!(origin.loads_of(&key), 1);
            owned.push(key);
        }
    }
    owned.truncate(KEYS);
    owned
}

#[tokio::test]
async fn hits_of_another_member_that_are_asked_for_at_once_share_messages() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &["cache.hot_after_requests=0"]).await;
    let keys = keys_of_the_other(&nodes, &origin).await;
    let loads = origin.loads();
    let shared = async {
        loop {
            let before = [
                messages(&nodes[0], "fetch").await,
                messages(&nodes[0], "fetch_held").await,
            ];
            for (key, value) in keys.iter().zip(get_at_once(&nodes[0], &keys).await) {
                assert_eq!(value, format!("value of {key}").as_bytes());
            }
            let alone = messages(&nodes[0], "fetch").await - before[0];
            let shared = messages(&nodes[0], "fetch_held").await - before[1];
            // How many of them the node reads at once is up to the sockets.
            if shared > 0.0 && alone + shared < KEYS as f64 / 4.0 {
                return;
            }
        }
    };
    within("messages that are shared", shared).await;
    assert_eq!(origin.loads(), loads, "all of them are hits");
    let hits = metric(&nodes[0], "gaocache_peer_fetches_total", &["n1", "hit"]).await;
    assert!(hits >= keys.len() as f64, "each counts: {hits}");
}

#[tokio::test]
async fn what_the_other_member_does_not_have_is_loaded_once_each() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &[]).await;
    let asked_together = async {
        for round in 0.. {
            let keys: Vec<String> = (0..KEYS).map(|it| format!("{round}-{it}")).collect();
            for (key, value) in keys.iter().zip(get_at_once(&nodes[0], &keys).await) {
                assert_eq!(value, format!("value of {key}").as_bytes());
                assert_eq!(origin.loads_of(key), 1, "{key}");
            }
            if messages(&nodes[0], "fetch_held").await > 0.0 {
                return;
            }
        }
    };
    within("a message that is shared", asked_together).await;
}

#[tokio::test]
async fn a_release_that_does_not_know_the_call_is_asked_key_by_key() {
    let origin = CountingOrigin::start().await;
    let known = Other {
        format: Some(1),
        ..Other::default()
    };
    let node = node_among(&[("other", known.serve().await)], &origin.url(), &[]).await;
    let asked_together = async {
        for round in 0.. {
            let keys: Vec<String> = (0..KEYS).map(|it| format!("{round}-{it}")).collect();
            for (key, value) in keys.iter().zip(get_at_once(&node, &keys).await) {
                let own = format!("value of {key}");
                let is_its = value == b"not to be trusted";
                assert!(is_its || value == own.as_bytes(), "{key}");
                assert_eq!(origin.loads_of(key), usize::from(!is_its), "{key}");
            }
            if messages(&node, "fetch_held").await > 0.0 {
                return;
            }
        }
    };
    within("a message that is shared", asked_together).await;
    let ejected = metric(&node, "gaocache_peers_ejected", &[]).await;
    assert_eq!(ejected, 0.0, "it answers, so it lives");
}

#[tokio::test]
async fn a_message_that_nobody_waits_for_any_more_is_given_up() {
    let origin = CountingOrigin::start().await;
    let (other, mut heard) = Other::that_holds();
    let further = ["peer.timeout_seconds=3600"];
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &further).await;
    let gets = until_asked_together(&node, &mut heard).await;
    drop(gets);
    until_given_up(&mut heard).await;
}

/// Its memory answers at once, so a load's time is too long a wait.
#[tokio::test]
async fn a_message_that_is_not_answered_is_given_up_before_a_load_would_be() {
    let origin = CountingOrigin::start().await;
    let (other, mut heard) = Other::that_holds();
    let further = [
        "peer.timeout_seconds=0.3",
        "groups=[{ name = \"users\", ttl_seconds = 60, origin = { kind = \"http\", \
         url = \"http://127.0.0.1:1/{key}\", timeout_seconds = 3600 } }]",
    ];
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &further).await;
    let _gets = until_asked_together(&node, &mut heard).await;
    until_given_up(&mut heard).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
}

/// Gets at the same moment, again and again until two of them share a message: how many the node
/// reads at once is up to the sockets.
async fn until_asked_together(
    node: &TestNode,
    heard: &mut mpsc::Receiver<Heard>,
) -> Vec<JoinSet<()>> {
    let client = node.client().await;
    let mut rounds = Vec::new();
    let asked_together = async {
        for round in 0.. {
            let mut gets = JoinSet::new();
            for number in 0..KEYS {
                let mut client = client.clone();
                gets.spawn(async move {
                    let _ = client.get(get_request(&format!("{round}-{number}"))).await;
                });
            }
            rounds.push(gets);
            // Whatever asks first of this round.
            loop {
                match heard.recv().await {
                    Some(Heard::Held) => return,
                    Some(Heard::Fetch(_)) => break,
                    _ => {}
                }
            }
        }
    };
    within("a message that is shared", asked_together).await;
    rounds
}

async fn until_given_up(heard: &mut mpsc::Receiver<Heard>) {
    within("the end of the message", async {
        while !matches!(heard.recv().await, Some(Heard::HeldNoMore)) {}
    })
    .await;
}
