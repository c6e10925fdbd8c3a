//! Values past their life, over the wire: nodes of one cluster, and an origin that is slow or down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;

/// Three nodes whose values live so shortly that a test can wait for their end, and their group's
/// further settings.
async fn short_lived(origin: &CountingOrigin, further: &str) -> Vec<TestNode> {
    let url = origin.url();
    let groups = format!(
        "groups=[{{ name = \"users\", ttl_seconds = 0.02, max_value = \"1MiB\", {further}, origin = {{ kind = \"http\", url = \"{url}\", retries = 0 }} }}]"
    );
    cluster(3, &url, &[&groups]).await
}

/// What a get brought.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: u16,
    source: String,
    text: String,
}

async fn get(node: &TestNode, key: &str) -> Got {
    let answer = within(
        "an answer",
        http().get(node.http(&format!("/v1/users/{key}"))).send(),
    );
    let answer = answer.await.unwrap();
    let source = answer.headers().get("x-cache");
    let source = source.map_or("", |it| it.to_str().unwrap()).to_owned();
    if source == "stale" {
        assert_eq!(answer.headers()["cache-control"], "max-age=0");
    }
    Got {
        status: answer.status().as_u16(),
        source,
        text: answer.text().await.unwrap(),
    }
}

/// Gets the key until it comes from that source; each get brings the value.
async fn until(node: &TestNode, key: &str, source: &str) {
    within(source, async {
        loop {
            let got = get(node, key).await;
            assert_eq!(got.text, format!("value of {key}"), "{got:?}");
            if got.source == source {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn while_a_slow_origin_is_asked_every_node_answers_with_the_old_value() {
    let origin = CountingOrigin::start().await;
    let nodes = short_lived(&origin, "stale_while_revalidate_seconds = 86400").await;
    until(&nodes[0], "k", "origin").await;
    origin.hold();
    for node in &nodes {
        until(node, "k", "stale").await;
        // The load is held, so no get waits for it.
        assert_eq!(get(node, "k").await.source, "stale");
    }
    let asked = origin.loads_of("k");
    for node in &nodes {
        assert_eq!(get(node, "k").await.status, 200);
    }
    assert_eq!(origin.loads_of("k"), asked, "one load, however many ask");
    let counted = metric(&nodes[0], "gaocache_requests_total", &["\"stale\""]).await;
    assert!(counted >= 2.0, "{counted}");

    let mut client = nodes[0].client().await;
    let answer = client.get(get_request("k")).await.unwrap().into_inner();
    assert_eq!(answer.source(), gaocache::internal::wire::Source::Stale);
    assert_eq!(answer.ttl_remaining_ms, Some(0));
    origin.release();
}

#[tokio::test]
async fn while_the_origin_is_down_no_get_fails_that_has_an_old_value_until_it_is_removed() {
    let origin = CountingOrigin::start().await;
    let further = "stale_if_error_seconds = 86400, error_ttl_seconds = 60";
    let nodes = short_lived(&origin, further).await;
    until(&nodes[0], "k", "origin").await;
    origin.is_down(true);
    for node in &nodes {
        until(node, "k", "stale").await;
    }
    let asked = origin.loads_of("k");
    for node in &nodes {
        assert_eq!(get(node, "k").await.source, "stale");
    }
    assert_eq!(origin.loads_of("k"), asked, "the failure is kept in mind");
    let removal = http().delete(nodes[1].http("/v1/users/k")).send();
    assert_eq!(removal.await.unwrap().status(), 204);
    for node in &nodes {
        assert_eq!(get(node, "k").await.status, 502, "removed");
    }
    assert_eq!(get(&nodes[0], "never-loaded").await.status, 502);
}

/// An origin that fails is left alone, and the old values stand in.
#[tokio::test]
async fn an_open_breaker_serves_old_values() {
    let origin = CountingOrigin::start().await;
    let url = origin.url();
    let groups = format!(
        "groups=[{{ name = \"users\", ttl_seconds = 0.02, max_value = \"1MiB\", stale_if_error_seconds = 86400, origin = {{ kind = \"http\", url = \"{url}\", retries = 0, breaker_failure_ratio = 0.5, breaker_min_loads = 2, breaker_open_seconds = 3600 }} }}]"
    );
    let nodes = cluster(1, &url, &[&groups]).await;
    until(&nodes[0], "k", "origin").await;
    origin.is_down(true);
    within("the breaker", async {
        while metric(&nodes[0], "gaocache_origin_breaker_state", &[]).await != 2.0 {
            assert_eq!(get(&nodes[0], "k").await.status, 200);
        }
    })
    .await;
    let asked = origin.loads();
    assert_eq!(get(&nodes[0], "k").await.source, "stale");
    assert_eq!(get(&nodes[0], "never-loaded").await.status, 503);
    assert_eq!(origin.loads(), asked);
}

/// A life that ends soon, though the group's own has no end.
#[tokio::test]
async fn the_longest_life_of_a_group_bounds_one_without_an_end() {
    let origin = CountingOrigin::start().await;
    let url = origin.url();
    let groups = format!(
        "groups=[{{ name = \"users\", max_ttl_seconds = 30, max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"{url}\" }} }}]"
    );
    let nodes = cluster(1, &url, &[&groups]).await;
    let mut client = nodes[0].client().await;
    let answer = client.get(get_request("k")).await.unwrap().into_inner();
    let left = answer.ttl_remaining_ms.expect("an end");
    assert!(left <= 30_000, "{left}");
}
