//! What clients take from each other: places of loads, and requests within a time. Attackers come
//! from another address of this machine than the good client.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

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

/// Whether that node owns the key.
fn owned_by(node: &TestNode, key: &str) -> bool {
    let group = gaocache_core::ring::group_seed("users");
    let hash = gaocache_core::ring::hash_key(group, key);
    node.rings.borrow().owner(hash) == gaocache_core::cluster::Owner::Me
}

/// Asks for these keys, and returns when all are under way at the node. The origin is asked for the
/// first alone.
async fn all_wait(
    node: &TestNode,
    origin: &OrderedOrigin,
    from: [u8; 4],
    keys: &[String],
) -> [JoinSet<Code>; 2] {
    let client = client_from(from, node.addresses.grpc).await;
    let first = ask(&client, keys[..1].iter().cloned());
    origin.is_asked_for(1).await;
    let rest = ask_and_join(node, from, &keys[1..]).await;
    [first, rest]
}

async fn all_answered(mut asked: JoinSet<Code>) {
    while let Some(answer) = within("an answer", asked.join_next()).await {
        assert_eq!(answer.unwrap(), Code::Ok);
    }
}

#[tokio::test]
async fn a_client_that_asks_for_hundreds_of_keys_delays_another_by_its_share() {
    let origin = OrderedOrigin::start().await;
    let nodes = cluster(1, "", &[&origin.group("")]).await;
    let address = nodes[0].addresses.grpc;
    let keys: Vec<String> = (0..600).map(|number| format!("bad-{number:03}")).collect();
    let all_of_greedy = all_wait(&nodes[0], &origin, ATTACKER, &keys).await;
    let good = client_from(GOOD, address).await;
    let joined_before = joined(&nodes[0]).await;
    // A key of its own, and one that the other wants as well.
    let wanted = ["good-00", "bad-599"];
    let asked = ask(&good, [wanted[1].to_owned()].into_iter());
    until_joined(&nodes[0], joined_before + 1.0).await;
    let own = ask_and_join(&nodes[0], GOOD, &[wanted[0].to_owned()]).await;
    origin.open.send_replace(true);
    all_answered(asked).await;
    all_answered(own).await;
    for asked in all_of_greedy {
        all_answered(asked).await;
    }
    for key in wanted {
        let before = origin.before(key);
        assert!(before <= 6, "{key} waited for {before} of 600 others");
    }
    assert_eq!(origin.asked.lock().len(), 601, "one load a key");
}

#[tokio::test]
async fn it_does_so_too_if_another_node_owns_the_keys() {
    let origin = OrderedOrigin::start().await;
    // Both clients wait for the slots of one connection.
    let further = [&origin.group(""), "node.worker_threads=1"];
    let nodes = cluster(2, "", &further).await;
    let of_other = |key: &String| owned_by(&nodes[1], key);
    let named = |name: &'static str| (0..).map(move |number| format!("{name}-{number:04}"));
    // More than there are places on the connection to the owner.
    let keys: Vec<String> = named("bad").filter(of_other).take(600).collect();
    let wanted = named("god").find(of_other).unwrap();
    let all_of_greedy = all_wait(&nodes[0], &origin, ATTACKER, &keys).await;
    let good = ask_and_join(&nodes[0], GOOD, std::slice::from_ref(&wanted)).await;
    origin.open.send_replace(true);
    all_answered(good).await;
    for asked in all_of_greedy {
        all_answered(asked).await;
    }
    let before = origin.before(&wanted);
    assert!(before <= 100, "it waited for {before} of 600 others");
}

#[tokio::test]
async fn it_does_so_too_if_the_keys_leave_in_one_message() {
    let origin = OrderedOrigin::start().await;
    let nodes = cluster(2, "", &[&origin.group("")]).await;
    let address = nodes[0].addresses.grpc;
    let keys = (0..).map(|number| format!("bad-{number:04}"));
    let keys: Vec<String> = { keys }
        .filter(|key| owned_by(&nodes[1], key))
        .take(600)
        .collect();
    // The last one, which the owner has not begun: another client wants it.
    let wanted = keys[599].clone();
    let request = GetManyRequest {
        group: "users".into(),
        keys,
    };
    let greedy = client_from(ATTACKER, address).await;
    let mut greedy = { greedy }.get_many(request).await.unwrap().into_inner();
    origin.is_asked_for(1).await;
    let before = in_flight(&nodes[1]).await;
    let good = client_from(GOOD, address).await;
    let good = ask(&good, [wanted.clone()].into_iter());
    until_in_flight(&nodes[1], |bytes| bytes > before).await;
    within("a fetch of its own", async {
        let sent = ["call=\"fetch\""];
        while metric(&nodes[0], "gaocache_peer_messages_total", &sent).await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.open.send_replace(true);
    all_answered(good).await;
    let before = origin.before(&wanted);
    assert!(before <= 100, "it waited for {before} of 600 others");
    let mut answers = 0;
    while let Some(_answer) = within("an answer", greedy.message()).await.unwrap() {
        answers += 1;
    }
    assert_eq!((answers, origin.asked.lock().len()), (600, 600));
}

#[tokio::test]
async fn a_key_waits_at_its_owner_for_all_clients_that_other_nodes_name() {
    let origin = OrderedOrigin::start().await;
    let further = [&origin.group(""), "peer.insecure=true"];
    let nodes = cluster(1, "", &further).await;
    let peer = format!("http://{}", nodes[0].addresses.peer);
    let peer = PeerClient::connect(peer).await.expect("connects");
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number:02}")).collect();
    let fetch = |key: &str, clients: &[&'static str]| {
        let mut request = tonic::Request::new(FetchRequest {
            group: "users".into(),
            key: key.into(),
        });
        for client in clients {
            let name = "gaocache-client";
            request.metadata_mut().append(name, client.parse().unwrap());
        }
        let mut peer = peer.clone();
        async move { peer.fetch(request).await.map(drop) }
    };
    let mut fetches = JoinSet::new();
    fetches.spawn(fetch(&keys[0], &["1"]));
    origin.is_asked_for(1).await;
    // Each twice: the last of the two joins the flight. One is wanted by another client from the
    // beginning, one later.
    for key in keys[1..39].iter().flat_map(|key| [key, key]) {
        fetches.spawn(fetch(key, &["1"]));
    }
    until_joined(&nodes[0], 38.0).await;
    for key in [&keys[39], &keys[39]] {
        fetches.spawn(fetch(key, &["1", "2"]));
    }
    until_joined(&nodes[0], 39.0).await;
    let want = WantRequest {
        group: "users".into(),
        key: keys[38].clone(),
        clients: vec![2],
    };
    peer.clone().want(want).await.expect("heard");
    origin.open.send_replace(true);
    while let Some(fetched) = within("an answer", fetches.join_next()).await {
        fetched.unwrap().expect("a value");
    }
    for key in &keys[38..] {
        let before = origin.before(key);
        assert!(before <= 6, "{key} waited for {before} of 40 others");
    }
}

/// Sends a command of Redis, and returns the first line of the answer.
async fn redis(from: [u8; 4], node: &TestNode, command: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let to = node.addresses.redis.expect("listens");
    let mut stream = socket.connect(to).await.expect("connects");
    stream.write_all(command.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = within("an answer", stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Whether each request over HTTP is told to come back later.
async fn is_refused_over_http(node: &TestNode) {
    for (method, path) in [
        (Method::GET, "/v1/users/alice"),
        (Method::DELETE, "/v1/users/alice"),
        (Method::DELETE, "/v1/users?tag=red"),
        (Method::GET, "/v1/users/"),
    ] {
        let request = http().request(method.clone(), node.http(path));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 429, "{method} {path}");
        let wait = answer.headers()["retry-after"].to_str().unwrap();
        assert!(wait.parse::<u64>().unwrap() > 3_000, "{wait}");
    }
}

#[tokio::test]
async fn a_client_past_its_rate_is_told_so_by_every_listener_and_others_are_served() {
    let origin = CountingOrigin::start().await;
    let further = [
        "limits.max_requests_per_second_per_client=1",
        "redis.listen=127.0.0.1:0",
    ];
    let nodes = cluster(1, &origin.url(), &further).await;
    let mut client = client_from(GOOD, nodes[0].addresses.grpc).await;
    let many = |keys: usize| GetManyRequest {
        group: "users".into(),
        keys: (0..keys).map(|number| format!("k{number}")).collect(),
    };
    // It pays afterwards: for an hour.
    let mut answers = client.get_many(many(3_600)).await.unwrap().into_inner();
    let mut found = 0;
    while let Some(_answer) = answers.message().await.unwrap() {
        found += 1;
    }
    assert_eq!(found, 3_600);
    let removal = RemoveRequest {
        group: "users".into(),
        key: "alice".into(),
    };
    let group = String::from("users");
    let purge = PurgeRequest {
        group: group.clone(),
    };
    let purge_tag = PurgeTagRequest {
        group,
        tag: "red".into(),
    };
    let refused = [
        client.get(get("alice")).await.expect_err("too many"),
        client.get_many(many(1)).await.expect_err("too many"),
        client.remove(removal).await.expect_err("too many"),
        client.purge(purge).await.expect_err("too many"),
        client.purge_tag(purge_tag).await.expect_err("too many"),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted);
        let kind = status.metadata().get("gaocache-error").unwrap();
        assert_eq!(kind, "too_many_requests");
        assert!(status.metadata().get("gaocache-retry-after-ms").is_some());
    }
    is_refused_over_http(&nodes[0]).await;
    let get_alice = "GET users:alice\r\n";
    let refused = redis(GOOD, &nodes[0], get_alice).await;
    assert!(refused.starts_with("-BUSY too_many_requests"), "{refused}");
    let why = "requests (limits.max_requests_per_second_per_client) than one client may have";
    assert!(refused.contains(why), "{refused}");
    let refused = redis(GOOD, &nodes[0], "AUTH guess\r\n").await;
    assert!(refused.starts_with("-BUSY too_many_requests"), "{refused}");
    assert_eq!(redis(ATTACKER, &nodes[0], get_alice).await, "$14");
    let name = "gaocache_client_refusals_total";
    assert_eq!(metric(&nodes[0], name, &["reason=\"rate\""]).await, 11.0);
}

#[tokio::test]
async fn a_client_has_so_many_misses_at_a_time_and_hits_beside_them() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &["limits.max_misses_per_client=2"]).await;
    let address = nodes[0].addresses.grpc;
    let mut client = client_from(GOOD, address).await;
    client.get(get("known")).await.expect("a value");
    origin.hold();
    let keys = ["a", "b"].map(str::to_owned);
    let mut waiting = ask(&client, keys.into_iter());
    within("both wait", async {
        while origin.loads() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = client.get(get("c")).await.expect_err("a third");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    client.get(get("known")).await.expect("a hit");
    let other = client_from(ATTACKER, address).await;
    let mut other = ask(&other, ["d".to_owned()].into_iter());
    within("another's", async {
        while origin.loads_of("d") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.release();
    for waiting in [&mut waiting, &mut other] {
        while let Some(answer) = within("an answer", waiting.join_next()).await {
            assert_eq!(answer.unwrap(), Code::Ok);
        }
    }
    client.get(get("c")).await.expect("room again");
    let name = "gaocache_client_refusals_total";
    assert_eq!(metric(&nodes[0], name, &["reason=\"misses\""]).await, 1.0);
}
