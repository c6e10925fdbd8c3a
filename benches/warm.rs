//! What the origin notices when the cluster scales, rolls and crashes: real processes, a real etcd,
//! a steady load. `make warm-test`
//!
//! Each event has a cluster of its own. All keys are warm; then the event takes place under load;
//! then every key is read once, so that nothing that was lost on the way goes unnoticed. Counted is
//! what the origin was asked from the event's begin on. It fails when a get fails or the origin
//! notices more than the goal; times are printed, not judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use common::{etcd::Etcd, process::NodeProcess};
use futures::future::join_all;
use gaocache::{
    Client, ClientOptions,
    internal::wire::{GetManyRequest, cache_client::CacheClient, get_many_response::Outcome},
};
use gaocache_core::group::Source;
use gaocache_discovery::EtcdConfig;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 1024;
/// Gets a second, of all callers together: steady, and well below what two cores can serve beside
/// the event itself.
const RATE: u32 = 1_000;
const CALLERS: u32 = 8;
/// Gets before the event, and from its begin on at least: five seconds of each are compared.
const WINDOW: u64 = 5_000;
const ZIPF_EXPONENT: f64 = 0.99;

/// Counts what it is asked for, by key.
struct Origin {
    url: String,
    counts: Arc<Vec<AtomicU32>>,
}

impl Origin {
    async fn start(keys: usize) -> Self {
        let counts: Arc<Vec<AtomicU32>> = Arc::new((0..keys).map(|_| AtomicU32::new(0)).collect());
        let router = Router::new()
            .route("/users/{key}", get(value))
            .with_state(counts.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/users/{{key}}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, counts }
    }

    fn loads(&self) -> u64 {
        let counts = self.counts.iter();
        counts
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum()
    }

    fn reset(&self) {
        for count in self.counts.iter() {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn most_of_one_key(&self) -> u32 {
        let counts = self.counts.iter();
        counts
            .map(|count| count.load(Ordering::Relaxed))
            .max()
            .unwrap_or(0)
    }
}

async fn value(State(counts): State<Arc<Vec<AtomicU32>>>, Path(key): Path<usize>) -> String {
    counts[key].fetch_add(1, Ordering::Relaxed);
    expected(key)
}

fn expected(key: usize) -> String {
    format!("{key:0>VALUE_BYTES$}")
}

/// Draws keys, the first the most often: the inverse of the continuous approximation of Zipf's
/// distribution function.
fn zipf(keys: usize) -> usize {
    let rest = 1.0 - ZIPF_EXPONENT;
    let total = ((keys as f64).powf(rest) - 1.0) / rest;
    let at = (fastrand::f64() * total * rest + 1.0).powf(1.0 / rest);
    (at as usize - 1).min(keys - 1)
}

struct Scene {
    etcd: Etcd,
    origin: Origin,
    nodes: Vec<NodeProcess>,
    further: Vec<String>,
    keys: usize,
}

impl Scene {
    async fn start(size: usize, keys: usize, further: &[&str]) -> Self {
        let mut scene = Self {
            etcd: Etcd::start().await,
            origin: Origin::start(keys).await,
            nodes: Vec::new(),
            further: further.iter().map(|&it| it.to_owned()).collect(),
            keys,
        };
        for _ in 0..size {
            scene.join();
        }
        scene.agreed().await;
        let failed = scene.sweep().await;
        assert_eq!(failed, 0, "while warming");
        assert_eq!(scene.origin.loads(), keys as u64, "while warming");
        scene
    }

    fn join(&mut self) {
        let id = format!("n{}", self.nodes.len());
        let mut further = vec![
            "cache.capacity=512MiB",
            "log.level=warn,gaocache::node=info",
        ];
        further.extend(self.further.iter().map(String::as_str));
        let node = NodeProcess::start(&id, &[&self.etcd.url], &self.origin.url, &further);
        self.nodes.push(node);
    }

    async fn agreed(&self) {
        let ids: Vec<&str> = self.nodes.iter().map(|node| &*node.id).collect();
        for node in &self.nodes {
            node.until_ready().await;
            node.until_ring(&ids).await;
        }
    }

    /// Reads every key once, at any node. Returns how many reads failed.
    async fn sweep(&self) -> usize {
        const AT_ONCE: usize = 1_000;
        let failed = AtomicU64::new(0);
        let streams = self.nodes.iter().enumerate().map(|(stream, node)| {
            let url = format!("http://127.0.0.1:{}", node.grpc);
            let failed = &failed;
            async move {
                let client = CacheClient::connect(url).await.expect("connects");
                let mut client = client.max_decoding_message_size(usize::MAX);
                let keys: Vec<usize> = (0..self.keys).skip(stream).step_by(self.nodes.len()).collect();
                for keys in keys.chunks(AT_ONCE) {
                    let request = GetManyRequest {
                        group: "users".into(),
                        keys: keys.iter().map(usize::to_string).collect(),
                    };
                    let mut answers = client.get_many(request).await.expect("answers").into_inner();
                    let mut right = 0;
                    while let Ok(Some(answer)) = answers.message().await {
                        let key: usize = answer.key.parse().expect("a key");
                        let found = matches!(&answer.outcome, Some(Outcome::Found(it)) if it.value == expected(key));
                        right += usize::from(found);
                    }
                    failed.fetch_add((keys.len() - right) as u64, Ordering::Relaxed);
                }
            }
        });
        join_all(streams).await;
        failed.into_inner() as usize
    }

    /// Waits until a node holds a copy of each entry, by the sum of what all hold.
    async fn copied(&self) {
        common::within("copies of all entries", async {
            loop {
                let mut items = 0.0;
                for node in &self.nodes {
                    items += node.metric("gaocache_store_items", "owned").await;
                }
                if items >= 2.0 * self.keys as f64 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
}

/// Gets at a steady rate, until it is ended.
struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
    seen: Arc<Seen>,
    /// Gets before the event.
    before: u64,
}

#[derive(Default)]
struct Seen {
    during: AtomicBool,
    /// Microseconds of hits before the event, and during it.
    hits: [Mutex<Vec<u32>>; 2],
    gets: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    async fn start(scene: &Scene) -> Self {
        let etcd = EtcdConfig::new([&scene.etcd.url]);
        let client = Client::new(etcd, "gaocache", ClientOptions::default());
        let size = scene.nodes.len();
        let known = client.wait_for_members(size);
        common::within("the client's ring", known)
            .await
            .expect("running");
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Seen>::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (client, seen, stop, keys) =
                (client.clone(), seen.clone(), stop.clone(), scene.keys);
            callers.spawn(async move {
                let mut beat = interval(Duration::from_secs(1) * CALLERS / RATE);
                beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
                while !stop.load(Ordering::Relaxed) {
                    beat.tick().await;
                    seen.get(&client, zipf(keys)).await;
                }
            });
        }
        let mut load = Self {
            stop,
            callers,
            seen,
            before: 0,
        };
        load.go_on_for(WINDOW).await;
        load.seen.during.store(true, Ordering::Relaxed);
        load.before = load.seen.gets.load(Ordering::Relaxed);
        load
    }

    async fn go_on_for(&self, gets: u64) {
        let until = self.seen.gets.load(Ordering::Relaxed) + gets;
        common::within("the load", async {
            while self.seen.gets.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn end(self) -> Arc<Seen> {
        let during = self.seen.gets.load(Ordering::Relaxed) - self.before;
        self.go_on_for(WINDOW.saturating_sub(during)).await;
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        self.seen
    }
}

impl Seen {
    async fn get(&self, client: &Client, key: usize) {
        let started = Instant::now();
        let got = client.get("users", &key.to_string()).await;
        let took = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.gets.fetch_add(1, Ordering::Relaxed);
        match got {
            Ok(answer) if answer.value == expected(key) => {
                if answer.source == Source::Hit {
                    let phase = usize::from(self.during.load(Ordering::Relaxed));
                    self.hits[phase].lock().push(took);
                }
            }
            got => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("a get failed: {:?}", got.map(|it| it.value.len()));
            }
        }
    }

    fn p99(&self, phase: usize) -> u32 {
        let mut hits = self.hits[phase].lock().clone();
        hits.sort_unstable();
        hits.get(hits.len() * 99 / 100).copied().unwrap_or(0)
    }
}

/// A line of the table.
struct Row {
    event: &'static str,
    loads: u64,
    most: u32,
    keys: usize,
    goal_percent: f64,
    gets: u64,
    failed: u64,
    p99: [u32; 2],
}

impl Row {
    fn percent(&self) -> f64 {
        self.loads as f64 * 100.0 / self.keys as f64
    }

    fn met(&self) -> bool {
        self.percent() <= self.goal_percent && self.failed == 0
    }

    fn print(&self) {
        println!(
            "| {} | {} | {:.2} % | {:.1} % | {} | {} | {} | {} → {} µs ({:.1}×) | {} |",
            self.event,
            self.loads,
            self.percent(),
            self.goal_percent,
            self.most,
            self.gets,
            self.failed,
            self.p99[0],
            self.p99[1],
            f64::from(self.p99[1]) / f64::from(self.p99[0].max(1)),
            if self.met() { "yes" } else { "NO" },
        );
    }
}

/// One event under load, and what the origin noticed of it.
async fn observe(
    event: &'static str,
    goal_percent: f64,
    scene: &mut Scene,
    happens: impl AsyncFnOnce(&mut Scene),
) -> Row {
    let load = Load::start(scene).await;
    scene.origin.reset();
    happens(scene).await;
    let seen = load.end().await;
    let missed = scene.sweep().await as u64;
    let row = Row {
        event,
        loads: scene.origin.loads(),
        most: scene.origin.most_of_one_key(),
        keys: scene.keys,
        goal_percent,
        gets: seen.gets.load(Ordering::Relaxed),
        failed: seen.failed.load(Ordering::Relaxed) + missed,
        p99: [seen.p99(0), seen.p99(1)],
    };
    row.print();
    row
}

async fn rolling_restart() -> Row {
    let mut scene = Scene::start(3, KEYS, &[]).await;
    observe(
        "rolling restart, one by one",
        1.0,
        &mut scene,
        async |scene| {
            for number in 0..scene.nodes.len() {
                scene.nodes[number].terminate().await;
                scene.nodes[number].revive();
                scene.nodes[number].until_ready().await;
            }
            scene.agreed().await;
        },
    )
    .await
}

async fn grow(event: &'static str, by: usize) -> Row {
    let mut scene = Scene::start(3, KEYS, &[]).await;
    observe(event, 0.5, &mut scene, async |scene| {
        for _ in 0..by {
            scene.join();
        }
        scene.agreed().await;
    })
    .await
}

async fn shrink() -> Row {
    let mut scene = Scene::start(5, KEYS, &[]).await;
    observe("5 → 2 at once", 1.0, &mut scene, async |scene| {
        let mut leaving = scene.nodes.split_off(2);
        join_all(leaving.iter_mut().map(NodeProcess::terminate)).await;
        scene.agreed().await;
    })
    .await
}

async fn crash(event: &'static str, replicas: usize) -> Row {
    let replicas_setting = format!("cache.replicas={replicas}");
    let mut scene = Scene::start(3, KEYS, &[&replicas_setting]).await;
    let mut goal_percent = 2.0;
    if replicas > 1 {
        scene.copied().await;
    } else {
        // Its share, which the ring's draw makes a little more or less than a third.
        let victim = scene.nodes.last().expect("three");
        let held = victim.metric("gaocache_store_items", "owned").await;
        goal_percent = held * 100.0 / scene.keys as f64;
    }
    observe(event, goal_percent, &mut scene, async |scene| {
        let mut victim = scene.nodes.pop().expect("three");
        victim.kill();
        scene.agreed().await;
    })
    .await
}

/// How long a node with about 100 MB takes from SIGTERM to its end, at this rate.
async fn drain(what: &str, rate: &str) {
    const DRAINED_KEYS: usize = 200_000;
    let rate_setting = format!("handoff.max_bytes_per_second={rate}");
    let mut scene = Scene::start(2, DRAINED_KEYS, &[&rate_setting]).await;
    let leaving = &mut scene.nodes[1];
    let entries = leaving.metric("gaocache_store_items", "owned").await;
    let megabytes = entries * VALUE_BYTES as f64 / 1e6;
    let started = Instant::now();
    leaving.terminate().await;
    let took = started.elapsed().as_secs_f64();
    scene.nodes.pop();
    scene.origin.reset();
    let failed = scene.sweep().await;
    println!(
        "\n{what}: {megabytes:.0} MB ({entries} entries) from SIGTERM to the process' end in {took:.2} s, {:.0} MB/s; origin loads {}, failed {failed}",
        megabytes / took,
        scene.origin.loads()
    );
    assert_eq!((scene.origin.loads(), failed), (0, 0), "while draining");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo bench` hands over arguments of its own; a name chooses one event.
    let wanted = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let chosen = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    println!(
        "{KEYS} keys of {VALUE_BYTES} bytes, {RATE} gets a second by zipf {ZIPF_EXPONENT}; every key is read once more after the event\n"
    );
    println!(
        "| event | origin loads | share of the keys | goal | most loads of one key | gets | failed | p99 of hits before → during | met |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    if chosen("roll") {
        rows.push(rolling_restart().await);
    }
    if chosen("grow") {
        rows.push(grow("3 → 4", 1).await);
        rows.push(grow("3 → 5", 2).await);
    }
    if chosen("shrink") {
        rows.push(shrink().await);
    }
    if chosen("crash") {
        rows.push(crash("SIGKILL of one, replicas = 2", 2).await);
        rows.push(crash("SIGKILL of one, replicas = 1", 1).await);
    }
    if chosen("drain") {
        drain("a drain at the default rate (goal 3 s)", "64MiB").await;
        drain("a drain at any rate (goal 200 MB/s)", "100GiB").await;
    }
    assert!(
        rows.iter().all(Row::met),
        "a goal was missed; see the table"
    );
}
