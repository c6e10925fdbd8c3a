//! Nodes that find each other in a real etcd, and what they do when it, its keys and its history
//! come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod clusters;
#[path = "../common/mod.rs"]
mod common;
mod ipv6;
mod one_id;

use std::time::Duration;

use common::{
    CountingOrigin, TestNode, builder,
    etcd::{Etcd, SecuredEtcd, node_settings},
    http, metric,
    process::NodeProcess,
    text_at, within,
};
use tokio::time::Instant;

async fn node(id: &str, etcd: &str, origin: &CountingOrigin) -> TestNode {
    let builder = builder(&node_settings(id, etcd, origin, &[]));
    TestNode::start(builder.bind().await.expect("binds"))
}

/// So many nodes that all see each other.
async fn nodes(number: usize, etcd: &Etcd, origin: &CountingOrigin) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for n in 0..number {
        nodes.push(node(&format!("n{n}"), &etcd.url, origin).await);
    }
    for node in &mut nodes {
        node.ring_of(number).await;
    }
    nodes
}

#[tokio::test]
async fn the_level_of_the_log_is_changed_while_the_node_runs() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &[]);
    node.until_ready().await;
    let client = common::http();
    let url = format!("http://127.0.0.1:{}/log", node.admin);
    let text = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let now = text(client.get(&url)).await;
    assert_eq!(now, (200, "info\n".into()));
    let wrong = text(client.put(format!("{url}?level=gaocache%3Dloud"))).await;
    assert_eq!(wrong.0, 400, "{}", wrong.1);
    assert!(wrong.1.contains("loud"), "{}", wrong.1);
    let changed = text(client.put(format!("{url}?level=info,h2=debug"))).await;
    assert_eq!(changed, (200, "info,h2=debug\n".into()));
    // What h2 does is logged from now on: the session with etcd is never silent for long.
    common::within("lines of h2", async {
        while !node.log.lock().iter().any(|line| line.contains("DEBUG")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_stands_in_etcd_as_go_writes_it_and_is_ready_when_it_has_seen_itself() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = node("gaocache-0", &etcd.url, &origin).await;
    node.ready().await;
    let keys = etcd.keys("gaocache/").await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].0, "gaocache/gaocache-0");
    let stored: serde_json::Value = serde_json::from_str(&keys[0].1).unwrap();
    assert_eq!(stored["Op"], 0);
    assert_eq!(stored["Addr"], node.addresses.grpc.to_string());
    assert_eq!(stored["Metadata"]["state"], "serving");
    let at = node.addresses.peer.to_string();
    assert_eq!(stored["Metadata"]["peer_address"], at);
    let key = node.rings.borrow().view.members[0].contact.key;
    let key = key.expect("a key").to_string();
    assert_eq!(stored["Metadata"]["peer_key"], key);
    assert_eq!(
        stored["Metadata"]["admin_port"],
        node.addresses.admin.port()
    );
    let mut client = etcd.client().await;
    let written = client.get("gaocache/gaocache-0", None).await.unwrap();
    let revision = written.kvs()[0].mod_revision();
    assert_eq!(
        node.rings.borrow().view.revision,
        revision as u64,
        "the view counts in etcd's revisions"
    );
    for (name, labels) in [
        ("gaocache_lease_renewals_total", ["outcome=\"ok\""]),
        ("gaocache_registrations_total", ["reason=\"start\""]),
    ] {
        assert!(common::metric(&node, name, &labels).await >= 1.0, "{name}");
    }
    assert_eq!(
        common::metric(&node, "gaocache_ring_members", &[]).await,
        1.0
    );
    node.stopped().await;
    assert!(etcd.keys("gaocache/").await.is_empty(), "deregistered");
}

#[tokio::test]
async fn nodes_join_and_leave_and_all_agree() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = nodes(3, &etcd, &origin).await;
    let view = nodes[0].rings.borrow().view.clone();
    for node in &nodes {
        assert_eq!(node.rings.borrow().view, view);
    }
    // The leaving one waits until the others have seen it go.
    let leaving = nodes.pop().unwrap();
    leaving.stop();
    for node in &mut nodes {
        node.ring_of(2).await;
    }
    leaving.stopped().await;
}

#[tokio::test]
async fn a_node_waits_for_an_etcd_that_is_down_and_says_so() {
    let origin = CountingOrigin::start().await;
    let mut etcd = Etcd::start().await;
    etcd.kill();
    let mut node = node("n0", &etcd.url, &origin).await;
    let why = node.readiness.wait_for(|why| why.contains("etcd"));
    within("a reason", why).await.unwrap();
    let answer = common::http()
        .get(node.admin("/readyz"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("etcd"));
    etcd.revive().await;
    node.ready().await;
}

#[tokio::test]
async fn the_last_ring_stays_while_etcd_is_away_and_reads_go_on() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = vec![
        node("n0", &etcd.url, &origin).await,
        node("n1", &etcd.url, &origin).await,
    ];
    for node in &mut nodes {
        node.ring_of(2).await;
        node.ready().await;
    }
    etcd.kill();
    within("it is noticed", async {
        while common::metric(&nodes[0], "gaocache_watch_reconnects_total", &[]).await == 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for key in 0..20 {
        for node in &nodes {
            let answer = common::http()
                .get(node.http(&format!("/v1/users/k{key}")))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    assert_eq!(origin.loads(), 20, "the ring is as it was");
    assert_eq!(
        common::http()
            .get(nodes[0].admin("/readyz"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    etcd.wipe().await;
    within("both keys again", async {
        while etcd.keys("gaocache/").await.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for node in &mut nodes {
        node.ring_of(2).await;
    }
}

#[tokio::test]
async fn a_hundred_comings_and_goings_in_a_second_change_the_ring_ten_times_at_most() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = node("n0", &etcd.url, &origin).await;
    node.ready().await;
    let before = common::metric(&node, "gaocache_ring_changes_total", &[]).await;
    let client = etcd.client().await;
    let started = Instant::now();
    // Spread over a second, as the requirement has it: this is load, not synchronisation.
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    for n in 0..100 {
        beat.tick().await;
        let mut client = client.clone();
        let key = format!("gaocache/burst-{}", n % 50);
        if n < 50 {
            client.put(key, "127.0.0.1:1", None).await.unwrap();
        } else {
            client.delete(key, None).await.unwrap();
        }
    }
    let took = started.elapsed();
    // The last change is a put, so that there is something to wait for.
    let mut client = client.clone();
    client
        .put("gaocache/last", "127.0.0.1:1", None)
        .await
        .unwrap();
    let last = node
        .rings
        .wait_for(|ring| ring.view.member("last").is_some() && ring.ring_len() == 2);
    within("the last change", last).await.unwrap();
    let changes = common::metric(&node, "gaocache_ring_changes_total", &[]).await - before;
    println!("101 changes in {took:?}: {changes} rings");
    // On a machine that took longer for it, a ring more for each 100 ms.
    let allowed = 10.0 * took.as_secs_f64().max(1.0);
    assert!(changes <= allowed, "{changes} rings in {took:?}");
}

#[tokio::test]
async fn ten_nodes_see_a_change_soon_after_etcd_has_it() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let nodes = nodes(10, &etcd, &origin).await;
    let mut client = etcd.client().await;
    let mut delays = Vec::new();
    for round in 0..20 {
        let id = format!("extra-{round}");
        let put = client
            .put(format!("gaocache/{id}"), "127.0.0.1:1", None)
            .await
            .unwrap();
        let committed = Instant::now();
        let revision = put.header().unwrap().revision() as u64;
        let seen = nodes.iter().map(|node| {
            let mut rings = node.rings.clone();
            async move {
                within(
                    "the change",
                    rings.wait_for(|ring| ring.view.revision >= revision),
                )
                .await
                .unwrap();
                committed.elapsed()
            }
        });
        delays.extend(futures::future::join_all(seen).await);
    }
    delays.sort();
    let (median, p99) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
    println!(
        "a change is in every ring after {median:?} (median), {p99:?} (p99); goals 100 ms, 500 ms"
    );
    assert!(
        p99 < Duration::from_secs(5),
        "several times the goal: {p99:?}"
    );
}

#[tokio::test]
async fn a_node_reaches_etcd_over_tls_and_with_a_password_by_its_settings() {
    let (etcd, origin) = (SecuredEtcd::start().await, CountingOrigin::start().await);
    etcd.demand_a_password().await;
    let file = |setting: &str, name: &str| {
        format!("registry.etcd.{setting}={}", etcd.file(name).display())
    };
    let further = [
        file("tls.ca", "ca.pem"),
        file("tls.cert", "client.pem"),
        file("tls.key", "client.key"),
        "registry.etcd.username=root".to_owned(),
        file("password_file", "password"),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let settings = node_settings("secured", etcd.url(), &origin, &further);
    let mut node = TestNode::start(builder(&settings).bind().await.expect("binds"));
    node.ready().await;
    node.stopped().await;
}
