//! A node that is asked for four times what its origin can give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing};
use common::{
    etcd::Etcd,
    http,
    process::{NodeProcess, agree},
    within,
};
use futures::future::join_all;

/// Loads that the node runs at once, and that may wait.
const AT_ONCE: usize = 8;
const QUEUE: usize = 8;
/// Clients, each of which always wants another value: four for each load that finds a place.
const CLIENTS: usize = 4 * (AT_ONCE + QUEUE);
const LOADS: usize = 600;

/// What the origin sees.
#[derive(Default)]
struct Seen {
    loads: AtomicUsize,
    under_way: AtomicUsize,
    /// Summed up over the begins of loads: how many were under way then, the new one included.
    busy: AtomicUsize,
}

impl Seen {
    /// How much of what the origin can do at once it was asked for, on average.
    fn share(&self) -> f64 {
        let loads = self.loads.load(Ordering::SeqCst);
        self.busy.load(Ordering::SeqCst) as f64 / (loads * AT_ONCE) as f64
    }
}

async fn load(State(seen): State<Arc<Seen>>) -> &'static str {
    let under_way = seen.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    seen.busy.fetch_add(under_way, Ordering::SeqCst);
    seen.loads.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    seen.under_way.fetch_sub(1, Ordering::SeqCst);
    "a value"
}

/// Asks for values of its own until the origin has done enough; returns how often it got one and
/// how often it was refused.
async fn client(number: usize, port: u16, seen: Arc<Seen>) -> (usize, usize) {
    let (client, mut got, mut refused) = (http(), 0, 0);
    while seen.loads.load(Ordering::SeqCst) < LOADS {
        let key = format!("{number}-{}", got + refused);
        let url = format!("http://127.0.0.1:{port}/v1/users/{key}");
        let answer = client.get(url).send().await.unwrap();
        match answer.status().as_u16() {
            200 => got += 1,
            503 => {
                assert_eq!(answer.headers()["gaocache-error"], "overloaded");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    (got, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_and_counted_while_the_origin_stays_busy() {
    let seen = Arc::<Seen>::default();
    let router = Router::new()
        .route("/{key}", routing::get(load))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}/{{key}}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let etcd = Etcd::start().await;
    let (at_once, queue) = (
        format!("groups.0.origin.max_concurrency={AT_ONCE}"),
        format!("groups.0.origin.max_queue={QUEUE}"),
    );
    let further = [&*at_once, &queue, "registry.etcd.lease_ttl_seconds=2"];
    let nodes = [NodeProcess::start("n0", &[&etcd.url], &origin, &further)];
    agree(&nodes).await;
    let node = &nodes[0];
    let before = node.ring().await.unwrap();

    let is_over = AtomicBool::new(false);
    let probes = async {
        let mut answered = 0;
        while !is_over.load(Ordering::SeqCst) {
            let (status, why) = node.readyz().await.expect("an answer");
            assert_eq!(status, 200, "{why}");
            answered += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        answered
    };
    let clients = (0..CLIENTS).map(|it| tokio::spawn(client(it, node.http, seen.clone())));
    let clients = async {
        let ended = join_all(clients).await;
        is_over.store(true, Ordering::SeqCst);
        ended
    };
    let (ended, probes) = within("the end of the load", async {
        tokio::join!(clients, probes)
    })
    .await;
    let (mut got, mut refused) = (0, 0);
    for one in ended {
        let (values, refusals) = one.unwrap();
        got += values;
        refused += refusals;
    }
    println!(
        "{got} values, {refused} refusals, {probes} probes; the origin had {:.2} of its most",
        seen.share()
    );
    assert!(got >= LOADS, "{got} of {LOADS}");
    assert!(seen.share() >= 0.8, "{}", seen.share());
    assert!(refused > 0 && probes > 0);
    let counted = node.metric("gaocache_requests_total", "overloaded").await;
    assert_eq!(counted, refused as f64);
    let after = node.ring().await.unwrap();
    assert_eq!(before.revision, after.revision, "its lease held");
}
