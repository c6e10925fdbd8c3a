//! What a node costs while nothing happens, alone with ten members and among a thousand. The
//! members are keys in etcd; none of them answers, and none has to.
//!
//! Counted: what the node asks of etcd between its renewals, which must not depend on the members.
//! Measured: its CPU time, which is what the system counts, so that other work of the machine
//! doesn't show. `make idle-test` does so for a minute with an optimized node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{CountingOrigin, etcd::Etcd, http, process::NodeProcess, within};
use etcd_client::{Client, PutOptions, Txn, TxnOp};

/// Renewals between two counts.
const RENEWALS: f64 = 6.0;

/// Members that are only keys.
async fn register(client: &mut Client, numbers: std::ops::Range<usize>) {
    let lease = client.lease_grant(3_600, None).await.unwrap().id();
    let member = |number: usize| {
        let value = format!(
            r#"{{"Op":0,"Addr":"127.0.0.1:1","Metadata":{{"id":"m{number}","state":"serving","instance":"1"}}}}"#
        );
        let options = PutOptions::new().with_lease(lease);
        TxnOp::put(format!("gaocache/m{number}"), value, Some(options))
    };
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(100) {
        let puts: Vec<_> = some.iter().map(|number| member(*number)).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
}

/// Messages that etcd has received so far.
async fn received(etcd: &Etcd) -> f64 {
    let text = http().get(format!("{}/metrics", etcd.url)).send().await;
    let text = text.unwrap().text().await.unwrap();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("grpc_server_msg_received_total"));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

async fn until_metric(node: &NodeProcess, name: &str, label: &str, least: f64) {
    let reached = async {
        while node.metric(name, label).await < least {
            // A scrape costs the node something, too.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within(name, reached).await;
}

/// What etcd receives while the node renews its lease a few times.
async fn asked(etcd: &Etcd, node: &NodeProcess) -> f64 {
    let renewals = "gaocache_lease_renewals_total";
    let begun = node.metric(renewals, "ok").await;
    // From renewal to renewal.
    until_metric(node, renewals, "ok", begun + 1.0).await;
    let before = received(etcd).await;
    until_metric(node, renewals, "ok", begun + 1.0 + RENEWALS).await;
    received(etcd).await - before
}

/// In percent of a core. The goal is a tenth of one; the rest is for slow machines, and for nodes
/// that are not optimized.
const MOST_CPU: f64 = 0.5;

/// Percent of a core while the node gets no requests.
async fn cpu(node: &NodeProcess) -> f64 {
    let seconds = std::env::var("GAOCACHE_IDLE_SECONDS");
    let seconds: f64 = seconds.map_or(5.0, |it| it.parse().expect("seconds"));
    let used = async || node.metric("process_cpu_seconds_total", "").await;
    let (before, began) = (used().await, tokio::time::Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    (used().await - before) / began.elapsed().as_secs_f64() * 100.0
}

#[tokio::test]
async fn an_idle_node_asks_etcd_as_little_among_a_thousand_members_as_among_ten() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &[]);
    node.until_ready().await;
    let mut client = etcd.client().await;
    let mut counts = Vec::new();
    for (from, to) in [(0, 9), (9, 999)] {
        register(&mut client, from..to).await;
        until_metric(&node, "gaocache_ring_members", "", to as f64 + 1.0).await;
        let (members, messages, cpu) = (to + 1, asked(&etcd, &node).await, cpu(&node).await);
        println!(
            "{members} members: {cpu:.3} % of a core, {messages} messages to etcd in {RENEWALS} \
             renewals"
        );
        assert!(cpu > 0.0, "its renewals take some");
        assert!(cpu < MOST_CPU, "{cpu} % of a core among {members}");
        counts.push(messages);
    }
    // The watches are asked for progress at moments of their own.
    let [few, many] = counts[..] else {
        panic!("two counts")
    };
    assert!(few >= RENEWALS, "{few}");
    assert!(
        many <= few + 3.0,
        "{few} messages among ten, {many} among a thousand"
    );
}
