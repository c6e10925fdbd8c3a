//! Nodes as processes under clients that take what they can: memory, connections, descriptors, the
//! admin listener.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use common::{
    CountingOrigin, LONG, etcd, get_request as get,
    process::{NodeProcess, agree},
    within,
};
use futures::future::join_all;
use gaocache::internal::wire::{GetManyRequest, cache_client::CacheClient};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Channel;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 4 * MIB;

/// A node without others.
fn alone(origin: &str, further: &[&str]) -> NodeProcess {
    let further = [&["registry.kind=memory"], further].concat();
    NodeProcess::start("n0", &[], origin, &further)
}

/// Calls over a connection of its own. Of the answer only the head is read.
async fn ask_and_stop_reading(
    port: u16,
    method: &str,
    message: impl Message,
) -> Option<Response<Incoming>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let message = message.encode_to_vec();
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.put_slice(&message);
    let request = Request::post(format!("http://node/gaocache.v1.Cache/{method}"))
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::new(body.freeze()));
    sender.send_request(request.unwrap()).await.ok()
}

/// Gets a value again and again, and follows the node's memory. Returns how many gets it made.
async fn keep_getting(
    mut client: CacheClient<Channel>,
    node: Arc<NodeProcess>,
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
) -> usize {
    let mut gets = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get(get("alice")).await.expect("a value");
        assert_eq!(answer.into_inner().value, "value of alice");
        gets += 1;
        peak.fetch_max(node.resident_bytes(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gets
}

fn is_overloaded(answer: &Response<Incoming>) -> bool {
    let is = |name, value| answer.headers().get(name).is_some_and(|it| it == value);
    is("grpc-status", "8") && is("gaocache-error", "overloaded")
}

/// Polls until no more than so many bytes are in flight.
async fn until_in_flight(node: &NodeProcess, most: f64) {
    while node.metric("gaocache_in_flight_bytes", "").await > most {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_take_no_more_than_the_budget_and_are_cut() {
    let origin = CountingOrigin::start().await;
    let node = Arc::new(alone(&origin.url(), &["limits.write_timeout_seconds=3"]));
    node.until_ready().await;
    let budget = node.metric("gaocache_in_flight_limit_bytes", "").await as u64;
    assert!((8 * MIB..11 * MIB).contains(&budget), "{budget}");
    let mut good = common::client(([127, 0, 0, 1], node.grpc).into()).await;
    good.get(get("alice")).await.expect("a value");

    let (stop, peak) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let watched = tokio::spawn(keep_getting(good, node.clone(), stop.clone(), peak.clone()));
    let asked = (0..200).map(|number| {
        let (port, key) = (node.grpc, format!("size-{}", SIZE - number));
        tokio::spawn(async move { ask_and_stop_reading(port, "Get", get(&key)).await })
    });
    let asked: Vec<_> = asked.collect();
    let answers = within("answers", join_all(asked)).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let refused = answers
        .iter()
        .flatten()
        .filter(|it| is_overloaded(it))
        .count();
    assert!(refused > 0, "all were answered");
    within("the readers are cut", until_in_flight(&node, 4_096.0)).await;
    stop.store(true, Ordering::Relaxed);
    let gets = watched.await.expect("the good client was answered");
    let peak = peak.load(Ordering::Relaxed);
    println!(
        "peak {} MiB, {refused} of 200 refused, {gets} gets of the good client",
        peak / MIB
    );
    assert!(gets > 0);
    assert!(
        peak <= 64 * MIB + budget + 64 * MIB,
        "{peak} bytes resident"
    );
    let cuts = node
        .metric("gaocache_connection_cuts_total", "stalled")
        .await;
    assert!(cuts >= 1.0);
    assert!(node.metric("gaocache_in_flight_refusals_total", "").await >= 1.0);
    drop(answers);
    let mut good = common::client(([127, 0, 0, 1], node.grpc).into()).await;
    let value = good
        .get(get(&format!("size-{SIZE}")))
        .await
        .expect("room again");
    assert_eq!(value.into_inner().value.len() as u64, SIZE);
    within("the budget is free", until_in_flight(&node, 0.0)).await;
}

/// Follows the node's memory.
async fn watch_memory(node: &NodeProcess, peak: &AtomicU64) {
    loop {
        peak.fetch_max(node.resident_bytes(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How many loads there were when no more came for a while.
async fn until_quiet(origin: &CountingOrigin) -> usize {
    let mut quiet = 0;
    let mut loads = 0;
    while quiet < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        quiet = if origin.loads() == loads {
            quiet + 1
        } else {
            0
        };
        loads = origin.loads();
    }
    loads
}

/// Its neighbours may hold far more, so it is this node alone that bounds what comes from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_values_of_other_nodes_take_no_more_than_the_budget_of_the_node_that_is_asked() {
    const CLIENTS: u64 = 60;
    const KEYS: u64 = 100;
    let (etcd, origin) = (etcd::Etcd::start().await, CountingOrigin::start().await);
    let start = |id, further: &[&str]| NodeProcess::start(id, &[&etcd.url], &origin.url(), further);
    let roomy = ["cache.in_flight=1GiB"];
    let nodes = [start("n0", &[]), start("n1", &roomy), start("n2", &roomy)];
    agree(&nodes).await;
    let node = &nodes[0];
    let budget = node.metric("gaocache_in_flight_limit_bytes", "").await as u64;
    assert!((8 * MIB..11 * MIB).contains(&budget), "{budget}");

    let several = |client: u64| GetManyRequest {
        group: "users".into(),
        // All of them fit in what an owner sends at once.
        keys: (0..KEYS)
            .map(|key| format!("size-{}", 60_000 - client * KEYS - key))
            .collect(),
    };
    let single = |client: u64| get(&format!("size-{}", SIZE - client));
    for method in ["GetMany", "Get"] {
        let ask = |client| {
            let port = node.grpc;
            let (several, single) = (several(client), single(client));
            tokio::spawn(async move {
                match method {
                    "Get" => ask_and_stop_reading(port, method, single).await,
                    _ => ask_and_stop_reading(port, method, several).await,
                }
            })
        };
        let peak = AtomicU64::new(0);
        let asked: Vec<_> = (0..CLIENTS).map(ask).collect();
        let unread = async {
            let answers = within("answers", join_all(asked)).await;
            (answers, within("quiet", until_quiet(&origin)).await)
        };
        let (answers, loads) = tokio::select! {
            unread = unread => unread,
            () = watch_memory(node, &peak) => unreachable!("it has no end"),
        };
        let peak = peak.load(Ordering::Relaxed);
        println!("{method}: peak {} MiB after {loads} loads", peak / MIB);
        assert!(
            peak <= 64 * MIB + budget + 64 * MIB,
            "{peak} bytes resident"
        );
        assert!(node.metric("gaocache_in_flight_refusals_total", "").await >= 1.0);
        drop(answers);
        within("the budget is free", until_in_flight(node, 0.0)).await;
    }
}

/// Lets this process have so many connections.
fn raise_own_descriptors(wanted: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "{limit:?}");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Asks over a connection of its own, as probers and scrapers do; the answer, if it came in full.
async fn ask_once(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.ends_with('\n').then_some(answer)
}

/// Scrapes again and again, and counts the answers.
async fn keep_scraping(port: u16, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let answer = ask_once(port, "/metrics").await;
        if answer.is_some_and(|it| it.starts_with("HTTP/1.1 200")) {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The scrapes end only when all the rest is done: every probe and renewal is one among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_scrapes_hold_up_neither_probes_nor_the_lease() {
    const SCRAPERS: usize = 600;
    const SCRAPES: u64 = 6_000;
    const PROBES: usize = 20;
    raise_own_descriptors(2 * SCRAPERS as u64);
    let etcd = etcd::Etcd::start().await;
    let origin = CountingOrigin::start().await;
    // All scrapers have one address here.
    let further = ["limits.max_admin_connections_per_address=1000"];
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &further);
    node.until_ready().await;
    let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let scraper = |_| tokio::spawn(keep_scraping(node.admin, stop.clone(), answered.clone()));
    let scrapers: Vec<_> = (0..SCRAPERS).map(scraper).collect();
    let scraped = async |least: u64| {
        while answered.load(Ordering::Relaxed) < least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("scrapers are answered", scraped(SCRAPERS as u64)).await;
    let renewals = node.metric("gaocache_lease_renewals_total", "ok").await;
    for _ in 0..PROBES {
        let probe = within("a probe among scrapes", ask_once(node.admin, "/readyz")).await;
        let probe = probe.expect("probes are answered");
        assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
    }
    let renewed = async {
        while node.metric("gaocache_lease_renewals_total", "ok").await <= renewals {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("a renewal among scrapes", renewed).await;
    tokio::time::timeout(4 * LONG, scraped(SCRAPES))
        .await
        .expect("thousands of scrapes are answered");
    let lost = node.metric("gaocache_lease_renewals_total", "lost").await;
    assert_eq!(lost, 0.0);
    stop.store(true, Ordering::Relaxed);
    within("the last scrapes", join_all(scrapers)).await;
    println!("{} scrapes answered", answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn without_descriptors_for_clients_the_probes_and_the_lease_go_on() {
    let etcd = etcd::Etcd::start().await;
    let origin = CountingOrigin::start().await;
    let limited = ["limits.reserved_descriptors=100"];
    let mut node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &limited);
    node.kill();
    node.revive_with_descriptors(200);
    node.until_ready().await;
    // An eighth is for strangers at the listener for nodes.
    let limit = 200.0 - 100.0 - 25.0;
    assert_eq!(node.metric("gaocache_connections_limit", "").await, limit);
    assert_eq!(node.metric("process_max_fds", "").await, 200.0);
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(("127.0.0.1", node.http)).await.unwrap());
    }
    let refused = async {
        while node
            .metric("gaocache_connection_refusals_total", "total")
            .await
            < 200.0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("refusals", refused).await;
    assert_eq!(node.metric("gaocache_connections", "http").await, limit);
    assert_eq!(node.readyz().await.expect("probes answer").0, 200);
    let failed = node
        .metric("gaocache_connection_refusals_total", "failed")
        .await;
    assert_eq!(failed, 0.0, "a descriptor was missing");
    let lines = node.log.lock().clone();
    let told = lines
        .iter()
        .filter(|line| line.contains("refused a connection"));
    assert!((1..20).contains(&told.count()), "{lines:?}");
    drop(held);
    let served = async {
        let url = format!("http://127.0.0.1:{}/v1/users/alice", node.http);
        while common::http().get(&url).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("clients are served again", served).await;
}

#[tokio::test]
async fn a_log_level_that_is_none_is_refused_and_a_long_one_costs_nothing() {
    let origin = CountingOrigin::start().await;
    let node = alone(&origin.url(), &[]);
    node.until_ready().await;
    let client = common::http();
    let put = async |level: &str| {
        let url = format!("http://127.0.0.1:{}/log?level={level}", node.admin);
        let answer = client.put(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = put("bogus").await;
    assert_eq!(status, 400);
    assert!(text.contains("'bogus' is not a log level"), "{text}");
    // With regular expressions, each of these took seconds and hundreds of mebibytes to compile.
    let before = node.resident_bytes();
    let (_, _) = put("%5B%7Bx%3D%28%28a%7C.%7B1000%7D%29%7B1000%7D%29%7D%5D%3Dinfo").await;
    let (status, _) = put(&format!("{}=info", "a".repeat(2_000))).await;
    assert_eq!(status, 400);
    assert!(node.resident_bytes() < before + 16 * MIB);
    assert_eq!(put("debug").await.0, 200);
}
