//! Loads that take long, at nodes whose settings differ: one load per key, no other request waits,
//! and no healthy peer is ejected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::*;
use futures::{StreamExt, stream::FuturesUnordered};
use gaocache::{
    Error, GroupDefinition, NodeBuilder, Registry, Settings,
    internal::wire::{GetRequest, GetResponse, RemoveRequest},
    loader,
};
use gaocache_core::{
    cluster::Owner,
    ring::{group_seed, hash_key},
};
use tonic::{Code, Request, Status};

/// Which node owns a key of a group.
fn owner(node: &TestNode, group: &str, key: &str) -> String {
    let ring = node.rings.borrow();
    match ring.owner(hash_key(group_seed(group), key)) {
        Owner::Me => ring.me().expect("a member").id.to_string(),
        Owner::Other(member) => member.id.to_string(),
    }
}

/// Keys of a group that this node owns.
fn keys_of<'a>(
    node: &'a TestNode,
    group: &'a str,
    id: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let keys = (0..).map(move |number| format!("{prefix}-{number}"));
    keys.filter(move |key| owner(node, group, key) == id)
}

async fn get(node: &TestNode, group: &str, key: &str) -> Result<GetResponse, Status> {
    let request = GetRequest {
        group: group.into(),
        key: key.into(),
    };
    let mut client = node.client().await;
    let answer = within("an answer", client.get(request)).await;
    answer.map(tonic::Response::into_inner)
}

async fn ejected(nodes: &[TestNode]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += metric(node, "gaocache_peers_ejected", &[]).await;
    }
    sum
}

#[tokio::test]
async fn loads_that_take_longer_than_the_peer_timeout_are_waited_for_and_made_once() {
    const KEYS: usize = 3_000;
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["peer.timeout_seconds=0.05"]).await;
    origin.takes(Duration::from_millis(200));
    let mut gets = FuturesUnordered::new();
    for (number, node) in nodes.iter().enumerate() {
        let client = node.client().await;
        for key in (number..KEYS).step_by(nodes.len()) {
            let mut client = client.clone();
            gets.push(async move { client.get(get_request(&format!("user-{key}"))).await });
        }
    }
    within("all answers", async {
        while let Some(answer) = gets.next().await {
            answer.expect("a value");
        }
    })
    .await;
    assert_eq!(ejected(&nodes).await, 0.0);
    assert_eq!(origin.loads(), KEYS);
    // Each by its owner, whose first answer was waited for.
    for node in &nodes {
        let fetches = metric(node, "gaocache_peer_fetches_total", &[]).await;
        let loads = metric(node, "gaocache_peer_fetches_total", &["origin"]).await;
        assert_eq!(fetches, loads);
        assert!(loads > 500.0, "{loads}");
    }
}

/// Groups `slow` and `fast`, each over an origin of its own.
fn two_groups(slow: &CountingOrigin, fast: &CountingOrigin) -> String {
    let group = |name: &str, url: String| {
        format!(
            "{{ name = \"{name}\", ttl_seconds = 600, max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"{url}\", timeout_seconds = 60 }} }}"
        )
    };
    let (slow, fast) = (group("slow", slow.url()), group("fast", fast.url()));
    format!("groups=[{slow}, {fast}]")
}

type Get = tokio::task::JoinHandle<Result<tonic::Response<GetResponse>, Status>>;

/// Far more loads at the other node than a connection takes calls, over clients that don't hold
/// each other up. Returns when all are under way.
async fn begin_slow_gets(near: &TestNode, number: usize) -> FuturesUnordered<Get> {
    let keys: Vec<String> = keys_of(near, "slow", "n1", "slow").take(number).collect();
    let gets = FuturesUnordered::new();
    for keys in keys.chunks(500) {
        let client = near.client().await;
        for key in keys {
            let mut client = client.clone();
            let request = GetRequest {
                group: "slow".into(),
                key: key.clone(),
            };
            gets.push(tokio::spawn(async move { client.get(request).await }));
        }
        // Answered from memory here: all gets before it on this connection are under way.
        let mut client = client.clone();
        let here = keys_of(near, "fast", "n0", "here").next().expect("one");
        let request = GetRequest {
            group: "fast".into(),
            key: here,
        };
        let answer = within("a key of its own", client.get(request)).await;
        answer.expect("a value");
    }
    gets
}

#[tokio::test]
async fn hits_and_removals_don_t_wait_behind_the_loads_of_a_slow_group() {
    let (slow, fast) = (CountingOrigin::start().await, CountingOrigin::start().await);
    let groups = two_groups(&slow, &fast);
    let nodes = cluster(
        2,
        "http://unused/{key}",
        &[&groups, "node.worker_threads=1"],
    )
    .await;
    let [near, far] = &nodes[..] else {
        panic!("two")
    };
    let known = keys_of(near, "fast", "n1", "known").next().expect("one");
    let known_slow = keys_of(near, "slow", "n1", "known").next().expect("one");
    get(far, "fast", &known).await.expect("loads it");
    get(far, "slow", &known_slow).await.expect("loads it");
    slow.hold();
    let mut gets = begin_slow_gets(near, 2_000).await;
    let answer = get(near, "fast", &known)
        .await
        .expect("a hit of the other group");
    assert_eq!(answer.value, format!("value of {known}"));
    get(near, "slow", &known_slow)
        .await
        .expect("a hit of the slow group");
    let request = RemoveRequest {
        group: "fast".into(),
        key: known.clone(),
    };
    let removed = near.client().await.remove(request).await;
    removed.expect("told to the other node");
    assert!(
        get(near, "fast", &known).await.is_ok(),
        "a load of the other group"
    );
    slow.release();
    within("the slow ones", async {
        while let Some(answer) = gets.next().await {
            answer.unwrap().expect("a value");
        }
    })
    .await;
    assert_eq!(slow.loads(), 2_000 + 1);
    assert_eq!(ejected(&nodes).await, 0.0);
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_is_not_made_at_the_owner() {
    let (slow, fast) = (CountingOrigin::start().await, CountingOrigin::start().await);
    let groups = two_groups(&slow, &fast).replace(
        "timeout_seconds = 60",
        "timeout_seconds = 60, max_concurrency = 1, max_queue = 1",
    );
    let nodes = cluster(2, "http://unused/{key}", &[&groups]).await;
    let [near, far] = &nodes[..] else {
        panic!("two")
    };
    let keys: Vec<String> = keys_of(near, "slow", "n1", "slow").take(4).collect();
    slow.hold();
    let far_client = far.client().await;
    let first = async { get(far, "slow", &keys[0]).await };
    let others = async {
        slow.is_asked().await;
        // It has the one place in the owner's queue, until its caller's deadline has passed.
        let mut request = Request::new(GetRequest {
            group: "slow".into(),
            key: keys[1].clone(),
        });
        request.set_timeout(Duration::from_secs(1));
        let gone = near.client().await.get(request).await;
        let gone = gone.expect_err("gave up").code();
        assert!(
            matches!(gone, Code::Cancelled | Code::DeadlineExceeded),
            "{gone:?}"
        );
        within("the place in the queue is free", async {
            let mut code = Code::ResourceExhausted;
            while code == Code::ResourceExhausted {
                let mut request = Request::new(GetRequest {
                    group: "slow".into(),
                    key: keys[2].clone(),
                });
                // Longer than a busy machine takes to refuse it: past it, it counts as queued.
                request.set_timeout(Duration::from_secs(2));
                let queued = far_client.clone().get(request).await;
                code = queued.expect_err("held").code();
            }
        })
        .await;
        slow.release();
    };
    let (first, ()) = tokio::join!(first, others);
    first.expect("a value");
    get(near, "slow", &keys[3]).await.expect("a value");
    assert_eq!(slow.loads_of(&keys[1]), 0, "nobody waited for it");
}

#[tokio::test]
async fn a_rollout_that_raises_max_value_ejects_nobody_and_each_node_answers_by_its_own_limit() {
    let origin = CountingOrigin::start().await;
    let registry = Registry::memory();
    let mut nodes = Vec::new();
    for (id, max_value) in [("n0", "1MiB"), ("n1", "8MiB")] {
        let groups = format!(
            "groups=[{{ name = \"users\", max_value = \"{max_value}\", origin = {{ kind = \"http\", url = \"{}\" }} }}]",
            origin.url()
        );
        nodes.push(joining(&registry, id, "http://unused/{key}", &[&groups]).await);
    }
    for node in &mut nodes {
        node.ring_of(2).await;
        node.ready().await;
    }
    let [old, new] = &nodes[..] else {
        panic!("two")
    };
    let large = |id: &'static str| {
        let sizes = (3_000_000..).map(|size| format!("size-{size}"));
        let mut sizes = sizes.filter(|key| owner(old, "users", key) == id);
        sizes.next().expect("one")
    };
    let (at_old, at_new) = (large("n0"), large("n1"));
    for key in [&at_old, &at_new] {
        let refused = get(old, "users", key).await.expect_err("over its limit");
        assert_eq!(
            refused.metadata().get("gaocache-error").unwrap(),
            "value_too_large"
        );
        let mut client = new.client().await;
        let answer = within("an answer", client.get(get_request(key))).await;
        let answer = answer.expect("within its limit").into_inner();
        assert_eq!(format!("size-{}", answer.value.len()), **key);
    }
    assert_eq!(ejected(&nodes).await, 0.0);
    // Both still answer each other.
    for key in ["alice", "bob", "carol", "dave"] {
        get(old, "users", key).await.expect("a value");
        get(new, "users", key).await.expect("a value");
    }
    assert_eq!(origin.loads_of("alice") + origin.loads_of("bob"), 2);
}

#[tokio::test]
async fn a_loader_that_hangs_ends_in_the_group_s_time_and_the_key_can_be_loaded_again() {
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let asked = hangs.clone();
    let origin = loader(move |key: String| {
        let hangs = asked.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>(key)
        }
    });
    let group = GroupDefinition::new("users", origin).load_timeout(Duration::from_millis(50));
    let builder = NodeBuilder::new(Settings::loopback("only")).group(group);
    let mut node = TestNode::start(builder.bind().await.expect("binds"));
    node.ready().await;
    let late = get(&node, "users", "alice").await.expect_err("hangs");
    assert_eq!(
        late.metadata().get("gaocache-error").unwrap(),
        "origin_timeout"
    );
    assert_eq!(
        get(&node, "users", "alice").await.expect("loads").value,
        "alice"
    );
}

/// An origin of which each twentieth answer takes long, and says so.
async fn sometimes_slow() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move || {
        let slow = count.fetch_add(1, Ordering::SeqCst) % 20 == 19;
        async move {
            if slow {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            if slow { "slow" } else { "fast" }
        }
    };
    let router = axum::Router::new().route("/{key}", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

/// `cargo test --test slow_loads hedged -- --nocapture` prints the counts.
#[tokio::test]
async fn hedged_loads_wait_for_fewer_slow_answers_and_cost_at_most_one_load_in_twenty() {
    const GETS: usize = 600;
    for hedge in [false, true] {
        let (address, asked) = sometimes_slow().await;
        let groups = format!(
            "groups=[{{ name = \"users\", max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"http://{address}/{{key}}\", hedge = {hedge} }} }}]"
        );
        let nodes = cluster(1, "http://unused/{key}", &[&groups]).await;
        let mut slow = 0;
        for number in 0..GETS {
            let answer = get(&nodes[0], "users", &format!("user-{number}")).await;
            slow += usize::from(answer.expect("a value").value == b"slow"[..]);
        }
        let asked = asked.load(Ordering::SeqCst);
        println!("hedge = {hedge}: {GETS} gets, {asked} requests, {slow} slow answers");
        let count = async |outcome| {
            metric(&nodes[0], "gaocache_origin_hedges_total", &[outcome]).await as usize
        };
        let (won, lost) = (count("won").await, count("lost").await);
        // One that was not needed after all may not have left the node.
        assert!(asked - GETS <= won + lost, "each is counted");
        if hedge {
            assert!(won + lost <= GETS / 20, "{won} won, {lost} lost");
            assert!(slow < asked / 20, "{slow} slow gets");
            assert!(won > 0);
        } else {
            assert_eq!((asked, slow), (GETS, GETS / 20));
        }
    }
}
