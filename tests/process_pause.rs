//! A node that is paused (stopped, suspended) and comes back as the same process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{
    CountingOrigin,
    etcd::Etcd,
    http,
    process::{NodeProcess, agree},
    within,
};
use gaocache::internal::unix_seconds;

async fn get(node: &NodeProcess, key: &str) {
    let url = format!("http://127.0.0.1:{}/v1/users/{key}", node.http);
    let answer = http().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{key}");
}

async fn remove(node: &NodeProcess, key: &str) {
    let url = format!("http://127.0.0.1:{}/v1/users/{key}", node.http);
    let answer = http().delete(url).send().await.unwrap();
    assert_eq!(answer.status(), 204, "{key}");
}

#[tokio::test]
async fn what_was_removed_while_a_node_stood_still_is_not_served_when_it_goes_on() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let start = |id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &[]);
    let nodes = [start("n0"), start("n1")];
    agree(&nodes).await;
    let keys = nodes[1].own_keys(20).await;
    for key in &keys {
        get(&nodes[1], key).await;
        assert_eq!(origin.loads_of(key), 1);
    }
    nodes[1].freeze();
    // Its lease ends, so that removals need not reach it.
    nodes[0].until_ring(&["n0"]).await;
    for key in &keys {
        remove(&nodes[0], key).await;
    }
    nodes[1].thaw();
    // From the very first get on.
    for key in &keys {
        get(&nodes[1], key).await;
        assert!(origin.loads_of(key) > 1, "{key}: the removed value");
    }
    agree(&nodes).await;
    assert_eq!(nodes[1].metric("gaocache_expulsions_total", "").await, 1.0);
}

/// All leases are over then, but no node takes another off its list.
#[tokio::test]
async fn an_etcd_that_is_away_for_longer_than_the_lease_costs_no_entry() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let further = ["registry.etcd.lease_ttl_seconds=6"];
    let start = |id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &further);
    let nodes = [start("n0"), start("n1")];
    agree(&nodes).await;
    let keys = nodes[1].own_keys(20).await;
    for key in &keys {
        get(&nodes[1], key).await;
    }
    etcd.freeze();
    let lease_is_over = async || {
        let end = "gaocache_lease_expiry_timestamp_seconds";
        let end = nodes[1].metric(end, "").await;
        // Beats come twice a second: the first after the end has been.
        end + 1.0 < unix_seconds()
    };
    within("the lease's end", async {
        while !lease_is_over().await {
            for key in &keys {
                get(&nodes[1], key).await;
            }
        }
    })
    .await;
    for key in &keys {
        get(&nodes[1], key).await;
        assert_eq!(origin.loads_of(key), 1);
    }
    assert_eq!(nodes[1].metric("gaocache_expulsions_total", "").await, 0.0);
    etcd.thaw();
}
