//! Several keys at once: the messages that it takes, and peers that don't answer as they should.

use gaocache::internal::wire::{
    FetchManyResponse, GetManyRequest, GetManyResponse, fetch_many_response::Outcome,
    get_many_response::Outcome as Got,
};
use tonic::Status;

use super::{
    made_up::{Many, Other},
    *,
};

/// Answers for these keys of the group `users`, in their order.
async fn get_many(node: &TestNode, keys: &[String]) -> Vec<GetManyResponse> {
    let request = GetManyRequest {
        group: "users".into(),
        keys: keys.to_vec(),
    };
    let read = async {
        let mut client = node.client().await;
        let mut answers = client
            .get_many(request)
            .await
            .expect("answers")
            .into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.expect("goes on") {
            all.push(answer);
        }
        all
    };
    let mut all = within("all answers", read).await;
    let place = |it: &GetManyResponse| keys.iter().position(|key| *key == it.key);
    all.sort_by_key(place);
    all
}

fn keys(what: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{what}-{number}"))
        .collect()
}

/// The value, and the id of the owner.
fn found(answer: &GetManyResponse) -> (&[u8], &str) {
    match &answer.outcome {
        Some(Got::Found(found)) => (&found.value, &found.owner),
        other => panic!("{}: {other:?}", answer.key),
    }
}

async fn messages(node: &TestNode, call: &str) -> f64 {
    let call = format!("call=\"{call}\"");
    metric(node, "gaocache_peer_messages_total", &[&call]).await
}

#[tokio::test]
async fn a_thousand_keys_over_five_nodes_take_at_most_five_messages() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(5, &origin.url(), &[]).await;
    let keys = keys("key", 1_000);
    for round in ["loads", "hits of the owners"] {
        let before = metric(&nodes[0], "gaocache_peer_messages_total", &[]).await;
        let peeks = messages(&nodes[0], "peek").await;
        let answers = get_many(&nodes[0], &keys).await;
        assert_eq!(answers.len(), 1_000);
        for (key, answer) in keys.iter().zip(&answers) {
            assert_eq!(found(answer).0, format!("value of {key}").as_bytes());
        }
        let all = metric(&nodes[0], "gaocache_peer_messages_total", &[]).await - before;
        // While the ring is new, who loads a key first asks its owner before.
        let peeks = messages(&nodes[0], "peek").await - peeks;
        println!(
            "{round}: {} messages for values, {peeks} peeks",
            all - peeks
        );
        assert!(all - peeks <= 5.0, "{round}: {all} messages");
        assert!(round == "loads" || peeks == 0.0, "{peeks} peeks");
    }
    assert_eq!(origin.loads(), 1_000);
    assert_eq!(messages(&nodes[0], "fetch").await, 0.0);
    assert_eq!(messages(&nodes[0], "fetch_many").await, 8.0);

    // By now it is known that the owners have them.
    let hits = |node| metric(node, "gaocache_peer_fetches_total", &["hit"]);
    let before = hits(&nodes[0]).await;
    for (key, answer) in keys.iter().zip(get_many(&nodes[0], &keys).await) {
        assert_eq!(found(&answer).0, format!("value of {key}").as_bytes());
    }
    assert_eq!(messages(&nodes[0], "fetch_held").await, 4.0);
    assert_eq!(messages(&nodes[0], "fetch_many").await, 8.0);
    assert!(hits(&nodes[0]).await > before + 500.0, "each counts");
    let others: Vec<String> = keys.iter().map(|key| format!("other-{key}")).collect();
    for (key, answer) in others.iter().zip(get_many(&nodes[0], &others).await) {
        assert_eq!(found(&answer).0, format!("value of {key}").as_bytes());
    }
    assert_eq!(origin.loads(), 2_000, "once each");
    assert_eq!(messages(&nodes[0], "fetch_held").await, 8.0);
    assert_eq!(messages(&nodes[0], "fetch_many").await, 12.0);
    assert_eq!(get_many(&nodes[0], &others).await.len(), 1_000);
    assert_eq!(
        messages(&nodes[0], "fetch_held").await,
        8.0,
        "few were there"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_know_the_call_is_asked_key_by_key_and_not_ejected() {
    let origin = CountingOrigin::start().await;
    let other = Other {
        format: Some(1),
        ..Other::default()
    };
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &[]).await;
    let keys = keys("key", 60);
    let answers = get_many(&node, &keys).await;
    let others = answers.iter().map(found).filter(|it| it.1 == "other");
    let count = others
        .inspect(|it| assert_eq!(it.0, b"not to be trusted"))
        .count();
    assert!(count > 1, "it owns keys");
    assert_eq!(messages(&node, "fetch_many").await, 1.0);
    assert_eq!(messages(&node, "fetch").await, count as f64);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
}

/// A made-up value for each key.
fn all_found(keys: Vec<String>) -> Vec<Many> {
    let answer = |(place, key): (usize, String)| {
        let entry = wire::Entry {
            value: format!("made up for {key}").into(),
            found: true,
            ..wire::Entry::default()
        };
        let found = wire::FetchResponse {
            format: 1,
            entry: Some(entry),
            ..wire::FetchResponse::default()
        };
        Ok(FetchManyResponse {
            place: u32::try_from(place).unwrap(),
            outcome: Some(Outcome::Found(found)),
        })
    };
    keys.into_iter().enumerate().map(answer).collect()
}

/// As an older release does.
#[tokio::test]
async fn an_owner_that_was_asked_first_in_vain_is_asked_once_for_each_of_the_next_batches() {
    let origin = CountingOrigin::start().await;
    let other = Other {
        answers_many: Some(|keys| {
            let mut answers = all_found(keys);
            for answer in answers.iter_mut().flatten() {
                if let Some(Outcome::Found(found)) = &mut answer.outcome {
                    found.set_source(wire::Source::Hit);
                }
            }
            answers
        }),
        ..Other::default()
    };
    let further = ["cache.hot_after_requests=0"];
    let node = node_among(&[("other", other.serve().await)], &origin.url(), &further).await;
    let keys = keys("key", 60);
    for _ in 0..10 {
        assert_eq!(get_many(&node, &keys).await.len(), 60);
    }
    assert_eq!(messages(&node, "fetch_many").await, 10.0);
    assert_eq!(messages(&node, "fetch_held").await, 1.0);
}

#[tokio::test]
async fn who_asks_for_no_keys_gets_no_answers() {
    let origin = CountingOrigin::start().await;
    let node = node_among(&[], &origin.url(), &[]).await;
    let none = GetManyRequest {
        group: "users".into(),
        keys: Vec::new(),
    };
    let answers = within("an answer", node.client().await.get_many(none)).await;
    let mut answers = answers.unwrap().into_inner();
    let first = within("the end", answers.message()).await;
    assert_eq!(first.unwrap(), None);
}

#[tokio::test]
async fn what_a_peer_leaves_open_or_makes_up_is_fetched_key_by_key() {
    type Answers = fn(Vec<String>) -> Vec<Many>;
    let ends: Answers = |keys| all_found(keys).into_iter().take(3).collect();
    let breaks: Answers = |keys| {
        let mut answers = all_found(keys);
        answers.truncate(3);
        answers.push(Err(Status::internal("no more")));
        answers
    };
    let strange: Answers = |keys| {
        let mut answers = all_found(keys);
        for answer in answers.iter_mut().skip(3).flatten() {
            answer.place = match answer.place % 3 {
                0 => 0,
                1 => u32::MAX,
                _ => continue,
            };
            if answer.place % 2 == 0 {
                answer.outcome = None;
            }
        }
        answers
    };
    for answers_many in [ends, breaks, strange] {
        let origin = CountingOrigin::start().await;
        let other = Other {
            format: Some(1),
            answers_many: Some(answers_many),
            ..Other::default()
        };
        let node = node_among(&[("other", other.serve().await)], &origin.url(), &[]).await;
        let answers = get_many(&node, &keys("key", 60)).await;
        assert_eq!(answers.len(), 60);
        let of_other: Vec<&[u8]> = answers
            .iter()
            .map(found)
            .filter(|it| it.1 == "other")
            .map(|it| it.0)
            .collect();
        let together = of_other
            .iter()
            .filter(|it| it.starts_with(b"made up"))
            .count();
        let alone = of_other
            .iter()
            .filter(|it| **it == b"not to be trusted")
            .count();
        assert!(together >= 3, "{together} came with others");
        assert_eq!(together + alone, of_other.len());
        assert_eq!(messages(&node, "fetch").await, alone as f64);
        assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn an_error_for_all_keys_is_each_key_s_and_one_that_another_may_know_better_is_not() {
    for (kind, served) in [("origin_failed", false), ("not_ready", true)] {
        let origin = CountingOrigin::start().await;
        let answers: fn(Vec<String>) -> Vec<Many> = match served {
            false => |_| vec![Err(told("origin_failed"))],
            true => |_| vec![Err(told("not_ready"))],
        };
        let other = Other {
            format: Some(1),
            answers_many: Some(answers),
            ..Other::default()
        };
        let node = node_among(&[("other", other.serve().await)], &origin.url(), &[]).await;
        for answer in get_many(&node, &keys("key", 60)).await {
            match answer.outcome.expect("one") {
                Got::Found(_) => {}
                Got::Error(error) => assert_eq!((&*error.kind, served), (kind, false)),
            }
        }
        assert_eq!(messages(&node, "fetch").await, 0.0);
        assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
        assert_eq!(origin.loads() == 60, served, "{kind}: {}", origin.loads());
    }
}

/// What a node says of an error.
fn told(kind: &str) -> Status {
    let mut status = Status::unavailable("why");
    let kind = kind.parse().expect("ascii");
    status.metadata_mut().insert("gaocache-error", kind);
    status
}

#[tokio::test]
async fn values_too_large_for_a_batch_arrive_and_a_batch_over_the_limit_is_refused() {
    let origin = CountingOrigin::start().await;
    let further = ["peer.insecure=true"];
    let nodes = cluster(2, &origin.url(), &further).await;
    let sizes: Vec<String> = (0..20)
        .map(|more| format!("size-{}", 200_000 + more))
        .collect();
    for _ in 0..2 {
        for (key, answer) in sizes.iter().zip(get_many(&nodes[0], &sizes).await) {
            let size: usize = key.trim_start_matches("size-").parse().unwrap();
            assert_eq!(found(&answer).0.len(), size);
        }
    }
    assert_eq!(origin.loads(), 20, "none is loaded twice");
    assert!(messages(&nodes[0], "fetch").await > 0.0);

    let address = format!("http://{}", nodes[1].addresses.peer);
    let mut peer = wire::peer_client::PeerClient::connect(address)
        .await
        .unwrap();
    let request = |count| wire::FetchManyRequest {
        group: "users".into(),
        keys: keys("key", count),
    };
    assert!(peer.fetch_many(request(1_024)).await.is_ok());
    let refused = peer.fetch_many(request(1_025)).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let unknown = wire::FetchManyRequest {
        group: "nobody's".into(),
        ..request(2)
    };
    let refused = peer.fetch_many(unknown).await.expect_err("refused");
    assert_eq!(
        refused.metadata().get("gaocache-error").unwrap(),
        "unknown_group"
    );
}
