//! What goes in and out of the listeners, and between nodes.

use futures::future::join_all;
use gaocache::internal::wire::{self, get_many_response::Outcome, peer_client::PeerClient};
use tonic::Code;

use super::common::{get_request as get, *};

#[tokio::test]
async fn a_thousand_concurrent_gets_of_one_missing_key_over_three_nodes_cost_one_load() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &[]).await;
    origin.hold();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client().await);
    }
    let gets = (0..1_000).map(|n| {
        let mut client = clients[n % 3].clone();
        tokio::spawn(async move { client.get(get("alice")).await })
    });
    let gets: Vec<_> = gets.collect();
    // All are under way once every node has counted its share as waiting or loading.
    within("all gets under way", async {
        loop {
            let mut waiting = 0.0;
            for node in &nodes {
                waiting += metric(node, "gaocache_flight_waits_total", &["users"]).await;
            }
            // A thousand, less the three that lead (one of them on behalf of two others).
            if waiting >= 1_000.0 - 3.0 {
                break;
            }
        }
    })
    .await;
    origin.release();
    for answer in within("answers", join_all(gets)).await {
        let answer = answer.unwrap().expect("a value").into_inner();
        assert_eq!(answer.value, "value of alice");
    }
    assert_eq!(origin.loads(), 1);
}

#[tokio::test]
async fn grpc_tells_value_life_owner_and_source() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["cache.hot_after_requests=0"]).await;
    let mut owners = std::collections::HashSet::new();
    for key in 0..30 {
        let key = format!("user-{key}");
        let mut sources = Vec::new();
        let mut tags = std::collections::HashSet::new();
        for _ in 0..2 {
            for node in &nodes {
                let answer = node
                    .client()
                    .await
                    .get(get(&key))
                    .await
                    .expect("a value")
                    .into_inner();
                assert_eq!(answer.value, format!("value of {key}"));
                let left = answer.ttl_remaining_ms.expect("it expires");
                assert!((1..=600_000).contains(&left), "{left}");
                sources.push(answer.source());
                owners.insert(answer.owner);
                tags.insert(answer.entity_tag);
            }
        }
        assert_eq!(sources[0], wire::Source::Origin);
        let count = |wanted| sources.iter().filter(|source| **source == wanted).count();
        assert_eq!(count(wire::Source::Origin), 1, "{sources:?}");
        assert!(
            count(wire::Source::Hit) <= 2,
            "only the owner has it: {sources:?}"
        );
        assert_eq!(tags.len(), 1);
        assert_eq!(origin.loads_of(&key), 1);
    }
    assert_eq!(owners.len(), 3);
}

#[tokio::test]
async fn large_values_pass_both_listeners_and_a_hop_unchanged() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &[]).await;
    for size in [0, 1, 4096, 4097, 20_000, 1 << 20] {
        for node in &nodes {
            let key = format!("size-{size}");
            let answer = node
                .client()
                .await
                .get(get(&key))
                .await
                .expect("a value")
                .into_inner();
            assert_eq!(answer.value, vec![b'x'; size]);
            let body = http()
                .get(node.http(&format!("/v1/users/{key}")))
                .send()
                .await
                .unwrap();
            assert_eq!(body.status(), 200);
            assert_eq!(body.bytes().await.unwrap(), vec![b'x'; size]);
        }
    }
    let error = nodes[0]
        .client()
        .await
        .get(get("size-1048577"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(
        error.metadata().get("gaocache-error").unwrap(),
        "value_too_large"
    );
}

#[tokio::test]
async fn get_many_answers_every_key_with_a_value_or_its_error() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &[]).await;
    let keys: Vec<String> = (0..200)
        .map(|n| format!("user-{n}"))
        .chain(["missing".into(), String::new()])
        .collect();
    let request = wire::GetManyRequest {
        group: "users".into(),
        keys: keys.clone(),
    };
    let mut stream = nodes[0]
        .client()
        .await
        .get_many(request)
        .await
        .unwrap()
        .into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = within("an answer", stream.message()).await.unwrap() {
        match answer.outcome.expect("an outcome") {
            Outcome::Found(found) => assert_eq!(found.value, format!("value of {}", answer.key)),
            Outcome::Error(error) if answer.key == "missing" => {
                assert_eq!(
                    (error.code, error.kind.as_str()),
                    (Code::NotFound.into(), "not_found")
                );
            }
            Outcome::Error(error) => {
                assert_eq!(
                    (answer.key.as_str(), error.kind.as_str()),
                    ("", "invalid_request")
                );
            }
        }
        seen.push(answer.key);
    }
    seen.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(seen, keys);
}

#[tokio::test]
async fn http_conditional_requests_and_remaining_life() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &[]).await;
    let url = nodes[0].http("/v1/users/a%2Fb%20c");
    let first = http().get(&url).send().await.unwrap();
    assert_eq!(first.headers()["x-cache"], "origin");
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let control = first.headers()["cache-control"]
        .to_str()
        .unwrap()
        .to_owned();
    let age: u64 = control.strip_prefix("max-age=").unwrap().parse().unwrap();
    assert!((500..=600).contains(&age), "{age}");
    assert_eq!(first.text().await.unwrap(), "value of a/b c");
    let again = http()
        .get(&url)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"].to_str().unwrap(), tag);
    let other = http()
        .get(&url)
        .header("if-none-match", "\"other\"")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    // Another node has the same tag.
    let elsewhere = http().get(nodes[1].http("/v1/users/a%2Fb%20c"));
    let elsewhere = elsewhere
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(elsewhere.status(), 304);
    let head = http().head(&url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "14");
}

#[tokio::test]
async fn removal_and_purge_reach_every_node_from_any_node() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["cache.hot_after_requests=2"]).await;
    let read_everywhere = async || {
        for node in &nodes {
            for _ in 0..4 {
                node.client()
                    .await
                    .get(get("alice"))
                    .await
                    .expect("a value");
            }
        }
    };
    read_everywhere().await;
    assert_eq!(origin.loads(), 1);
    let removed = http()
        .delete(nodes[0].http("/v1/users/alice"))
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 204);
    read_everywhere().await;
    assert_eq!(origin.loads(), 2);
    let request = wire::RemoveRequest {
        group: "users".into(),
        key: "alice".into(),
    };
    nodes[1]
        .client()
        .await
        .remove(request)
        .await
        .expect("removed");
    read_everywhere().await;
    assert_eq!(origin.loads(), 3);
    // For a while after its removal, no copies are made of a key.
    for node in &nodes {
        for _ in 0..4 {
            let got = node.client().await.get(get("bob")).await;
            got.expect("a value");
        }
    }
    assert_eq!(origin.loads(), 4);
    let request = wire::PurgeRequest {
        group: "users".into(),
    };
    let purged = nodes[2]
        .client()
        .await
        .purge(request)
        .await
        .expect("purged");
    assert!(
        purged.into_inner().entries >= 2,
        "the entry and a hot copy at least"
    );
    read_everywhere().await;
    assert_eq!(origin.loads(), 5);
}

#[tokio::test]
async fn a_peer_is_answered_from_memory_or_by_a_load_and_looks_never_load() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(2, &origin.url(), &["peer.insecure=true"]).await;
    // Whoever owns the key: each node answers a fetch itself.
    for (number, node) in nodes.iter().enumerate() {
        let url = format!("http://{}", node.addresses.peer);
        let mut peer = PeerClient::connect(url).await.unwrap();
        let peek = wire::PeekRequest {
            group: "users".into(),
            key: "alice".into(),
        };
        let entry = peer.peek(peek.clone()).await.unwrap().into_inner().answer;
        assert!(entry.is_none());
        let fetch = wire::FetchRequest {
            group: "users".into(),
            key: "alice".into(),
        };
        let fetched = peer.fetch(fetch).await.unwrap().into_inner();
        assert_eq!(origin.loads(), 1, "the second finds it at the first");
        let expected = [wire::Source::Origin, wire::Source::Hit];
        assert_eq!(fetched.source(), expected[number]);
        let forwarded = metric(node, "gaocache_peer_fetches_total", &[]).await;
        assert_eq!(forwarded, 0.0, "never forwarded");
        if number > 0 {
            break;
        }
        let entry = peer
            .peek(peek)
            .await
            .unwrap()
            .into_inner()
            .answer
            .expect("held");
        let (held, fetched) = (entry.entry.expect("one"), fetched.entry.expect("one"));
        assert_eq!(held.value, fetched.value);
        assert!(held.ttl_remaining_ms <= fetched.ttl_remaining_ms, "older");
        assert!(held.ttl_remaining_ms.is_some());
    }
}
