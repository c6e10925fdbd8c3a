//! Nodes whose link to etcd is cut, and removals meanwhile. What needs cuts between nodes is in the
//! chaos test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{
    CountingOrigin,
    etcd::{Etcd, free_port},
    http,
    process::{NodeProcess, agree},
};
use gaocache_testing::Proxy;

const KEYS: usize = 20;

fn url(node: &NodeProcess, key: &str) -> String {
    format!("http://127.0.0.1:{}/v1/users/{key}", node.http)
}

/// Gets a key; returns where the answer came from.
async fn get(node: &NodeProcess, key: &str) -> String {
    let answer = http().get(url(node, key)).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{key} at {}", node.id);
    answer.headers()["x-cache"].to_str().unwrap().to_owned()
}

async fn remove(node: &NodeProcess, key: &str) -> u16 {
    let answer = http().delete(url(node, key)).send().await.unwrap();
    answer.status().as_u16()
}

/// A node whose lease is long enough for another to start meanwhile.
fn patient(id: &str, etcd: &str, origin: &CountingOrigin) -> NodeProcess {
    let lease = "registry.etcd.lease_ttl_seconds=6";
    NodeProcess::start(id, &[etcd], &origin.url(), &[lease])
}

#[tokio::test]
async fn a_node_that_lost_its_link_to_etcd_serves_nothing_that_was_removed_then_or_later() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let link = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let start = |id, etcd: &str| NodeProcess::start(id, &[etcd], &origin.url(), &[]);
    let linked = link.url();
    let nodes = [
        start("n0", &etcd.url),
        start("n1", &etcd.url),
        start("n2", &linked),
    ];
    agree(&nodes).await;
    let keys = nodes[2].own_keys(KEYS).await;
    for key in &keys {
        get(&nodes[2], key).await;
        assert_eq!(get(&nodes[2], key).await, "hit");
    }
    link.cut();
    // Its members are in reach all the time, and it is off their list when its lease is over.
    nodes[0].until_ring(&["n0", "n1"]).await;
    for key in &keys {
        assert_eq!(remove(&nodes[0], key).await, 204);
    }
    for key in &keys {
        assert_ne!(get(&nodes[2], key).await, "hit", "{key}: the removed value");
        assert!(origin.loads_of(key) > 1, "{key}: the removed value");
    }
    assert_eq!(
        remove(&nodes[2], &keys[0]).await,
        503,
        "it knows nobody for sure"
    );
    let loads: Vec<usize> = keys.iter().map(|key| origin.loads_of(key)).collect();
    link.mend();
    agree(&nodes).await;
    // Nothing old spreads afterwards, and nothing new was lost.
    for node in &nodes {
        for key in &keys {
            get(node, key).await;
        }
    }
    let after: Vec<usize> = keys.iter().map(|key| origin.loads_of(key)).collect();
    assert_eq!(after, loads, "loaded once after the removal");
    assert_eq!(nodes[2].metric("gaocache_expulsions_total", "").await, 1.0);
}

#[tokio::test]
async fn a_node_that_never_reached_etcd_serves_gets_and_acknowledges_no_removal() {
    let origin = CountingOrigin::start().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let node = NodeProcess::start("n0", &[&nowhere], &origin.url(), &[]);
    common::within("its listener", async {
        while http().get(url(&node, "k")).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(&node, "k").await, "origin");
    assert_eq!(remove(&node, "k").await, 503);
}

#[tokio::test]
async fn a_member_that_was_killed_holds_up_a_removal_until_its_lease_is_over_and_no_longer() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let start = |id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &[]);
    let mut nodes = vec![start("n0"), start("n1"), start("n2")];
    agree(&nodes).await;
    let keys = nodes[2].own_keys(KEYS).await;
    for key in &keys {
        get(&nodes[0], key).await;
    }
    nodes.pop().expect("three").kill();
    // All at once: each waits for the same member.
    let removals = keys.iter().map(|key| remove(&nodes[0], key));
    for status in futures::future::join_all(removals).await {
        assert_eq!(status, 204);
    }
    for key in &keys {
        get(&nodes[1], key).await;
        assert!(origin.loads_of(key) > 1, "{key}: the removed value");
    }
}

#[tokio::test]
async fn who_starts_over_an_emptied_etcd_acknowledges_no_removal_that_old_members_are_not_told_of()
{
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let link = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let linked = link.url();
    let start = |id, etcd: &str| patient(id, etcd, &origin);
    let old = start("n0", &linked);
    let mut fresh = start("n1", &etcd.url);
    for node in [&old, &fresh] {
        node.until_ring(&["n0", "n1"]).await;
        node.until_ready().await;
    }
    let key = old.own_keys(1).await.remove(0);
    get(&old, &key).await;
    assert_eq!(get(&old, &key).await, "hit");
    // It relies on its lease, and nothing can reach it through etcd.
    link.cut();
    fresh.kill();
    etcd.wipe().await;
    let fresh = start("n1", &etcd.url);
    removed(&fresh, &key).await;
    assert_ne!(get(&old, &key).await, "hit", "the removed value");
}

/// Asks again and again, until it is acknowledged.
async fn removed(node: &NodeProcess, key: &str) {
    common::within("a removal", async {
        let removed = || async {
            let answer = http().delete(url(node, key)).send().await;
            answer.is_ok_and(|answer| answer.status() == 204)
        };
        while !removed().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// All but one of those from before hear of the loss, late.
#[tokio::test]
async fn who_can_t_reach_an_emptied_etcd_is_kept_going_by_nobody_when_others_begin_there() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let address = || etcd.url.trim_start_matches("http://").parse().unwrap();
    let (late, never) = (Proxy::to(address()).await, Proxy::to(address()).await);
    let (late_url, never_url) = (late.url(), never.url());
    let start = |id, etcd: &str| {
        let lease = "registry.etcd.lease_ttl_seconds=4";
        NodeProcess::start(id, &[etcd], &origin.url(), &[lease])
    };
    let old = [
        start("n0", &late_url),
        start("n1", &never_url),
        start("n2", &late_url),
    ];
    let mut fresh = start("n3", &etcd.url);
    for node in old.iter().chain([&fresh]) {
        node.until_ring(&["n0", "n1", "n2", "n3"]).await;
        node.until_ready().await;
    }
    let key = old[1].own_keys(1).await.remove(0);
    get(&old[1], &key).await;
    assert_eq!(get(&old[1], &key).await, "hit");
    late.cut();
    never.cut();
    fresh.kill();
    etcd.wipe().await;
    let fresh = start("n3", &etcd.url);
    common::within("the mark of an emptied etcd", async {
        while etcd.keys("gaocache.young").await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // For so long, the old ones know nothing of it: the later they hear, the longer they keep the
    // one that doesn't.
    tokio::time::sleep(Duration::from_secs(2)).await;
    late.mend();
    removed(&fresh, &key).await;
    assert_ne!(get(&old[1], &key).await, "hit", "the removed value");
    never.mend();
    let [n0, n1, n2] = old;
    agree(&[n0, n1, n2, fresh]).await;
}

/// One that registered after the backup relies on its lease, and can't hear of it.
#[tokio::test]
async fn who_starts_over_a_restored_etcd_acknowledges_no_removal_that_later_members_are_not_told_of()
 {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let link = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let linked = link.url();
    let start = |id, etcd: &str| patient(id, etcd, &origin);
    let first = start("n0", &etcd.url);
    first.until_ready().await;
    let backup = etcd.back_up().await;
    let later = start("n1", &linked);
    for node in [&first, &later] {
        node.until_ring(&["n0", "n1"]).await;
        node.until_ready().await;
    }
    let key = later.own_keys(1).await.remove(0);
    get(&later, &key).await;
    assert_eq!(get(&later, &key).await, "hit");
    link.cut();
    etcd.restore(&backup).await;
    // Others write to it, too, so that its revision is soon past the one before.
    let mut client = etcd.client().await;
    for _ in 0..100 {
        client.put("another/service", "", None).await.unwrap();
    }
    let fresh = start("n2", &etcd.url);
    removed(&fresh, &key).await;
    assert_ne!(get(&later, &key).await, "hit", "the removed value");
    link.mend();
    agree(&[first, later, fresh]).await;
}

/// Its lease was in the backup, so it can renew it again.
#[tokio::test]
async fn who_was_taken_off_the_list_begins_anew_although_a_restored_etcd_lists_it_again() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let link = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let linked = link.url();
    let start = |id, etcd: &str| NodeProcess::start(id, &[etcd], &origin.url(), &[]);
    let nodes = [
        start("n0", &etcd.url),
        start("n1", &etcd.url),
        start("n2", &linked),
    ];
    agree(&nodes).await;
    let key = nodes[2].own_keys(1).await.remove(0);
    get(&nodes[2], &key).await;
    assert_eq!(get(&nodes[2], &key).await, "hit");
    let backup = etcd.back_up().await;
    link.cut();
    nodes[0].until_ring(&["n0", "n1"]).await;
    removed(&nodes[0], &key).await;
    etcd.restore(&backup).await;
    link.mend();
    common::within("it drops what it had", async {
        while nodes[2].metric("gaocache_expulsions_total", "").await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    agree(&nodes).await;
    get(&nodes[2], &key).await;
    assert!(origin.loads_of(&key) > 1, "the removed value");
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_lets_nobody_serve_when_it_is_written_again() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let link = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let linked = link.url();
    let start = |id, etcd: &str| NodeProcess::start(id, &[etcd], &origin.url(), &[]);
    let members = [start("n0", &etcd.url), start("n1", &etcd.url)];
    agree(&members).await;
    let mut client = etcd.client().await;
    let mut watch = client.watch("gaocache/n2", None).await.unwrap();
    // It is registered, and sees that, but gets no confirmation. The others have seen it, too.
    link.lose_answer_to("joining");
    let late = start("n2", &linked);
    let recorded = async |stands: bool| {
        let what = format!("its record stands: {stands}");
        common::within(&what, async {
            while etcd.keys("gaocache.roster/n2").await.is_empty() == stands {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    recorded(true).await;
    // They take it off the list when its lease is over. From then on it hears of no removals.
    recorded(false).await;
    link.mend();
    let mut written = Vec::new();
    common::within("two registrations", async {
        while written.len() < 2 {
            let answer = watch.message().await.unwrap().expect("the watch goes on");
            let keys = answer.events().iter().filter_map(|event| event.kv());
            let values = keys.map(|key| key.value_str().unwrap().to_owned());
            written.extend(values.filter(|value| !value.is_empty()));
        }
    })
    .await;
    for value in &written[..2] {
        assert!(value.contains(r#""state":"joining""#), "{value}");
    }
    let [first, second] = members;
    agree(&[first, second, late]).await;
}
