//! Values past their life, over the wire: nodes of one cluster, and an origin that is slow or down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing};
use common::*;
use futures::future::join_all;
use gaocache::internal::wire::Source;
use parking_lot::Mutex;
use tokio::net::TcpListener;

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

/// An origin that numbers the loads of each key, and notes how many run at once.
#[derive(Default)]
struct Numbering {
    loads: Mutex<HashMap<String, u64>>,
    /// In milliseconds; the first load of a key takes no time.
    takes: AtomicU64,
    down: AtomicBool,
    asked: AtomicU64,
    running: AtomicU64,
    most: AtomicU64,
}

impl Numbering {
    async fn start(self: &Arc<Self>) -> String {
        let state = self.clone();
        let answer = async move |Path(key): Path<String>| {
            state.asked.fetch_add(1, SeqCst);
            if state.down.load(SeqCst) {
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
            let running = state.running.fetch_add(1, SeqCst) + 1;
            state.most.fetch_max(running, SeqCst);
            let number = {
                let mut loads = state.loads.lock();
                let number = loads.entry(key).or_default();
                *number += 1;
                *number
            };
            if number > 1 {
                let takes = state.takes.load(SeqCst);
                tokio::time::sleep(Duration::from_millis(takes)).await;
            }
            state.running.fetch_sub(1, SeqCst);
            Ok(number.to_string())
        };
        let router = Router::new().route("/{key}", routing::get(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/{{key}}")
    }

    fn loads_of(&self, key: &str) -> u64 {
        self.loads.lock().get(key).copied().unwrap_or(0)
    }

    /// Three nodes over it.
    async fn nodes(self: &Arc<Self>, group: &str, origin: &str) -> Vec<TestNode> {
        let url = self.start().await;
        let groups = format!(
            "groups=[{{ name = \"users\", max_value = \"1MiB\", {group}, origin = {{ kind = \"http\", url = \"{url}\", retries = 0, {origin} }} }}]"
        );
        cluster(3, &url, &[&groups]).await
    }
}

/// Of these durations, so large is what that share of them don't exceed.
fn quantile(took: &mut [Duration], share: f64) -> Duration {
    took.sort_unstable();
    took[((took.len() - 1) as f64 * share) as usize]
}

/// `cargo test --test freshness five_expiries -- --nocapture` prints the durations; the goal is a
/// ratio of 1.2. No test may fail on time: what is asserted is that no get waits for a load, and
/// that no key is loaded twice for one expiry.
#[allow(clippy::disallowed_methods, reason = "what is printed is real time")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_five_expiries_no_get_waits_for_the_slow_origin_and_each_key_is_loaded_once() {
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    let origin = Arc::<Numbering>::default();
    origin.takes.store(2_000, SeqCst);
    let group = "ttl_seconds = 0.5, stale_while_revalidate_seconds = 3600";
    let nodes = origin.nodes(group, "timeout_seconds = 60").await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.client().await);
    }
    let (mut fresh, mut stale) = (Vec::new(), Vec::new());
    let mut newest = 0;
    while newest <= 5 {
        newest = u64::MAX;
        for key in &keys {
            for client in &mut clients {
                let loads = origin.loads_of(key);
                let began = std::time::Instant::now();
                let got = within(key, client.get(get_request(key))).await;
                let took = began.elapsed();
                let got = got.expect("a value").into_inner();
                let number: u64 = String::from_utf8_lossy(&got.value).parse().unwrap();
                assert!(loads <= number + 1, "{loads} loads at value {number}");
                match got.source() {
                    Source::Stale => stale.push(took),
                    Source::Origin => assert_eq!(number, 1, "waited for a load"),
                    _ => {
                        assert_eq!(origin.loads_of(key), number, "it is not over yet");
                        fresh.push(took);
                    }
                }
                newest = newest.min(number);
            }
        }
    }
    let (hit, old) = (quantile(&mut fresh, 0.99), quantile(&mut stale, 0.99));
    println!(
        "{} hits: p99 {hit:?}; {} stale: p99 {old:?}; ratio {:.2}",
        fresh.len(),
        stale.len(),
        old.as_secs_f64() / hit.as_secs_f64()
    );
}

/// Prints how long it takes until all is as before, which no test may fail on.
#[allow(clippy::disallowed_methods, reason = "what is printed is real time")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_while_the_origin_is_dead_and_it_comes_back_without_a_herd() {
    let keys: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    let origin = Arc::<Numbering>::default();
    origin.takes.store(5, SeqCst);
    let group =
        "ttl_seconds = 0.02, stale_while_revalidate_seconds = 3600, stale_if_error_seconds = 3600";
    // Two loads at once for each node, a tenth of twenty, for as long as this test runs.
    let rules = "breaker_failure_ratio = 0.5, breaker_min_loads = 2, breaker_open_seconds = 0.2, max_concurrency = 20, ramp_seconds = 3600";
    let nodes = origin.nodes(group, rules).await;
    for key in &keys {
        assert_eq!(get(&nodes[0], key).await.status, 200);
    }
    origin.down.store(true, SeqCst);
    within("the breakers", async {
        for node in &nodes {
            while metric(node, "gaocache_origin_breaker_state", &["users"]).await == 0.0 {
                for key in &keys {
                    assert_eq!(get(node, key).await.status, 200, "{key}");
                }
            }
        }
    })
    .await;
    let (mut gets, asked, began) = (0, origin.asked.load(SeqCst), std::time::Instant::now());
    while began.elapsed() < Duration::from_secs(4) {
        for (number, key) in keys.iter().enumerate() {
            let got = get(&nodes[number % 3], key).await;
            assert_eq!(got.status, 200, "{key}");
            gets += 1;
        }
    }
    let probes = origin.asked.load(SeqCst) - asked;
    // One for each node and period, and one that was under way.
    let periods = began.elapsed().as_secs_f64() / 0.2;
    assert!(probes as f64 <= 3.0 * (periods + 2.0), "{probes}");
    origin.most.store(0, SeqCst);
    origin.down.store(false, SeqCst);
    let back = std::time::Instant::now();
    let loads: Vec<u64> = keys.iter().map(|key| origin.loads_of(key)).collect();
    within("all are loaded anew", async {
        while !keys
            .iter()
            .zip(&loads)
            .all(|(key, before)| origin.loads_of(key) > *before)
        {
            let all = keys.iter().zip(nodes.iter().cycle());
            let all = join_all(all.map(|(key, node)| get(node, key))).await;
            assert!(all.iter().all(|got| got.status == 200));
        }
    })
    .await;
    let most = origin.most.load(SeqCst);
    println!(
        "{gets} gets and {probes} probes while it was dead; {} keys loaded anew within {:?}, {most} at once",
        keys.len(),
        back.elapsed()
    );
    assert!(most <= 6, "{most} loads at once");
}
