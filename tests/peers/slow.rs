//! A peer that takes its time.

use std::net::IpAddr;

use tonic::transport::Endpoint;

use super::{
    broken_connection::Way,
    made_up::{Heard, Other},
    *,
};

/// A get by a client with that address.
fn get_from(node: &TestNode, from: [u8; 4], key: &str) -> tokio::task::JoinHandle<()> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.addresses.grpc)).unwrap();
    let endpoint = endpoint.local_address(Some(IpAddr::from(from)));
    let request = get_request(key);
    tokio::spawn(async move {
        let channel = endpoint.connect().await.expect("connects");
        let _ = wire::cache_client::CacheClient::new(channel)
            .get(request)
            .await;
    })
}

/// A key that this node does not own.
fn key_of_other(node: &TestNode) -> String {
    let ring = node.rings.borrow().clone();
    let group = gaocache_core::ring::group_seed("users");
    let of_other = |key: &String| {
        let hash = gaocache_core::ring::hash_key(group, key);
        ring.owner(hash) != gaocache_core::cluster::Owner::Me
    };
    (0..).map(|it| format!("key-{it}")).find(of_other).unwrap()
}

/// Polls until so many gets have joined a flight at the node.
async fn until_joined(node: &TestNode, count: usize) {
    within("gets that join a flight", async {
        while metric(node, "gaocache_flight_waits_total", &[]).await < count as f64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Clients come from addresses of their own, which only Linux has.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_owner_learns_of_each_client_that_comes_to_want_what_is_asked_for() {
    let origin = CountingOrigin::start().await;
    let (other, mut heard) = Other::that_holds();
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &[]).await;
    let key = key_of_other(&node);
    let mut clients = Vec::new();
    let first = get_from(&node, [127, 0, 0, 1], &key);
    match within("the fetch", heard.recv()).await {
        Some(Heard::Fetch(named)) => clients.extend(named),
        other => panic!("{other:?}"),
    }
    let mut joined = vec![first];
    for last in [2, 3, 4] {
        // Of the same client, who need not be named again: what is heard next is of the other one.
        joined.push(get_from(&node, [127, 0, 0, 1], &key));
        until_joined(&node, joined.len() - 1).await;
        joined.push(get_from(&node, [127, 0, 0, last], &key));
        match within("who else wants it", heard.recv()).await {
            Some(Heard::Want(want)) => {
                assert_eq!((&*want.group, &*want.key), ("users", &*key));
                clients.extend(want.clients.iter().map(u64::to_string));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(clients.len(), 4, "{clients:?}");
    clients.sort();
    clients.dedup();
    assert_eq!(clients.len(), 4, "{clients:?}");
    joined.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The word may overtake the fetch.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_owner_that_has_not_begun_is_told_again_of_all_who_want_the_key() {
    let origin = CountingOrigin::start().await;
    let (mut other, mut heard) = Other::that_holds();
    other.begins_nothing = true;
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &[]).await;
    let key = key_of_other(&node);
    let mut joined = vec![get_from(&node, [127, 0, 0, 1], &key)];
    let fetch = within("the fetch", heard.recv()).await;
    assert!(matches!(&fetch, Some(Heard::Fetch(named)) if named.len() == 1));
    for last in [2, 3] {
        joined.push(get_from(&node, [127, 0, 0, last], &key));
        let mut told = 0;
        within("the word, twice", async {
            while told < 2 {
                if let Some(Heard::Want(want)) = heard.recv().await {
                    told += usize::from(want.clients.len() == usize::from(last) - 1);
                }
            }
        })
        .await;
    }
    joined.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The attempt before may have reached nobody, and so may the word of who else wants the key.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_fetch_that_is_made_again_names_all_who_want_the_key_by_then() {
    let origin = CountingOrigin::start().await;
    let (other, mut heard) = Other::that_holds();
    let way = Way::to(other.serve().await).await;
    let node = node_among(&[("other", way.address)], &origin.url(), &[]).await;
    let key = key_of_other(&node);
    let first = get_from(&node, [127, 0, 0, 1], &key);
    let fetch = within("the fetch", heard.recv()).await;
    assert!(matches!(&fetch, Some(Heard::Fetch(named)) if named.len() == 1));
    let second = get_from(&node, [127, 0, 0, 2], &key);
    let want = within("who else wants it", heard.recv()).await;
    assert!(matches!(&want, Some(Heard::Want(_))), "{want:?}");
    way.cut().await;
    let again = within("the fetch", heard.recv()).await;
    assert!(
        matches!(&again, Some(Heard::Fetch(named)) if named.len() == 2),
        "{again:?}"
    );
    [first, second]
        .iter()
        .for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_leaving_node_answers_until_the_others_have_seen_it_go() {
    let origin = CountingOrigin::start().await;
    let (reached, revision) = watch::channel(0);
    let asked = watch::Sender::new(0);
    let address = Other {
        revision: Some(revision),
        asked: asked.clone(),
        ..Other::default()
    }
    .serve()
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
