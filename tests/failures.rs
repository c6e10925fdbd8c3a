//! Ten nodes as processes, a steady load of gets, and things that break: no get may fail. Each
//! failure is a test of its own.
//!
//! The load goes by two ways: the ring-aware client, which knows every node, and plain HTTP to
//! nodes that the test leaves alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{CountingOrigin, etcd::Etcd, process::NodeProcess};
use gaocache::{Client, ClientOptions};
use gaocache_discovery::EtcdConfig;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const NODES: usize = 10;
const KEYS: u64 = 500;
const LEASE: Duration = Duration::from_secs(3);

/// One etcd, ten ready nodes, an origin.
struct Scene {
    etcd: Etcd,
    nodes: Vec<NodeProcess>,
    origin: CountingOrigin,
}

impl Scene {
    async fn start() -> Self {
        let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
        let nodes = (0..NODES)
            .map(|n| NodeProcess::start(&format!("n{n}"), &[&etcd.url], &origin.url(), &[]))
            .collect();
        let scene = Self {
            etcd,
            nodes,
            origin,
        };
        scene.all_agree().await;
        scene
    }

    /// Every node sees exactly the ten, at one revision, with one fingerprint.
    async fn all_agree(&self) {
        let ids: Vec<&str> = self.nodes.iter().map(|node| &*node.id).collect();
        let mut rings = Vec::new();
        for node in &self.nodes {
            rings.push(node.until_ring(&ids).await.fingerprint);
        }
        let first = rings[0].clone();
        assert!(rings.iter().all(|ring| *ring == first), "{rings:?}");
    }

    async fn load(&self) -> Load {
        let client = Client::new(
            EtcdConfig::new([&self.etcd.url]),
            "gaocache",
            ClientOptions::default(),
        );
        let known = client.wait_for_members(NODES);
        common::within("the client's ring", known)
            .await
            .expect("running");
        Load::start(client, self.nodes[NODES - 1].http)
    }
}

/// Gets that go on until they are stopped.
struct Load {
    stop: CancellationToken,
    callers: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn count(&self, what: &str, key: u64, result: Result<Vec<u8>, String>) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if result.as_deref() != Ok(format!("value of k{key}").as_bytes()) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            eprintln!("a get by {what} failed: {result:?}");
        }
    }
}

impl Load {
    fn start(client: Client, untouched: u16) -> Self {
        let (stop, counts) = (CancellationToken::new(), Arc::<Counts>::default());
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (client, counts, stop) = (client.clone(), counts.clone(), stop.clone());
            callers.spawn(async move {
                while !stop.is_cancelled() {
                    let key = fastrand::u64(..KEYS);
                    let got = client.get("users", &format!("k{key}")).await;
                    let got = got
                        .map(|it| it.value.to_vec())
                        .map_err(|error| error.to_string());
                    counts.count("the client", key, got);
                }
            });
        }
        let (counted, stopped) = (counts.clone(), stop.clone());
        callers.spawn(async move {
            let http = common::http();
            while !stopped.is_cancelled() {
                let key = fastrand::u64(..KEYS);
                let url = format!("http://127.0.0.1:{untouched}/v1/users/k{key}");
                let got = async {
                    let answer = http.get(url).send().await?.error_for_status()?;
                    answer.bytes().await
                };
                let got: Result<_, reqwest::Error> = got.await;
                let got = got
                    .map(|it| it.to_vec())
                    .map_err(|error| format!("{error:?}"));
                counted.count("HTTP", key, got);
            }
        });
        Self {
            stop,
            callers,
            counts,
        }
    }

    /// Lets the load run until it has done so many more gets.
    async fn go_on_for(&self, gets: u64) {
        let until = self.counts.done.load(Ordering::Relaxed) + gets;
        common::within("the load", async {
            while self.counts.done.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Stops it; no get may have failed.
    async fn end(self, what: &str) {
        self.stop.cancel();
        common::within("the callers", self.callers.join_all()).await;
        let (done, failed) = (
            self.counts.done.load(Ordering::Relaxed),
            self.counts.failed.load(Ordering::Relaxed),
        );
        println!("{what}: {done} gets, {failed} failed");
        assert_eq!(failed, 0, "{what}");
        assert!(done > 1_000, "{what}: no load to speak of");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_killed_and_restarted() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    load.go_on_for(1_000).await;
    for victim in 0..3 {
        scene.nodes[victim].kill();
        let killed_at = Instant::now();
        load.go_on_for(300).await;
        let living: Vec<&str> = scene
            .nodes
            .iter()
            .map(|it| &*it.id)
            .filter(|id| **id != scene.nodes[victim].id)
            .collect();
        for node in scene
            .nodes
            .iter()
            .filter(|node| node.id != scene.nodes[victim].id)
        {
            node.until_ring(&living).await;
        }
        let took = killed_at.elapsed();
        println!(
            "killed {}: out of every ring after {took:?}, lease {LEASE:?}",
            scene.nodes[victim].id
        );
        assert!(
            took < LEASE * 4,
            "several times the goal of lease + 1 s: {took:?}"
        );
        scene.nodes[victim].revive();
        scene.all_agree().await;
    }
    load.go_on_for(1_000).await;
    load.end("kills").await;
    println!("origin loads: {} for {KEYS} keys", scene.origin.loads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_leave_and_come_back_in_order() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    for leaving in 0..3 {
        load.go_on_for(300).await;
        scene.nodes[leaving].terminate().await;
        load.go_on_for(300).await;
        scene.nodes[leaving].revive();
        scene.nodes[leaving].until_ready().await;
    }
    scene.all_agree().await;
    load.end("rolling restarts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_restarted() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    for _ in 0..3 {
        load.go_on_for(500).await;
        scene.etcd.kill();
        load.go_on_for(500).await;
        scene.etcd.revive().await;
    }
    scene.all_agree().await;
    load.go_on_for(500).await;
    load.end("etcd restarted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_compacted() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    for round in 0..5 {
        load.go_on_for(300).await;
        let mut client = scene.etcd.client().await;
        for n in 0..20 {
            client
                .put("noise", format!("{round} {n}"), None)
                .await
                .unwrap();
        }
        scene.etcd.compact().await;
    }
    // What comes after the compaction is still seen.
    scene.nodes[0].terminate().await;
    let left: Vec<&str> = scene.nodes[1..].iter().map(|it| &*it.id).collect();
    for node in &scene.nodes[1..] {
        node.until_ring(&left).await;
    }
    load.go_on_for(500).await;
    load.end("etcd compacted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_away_for_thirty_seconds() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    load.go_on_for(500).await;
    scene.etcd.kill();
    // The length of the outage is what is tested: ten times the lease.
    tokio::time::sleep(Duration::from_secs(30)).await;
    for node in &scene.nodes {
        let ring = node.ring().await.expect("answers");
        assert_eq!(ring.members.len(), NODES, "the last ring stays");
        assert_eq!(
            node.readyz().await.expect("answers").0,
            200,
            "and the node is ready"
        );
    }
    load.go_on_for(500).await;
    scene.etcd.revive().await;
    scene.all_agree().await;
    // And it is alive: a change is seen again.
    scene.nodes[0].terminate().await;
    let left: Vec<&str> = scene.nodes[1..].iter().map(|it| &*it.id).collect();
    for node in &scene.nodes[1..] {
        node.until_ring(&left).await;
    }
    load.end("etcd away for 30 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_wiped() {
    let mut scene = Scene::start().await;
    let load = scene.load().await;
    load.go_on_for(500).await;
    let loads_before = scene.origin.loads();
    scene.etcd.wipe().await;
    common::within("all keys again", async {
        while scene.etcd.keys("gaocache/").await.len() < NODES {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    scene.all_agree().await;
    load.go_on_for(1_000).await;
    load.end("etcd wiped").await;
    println!(
        "origin loads during it: {}",
        scene.origin.loads() - loads_before
    );
}
