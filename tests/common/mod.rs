//! What the socket-level tests share: an origin that counts and misbehaves on request, and nodes on
//! free ports.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod etcd;
pub mod peer;
pub mod process;
pub mod tls;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing,
};
use gaocache::{
    Node, NodeBuilder, Registry,
    internal::{
        self, Config,
        wire::{GetRequest, cache_client::CacheClient},
    },
};
pub use gaocache_testing::{LONG, within};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// An HTTP origin that counts its loads by key. `/users/{key}` answers `value of {key}`.
#[derive(Clone)]
pub struct CountingOrigin {
    pub address: SocketAddr,
    state: Arc<OriginState>,
}

struct OriginState {
    loads: Mutex<HashMap<String, usize>>,
    total: AtomicUsize,
    /// The `traceparent` of the last load, by key.
    traces: Mutex<HashMap<String, String>>,
    /// Answers wait until this is true.
    open: watch::Sender<bool>,
    /// How long an answer takes.
    takes: Mutex<Duration>,
    /// Answers are failures while this is true.
    down: AtomicBool,
}

impl CountingOrigin {
    pub async fn start() -> Self {
        let state = Arc::new(OriginState {
            loads: Mutex::default(),
            total: AtomicUsize::new(0),
            traces: Mutex::default(),
            open: watch::Sender::new(true),
            takes: Mutex::default(),
            down: AtomicBool::new(false),
        });
        let router = Router::new()
            .route("/users/{key}", routing::get(answer))
            .with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/users/{{key}}", self.address)
    }

    pub fn loads(&self) -> usize {
        self.state.total.load(Ordering::SeqCst)
    }

    pub fn loads_of(&self, key: &str) -> usize {
        self.state.loads.lock().get(key).copied().unwrap_or(0)
    }

    /// Returns when it has been asked at all.
    pub async fn is_asked(&self) {
        within("a load", async {
            while self.loads() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The `traceparent` that came with the last load of the key.
    pub fn trace_of(&self, key: &str) -> Option<String> {
        self.state.traces.lock().get(key).cloned()
    }

    /// Loads wait from now on.
    pub fn hold(&self) {
        self.state.open.send_replace(false);
    }

    /// Loads go on.
    pub fn release(&self) {
        self.state.open.send_replace(true);
    }

    /// From now on, all loads fail, or none that should not.
    pub fn is_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Each load takes so long from now on.
    pub fn takes(&self, time: Duration) {
        *self.state.takes.lock() = time;
    }
}

async fn answer(
    State(state): State<Arc<OriginState>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(trace) = headers.get("traceparent") {
        let trace = trace.to_str().unwrap().to_owned();
        state.traces.lock().insert(key.clone(), trace);
    }
    state.total.fetch_add(1, Ordering::SeqCst);
    *state.loads.lock().entry(key.clone()).or_default() += 1;
    let mut open = state.open.subscribe();
    open.wait_for(|open| *open).await.unwrap();
    let takes = *state.takes.lock();
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    if key.starts_with("missing") {
        return StatusCode::NOT_FOUND.into_response();
    }
    if key.starts_with("broken") || state.down.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if let Some(size) = key.strip_prefix("size-") {
        return vec![b'x'; size.parse().unwrap()].into_response();
    }
    format!("value of {key}").into_response()
}

/// Who may do what is the subject of `tests/auth` alone.
pub const EVERYBODY_MAY: &str = "auth.anonymous=read,remove,purge,admin";

/// Settings of a test node: free ports on loopback, one group `users` over `url`, and further
/// `section.name=value`.
pub fn settings(id: &str, url: &str, further: &[&str]) -> Config {
    let group = format!(
        "groups=[{{ name = \"users\", ttl_seconds = 600, max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"{url}\", timeout_seconds = 2 }} }}]"
    );
    let mut given = vec![
        "cache.capacity=64MiB",
        "node.worker_threads=2",
        "node.drain_timeout_seconds=5",
        "node.shutdown_timeout_seconds=5",
        EVERYBODY_MAY,
        &group,
    ];
    given.extend(further);
    internal::loopback(id, &given).expect("good settings")
}

/// A node of these settings, to be bound.
pub fn builder(config: &Config) -> NodeBuilder {
    internal::configured(config).expect("origins that can work")
}

/// Where a node of the tests listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub peer: SocketAddr,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    /// If the settings want it.
    pub redis: Option<SocketAddr>,
}

/// A node that runs in this process.
pub struct TestNode {
    pub addresses: Addresses,
    pub readiness: watch::Receiver<Arc<str>>,
    pub rings: watch::Receiver<Arc<gaocache_core::cluster::Topology>>,
    stop: CancellationToken,
    pub running: JoinHandle<gaocache::Result<()>>,
}

impl TestNode {
    pub fn start(node: Node) -> Self {
        let stop = CancellationToken::new();
        let (bound, listening) = (node.addresses(), "all listeners");
        Self {
            addresses: Addresses {
                grpc: bound.grpc.expect(listening),
                peer: bound.peer.expect(listening),
                http: bound.http.expect(listening),
                admin: bound.admin.expect(listening),
                redis: bound.redis,
            },
            readiness: internal::readiness(&node),
            rings: internal::rings(&node),
            running: tokio::spawn(node.run(stop.clone().cancelled_owned())),
            stop,
        }
    }

    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    pub fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.admin)
    }

    pub async fn client(&self) -> CacheClient<Channel> {
        client(self.addresses.grpc).await
    }

    /// As the others know this life of it.
    pub fn incarnation(&self) -> gaocache_core::membership::IdHash {
        self.rings.borrow().me().expect("a member").incarnation()
    }

    pub async fn ready(&mut self) {
        let ready = self.readiness.wait_for(|why_not| why_not.is_empty());
        within("readiness", ready).await.expect("running");
    }

    pub async fn ring_of(&mut self, members: usize) {
        let ring = self.rings.wait_for(|ring| ring.ring_len() == members);
        within("the ring", ring).await.expect("running");
    }

    /// Asks it to stop; `self.running` ends when it has.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub async fn stopped(self) {
        self.stop.cancel();
        let ended = within("the node's end", self.running).await;
        ended.expect("no panic").expect("no error");
    }
}

/// A get of the group of the tests.
pub fn get_request(key: &str) -> GetRequest {
    GetRequest {
        group: "users".into(),
        key: key.into(),
    }
}

pub async fn client(address: SocketAddr) -> CacheClient<Channel> {
    let client = CacheClient::connect(format!("http://{address}")).await;
    client
        .expect("connects")
        .max_decoding_message_size(usize::MAX)
}

/// Nodes `n0`, `n1`, … in one memory registry over one origin, all ready and agreed.
pub async fn cluster(size: usize, url: &str, further: &[&str]) -> Vec<TestNode> {
    let registry = Registry::memory();
    let mut nodes = Vec::new();
    for number in 0..size {
        nodes.push(joining(&registry, &format!("n{number}"), url, further).await);
    }
    for node in &mut nodes {
        node.ring_of(size).await;
        node.ready().await;
    }
    nodes
}

pub async fn joining(registry: &Registry, id: &str, url: &str, further: &[&str]) -> TestNode {
    let builder = builder(&settings(id, url, further)).registry(registry.clone());
    TestNode::start(builder.bind().await.expect("binds"))
}

/// The value of a metric, summed over the samples whose labels contain all of `labels`.
pub async fn metric(node: &TestNode, name: &str, labels: &[&str]) -> f64 {
    metric_at(&http(), &node.admin("/metrics"), name, labels).await
}

/// The same, of whatever node answers there.
pub async fn metric_at(client: &reqwest::Client, url: &str, name: &str, labels: &[&str]) -> f64 {
    let text = text_at(client, url).await;
    text.lines()
        .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// What answers there, as text. Over a connection of its own: a node closes those that ask nothing
/// for five seconds, and a request that comes in that moment is lost.
pub async fn text_at(client: &reqwest::Client, url: &str) -> String {
    let request = client.get(url).header("connection", "close");
    let answer = request.send().await.unwrap();
    answer.text().await.unwrap()
}

/// An HTTP client for tests. Its connections belong to the runtime that made them, so tests can't
/// share one.
pub fn http() -> reqwest::Client {
    internal::plain_client().expect("a client")
}
