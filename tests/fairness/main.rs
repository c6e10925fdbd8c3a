//! What clients take from each other: places of loads, and requests within a time. Attackers come
//! from another address of this machine than the good client.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod quotas;
mod turns;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Path, State},
    routing,
};
use common::{get_request as get, *};
use gaocache::internal::wire::{
    FetchRequest, GetManyRequest, PurgeRequest, PurgeTagRequest, RemoveRequest, WantRequest,
    cache_client::CacheClient, peer_client::PeerClient,
};
use parking_lot::Mutex;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinSet,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

const GOOD: [u8; 4] = [127, 0, 0, 1];
const ATTACKER: [u8; 4] = [127, 0, 0, 2];

/// An origin that remembers in which order it was asked. Loads wait until it is opened.
#[derive(Clone)]
struct OrderedOrigin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    open: Arc<watch::Sender<bool>>,
}

impl OrderedOrigin {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            open: Arc::new(watch::Sender::new(false)),
        };
        let answer = async |State(origin): State<Self>, Path(key): Path<String>| {
            origin.asked.lock().push(key.clone());
            let mut open = origin.open.subscribe();
            open.wait_for(|open| *open).await.unwrap();
            key
        };
        let router = Router::new().route("/{key}", routing::get(answer));
        let router = router.with_state(origin.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        origin
    }

    /// A group whose loads from it run one at a time.
    fn group(&self, further: &str) -> String {
        format!(
            "groups=[{{ name = \"users\", ttl_seconds = 600, origin = {{ kind = \"http\", \
             url = \"http://{}/{{key}}\", timeout_seconds = 60, max_concurrency = 1{further} }} }}]",
            self.address
        )
    }

    async fn is_asked_for(&self, count: usize) {
        within("a load", async {
            while self.asked.lock().len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// How many keys were asked for before that one.
    fn before(&self, key: &str) -> usize {
        let asked = self.asked.lock();
        asked.iter().position(|it| it == key).expect("asked for")
    }
}

async fn client_from(from: [u8; 4], to: SocketAddr) -> CacheClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let endpoint = endpoint.local_address(Some(IpAddr::from(from)));
    CacheClient::new(endpoint.connect().await.expect("connects"))
}

/// Asks for these keys at once.
fn ask(client: &CacheClient<Channel>, keys: impl Iterator<Item = String>) -> JoinSet<Code> {
    let mut asked = JoinSet::new();
    for key in keys {
        let mut client = client.clone();
        asked.spawn(async move {
            let answer = client.get(get(&key)).await;
            answer.err().map_or(Code::Ok, |status| status.code())
        });
    }
    asked
}

async fn in_flight(node: &TestNode) -> f64 {
    metric(node, "gaocache_in_flight_bytes", &[]).await
}

/// Polls until so many more requests are under way at a node.
async fn until_in_flight(node: &TestNode, is_enough: impl Fn(f64) -> bool) {
    within("requests under way", async {
        while !is_enough(in_flight(node).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Asks at once for these keys, which nobody has asked for, each over two connections. Returns when
/// a flight of each is under way at the node: the last of the two joins it. The bytes of a request
/// count before that.
async fn ask_and_join(node: &TestNode, from: [u8; 4], keys: &[String]) -> JoinSet<Code> {
    let before = joined(node).await;
    let mut asked = JoinSet::new();
    for _ in 0..2 {
        let client = client_from(from, node.addresses.grpc).await;
        let mut answers = ask(&client, keys.iter().cloned());
        asked.spawn(async move {
            while let Some(code) = answers.join_next().await {
                if code.unwrap() != Code::Ok {
                    return Code::Unknown;
                }
            }
            Code::Ok
        });
    }
    until_joined(node, before + keys.len() as f64).await;
    asked
}

/// How many gets have joined a flight at a node.
async fn joined(node: &TestNode) -> f64 {
    metric(node, "gaocache_flight_waits_total", &[]).await
}

async fn until_joined(node: &TestNode, count: f64) {
    within("gets that join a flight", async {
        while joined(node).await < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Whether that node owns the key.
fn owned_by(node: &TestNode, key: &str) -> bool {
    let group = gaocache_core::ring::group_seed("users");
    let hash = gaocache_core::ring::hash_key(group, key);
    node.rings.borrow().owner(hash) == gaocache_core::cluster::Owner::Me
}

async fn all_answered(mut asked: JoinSet<Code>) {
    while let Some(answer) = within("an answer", asked.join_next()).await {
        assert_eq!(answer.unwrap(), Code::Ok);
    }
}

#[tokio::test]
async fn what_clients_that_hung_up_wanted_is_never_loaded_and_holds_up_nobody() {
    let origin = OrderedOrigin::start().await;
    let further = [&origin.group(""), "node.worker_threads=1"];
    let nodes = cluster(1, "", &further).await;
    let address = nodes[0].addresses.grpc;
    let good = client_from(GOOD, address).await;
    let held = ask(&good, ["held".to_owned()].into_iter());
    origin.is_asked_for(1).await;
    let before = in_flight(&nodes[0]).await;
    {
        // From the same address: no turn of its own protects the good client.
        let hangs_up = client_from(GOOD, address).await;
        let asked = ask(&hangs_up, (0..500).map(|number| format!("bad-{number}")));
        until_in_flight(&nodes[0], |bytes| bytes > before * 400.0).await;
        drop(asked);
    }
    until_in_flight(&nodes[0], |bytes| bytes <= before).await;
    let wanted = ask_and_join(&nodes[0], GOOD, &["wanted".to_owned()]).await;
    origin.open.send_replace(true);
    all_answered(held).await;
    all_answered(wanted).await;
    assert_eq!(*origin.asked.lock(), ["held", "wanted"]);
}

#[tokio::test]
async fn what_a_batch_that_was_given_up_wanted_is_never_loaded_by_any_owner() {
    let origin = OrderedOrigin::start().await;
    let nodes = cluster(2, "", &[&origin.group("")]).await;
    let mut clients = Vec::new();
    let mut waiting = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let client = client_from(GOOD, node.addresses.grpc).await;
        let held = (0..).map(|it| format!("held-{number}-{it}"));
        let held = { held }.find(|key| owned_by(node, key)).unwrap();
        waiting.push(ask(&client, [held].into_iter()));
        origin.is_asked_for(number + 1).await;
        clients.push(client);
    }
    let before = [in_flight(&nodes[0]).await, in_flight(&nodes[1]).await];
    let keys = (0..2_000).map(|number| format!("bad-{number}"));
    let keys: Vec<String> = keys
        .filter(|key| owned_by(&nodes[1], key))
        .take(800)
        .collect();
    let request = GetManyRequest {
        group: "users".into(),
        keys,
    };
    let answers = clients[0].clone().get_many(request).await.expect("begins");
    until_in_flight(&nodes[1], |bytes| bytes > before[1]).await;
    drop(answers);
    for (node, before) in nodes.iter().zip(before) {
        until_in_flight(node, |bytes| bytes <= before).await;
    }
    // Behind all that this client still has in the queue.
    let wanted = (0..).map(|number| format!("wanted-{number}"));
    let wanted = { wanted }.find(|key| owned_by(&nodes[1], key)).unwrap();
    waiting.push(ask_and_join(&nodes[1], GOOD, &[wanted]).await);
    origin.open.send_replace(true);
    for asked in waiting {
        all_answered(asked).await;
    }
    assert_eq!(origin.asked.lock().len(), 3, "{:?}", origin.asked.lock());
}
