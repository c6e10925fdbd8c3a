//! A node that is asked for four times what its origin can give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
use tokio::sync::{Semaphore, watch};

/// Loads that the node runs at once, and that may wait.
const AT_ONCE: usize = 10;
const QUEUE: usize = 10;
/// Clients, each of which always wants another value: four for each load that finds a place.
const CLIENTS: usize = 4 * (AT_ONCE + QUEUE);
const LOADS: usize = 600;
/// The origin answers only while it is asked for so much at once: four fifths of its best.
const BUSY: usize = AT_ONCE * 4 / 5;

/// Loads at the origin.
#[derive(Default)]
struct Loads {
    under_way: usize,
    done: usize,
}

struct Origin {
    loads: watch::Sender<Loads>,
    answers: Semaphore,
}

impl Origin {
    /// Answers one load after the other, each while the others keep it busy.
    async fn work(&self) {
        let mut loads = self.loads.subscribe();
        for number in 0..LOADS {
            let _ = loads.wait_for(|it| it.under_way >= BUSY).await.unwrap();
            self.answers.add_permits(1);
            let _ = loads.wait_for(|it| it.done > number).await.unwrap();
        }
        // Those that are under way end, too.
        self.answers.close();
    }

    fn is_done(&self) -> bool {
        self.loads.borrow().done >= LOADS
    }
}

async fn load(State(origin): State<Arc<Origin>>) -> &'static str {
    origin.loads.send_modify(|it| it.under_way += 1);
    if let Ok(answer) = origin.answers.acquire().await {
        answer.forget();
    }
    origin.loads.send_modify(|it| {
        it.under_way -= 1;
        it.done += 1;
    });
    "a value"
}

/// Asks for values of its own until the origin has done enough; returns how often it got one and
/// how often it was refused.
async fn client(number: usize, port: u16, origin: Arc<Origin>) -> (usize, usize) {
    let (client, mut got, mut refused) = (http(), 0, 0);
    while !origin.is_done() {
        let key = format!("{number}-{}", got + refused);
        let url = format!("http://127.0.0.1:{port}/v1/users/{key}");
        let answer = client.get(url).send().await.unwrap();
        match answer.status().as_u16() {
            200 => got += 1,
            503 => {
                assert_eq!(answer.headers()["gaocache-error"], "overloaded");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    (got, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_and_counted_while_the_origin_stays_busy() {
    let origin = Arc::new(Origin {
        loads: watch::Sender::default(),
        answers: Semaphore::new(0),
    });
    let router = Router::new()
        .route("/{key}", routing::get(load))
        .with_state(origin.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{{key}}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let etcd = Etcd::start().await;
    let (at_once, queue) = (
        format!("groups.0.origin.max_concurrency={AT_ONCE}"),
        format!("groups.0.origin.max_queue={QUEUE}"),
    );
    let further = [&*at_once, &queue, "registry.etcd.lease_ttl_seconds=2"];
    let nodes = [NodeProcess::start("n0", &[&etcd.url], &url, &further)];
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
    let clients = (0..CLIENTS).map(|it| tokio::spawn(client(it, node.http, origin.clone())));
    let clients = async {
        let ended = join_all(clients).await;
        is_over.store(true, Ordering::SeqCst);
        ended
    };
    let all = async { tokio::join!(clients, probes, origin.work()) };
    let (ended, probes, ()) = within("an origin that is kept busy", all).await;
    let (mut got, mut refused) = (0, 0);
    for one in ended {
        let (values, refusals) = one.unwrap();
        got += values;
        refused += refusals;
    }
    println!("{got} values, {refused} refusals, {probes} probes");
    assert!(
        got >= LOADS && refused > 0,
        "{got} values, {refused} refusals"
    );
    assert!(probes > 0);
    let counted = node.metric("gaocache_requests_total", "overloaded").await;
    assert_eq!(counted, refused as f64);
    let after = node.ring().await.unwrap();
    assert_eq!(before.revision, after.revision, "its lease held");
}
