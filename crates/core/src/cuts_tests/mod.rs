//! Nodes of core over a registry with leases, and a network whose links are cut: any, one way or
//! both. Messages that meet a cut are lost, or arrive when it is mended. Processes stand still,
//! crash and are started again under their ids, and every clock shows another time. Many seeds,
//! virtual time.
//!
//! Checked at every answer: no get fails, and none brings what was removed before it was asked.

mod bound;
mod process;
mod registry;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fastrand::Rng;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use process::Process;
use registry::{Stored, Way};

use crate::{
    error::{BoxError, Result},
    harness_tests::{Plan, TestNet, TestNode},
    membership::{Member, MemberState},
    ports::{Clock, Loaded, Origin, Timestamp},
};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const ETCD: &str = "etcd";
const KEYS: usize = 6;
const LEASE: Duration = Duration::from_secs(3);
/// Virtual.
const RUN: Duration = Duration::from_secs(60);
/// Virtual; what takes longer hangs.
const ENDS: Duration = Duration::from_secs(120);
/// Bound on a call to the registry.
const CALL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A clock that shows a time of its own.
struct OwnClock {
    began: Instant,
    shows: u64,
}

impl Clock for OwnClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.began.elapsed().as_millis()).expect("a short run");
        Timestamp(self.shows + passed)
    }
}

/// Each key has a version, which a value tells.
#[derive(Default)]
struct Versions(Mutex<HashMap<String, u64>>);

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let version = self.0.lock().get(key).copied().unwrap_or(0);
        sleep(Duration::from_millis(fastrand::u64(1..200))).await;
        Ok(version.to_string().into_bytes().into())
    }
}

/// Which links are cut, by direction, and who stands still.
#[derive(Default)]
struct Faults {
    cut: HashSet<(String, String)>,
    still: HashSet<String>,
}

struct Links {
    faults: watch::Sender<Faults>,
    /// Some messages take seconds.
    slow: bool,
    rng: Mutex<Rng>,
}

impl Links {
    /// A message on its way; false if it is lost.
    async fn pass(&self, from: &str, to: &str) -> bool {
        let (millis, waits) = {
            let mut rng = self.rng.lock();
            let slow = rng.u32(..50) == 0 && self.slow;
            (rng.u64(..if slow { 3_000 } else { 20 }), rng.bool())
        };
        sleep(Duration::from_millis(millis)).await;
        let way = (from.to_owned(), to.to_owned());
        let mut faults = self.faults.subscribe();
        if faults.borrow().cut.contains(&way) && !waits {
            sleep(CALL).await;
            return false;
        }
        let runs = |it: &Faults| !it.still.contains(from) && !it.still.contains(to);
        let arrives = faults
            .wait_for(|it| !it.cut.contains(&way) && runs(it))
            .await;
        arrives.is_ok()
    }

    async fn runs(&self, id: &str) {
        let mut faults = self.faults.subscribe();
        let running = faults.wait_for(|it| !it.still.contains(id)).await;
        drop(running);
    }
}

/// The world of one seed.
struct World {
    replicas: usize,
    net: Arc<TestNet>,
    links: Arc<Links>,
    origin: Arc<Versions>,
    began: Instant,
    etcd: Mutex<Stored>,
    changed: watch::Sender<()>,
    alive: Mutex<Vec<Arc<TestNode>>>,
    floors: Mutex<HashMap<String, u64>>,
    gets: AtomicUsize,
    removals: AtomicUsize,
    expulsions: AtomicUsize,
    rng: Mutex<Rng>,
}

impl World {
    fn new(seed: u64, replicas: usize, slow: bool) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let links = Arc::new(Links {
            faults: watch::Sender::default(),
            slow,
            rng: Mutex::new(rng.fork()),
        });
        let net = Arc::<TestNet>::default();
        let ways = links.clone();
        *net.passing.lock() = Some(Arc::new(Box::new(move |from, to| {
            let (links, from, to) = (ways.clone(), from.to_owned(), to.to_owned());
            async move { links.pass(&from, &to).await }.boxed()
        })));
        Arc::new(Self {
            replicas,
            net,
            links,
            origin: Arc::default(),
            began: Instant::now(),
            etcd: Mutex::default(),
            changed: watch::Sender::default(),
            alive: Mutex::default(),
            floors: Mutex::default(),
            gets: AtomicUsize::new(0),
            removals: AtomicUsize::new(0),
            expulsions: AtomicUsize::new(0),
            rng: Mutex::new(rng),
        })
    }

    fn random(&self, bound: usize) -> usize {
        self.rng.lock().usize(..bound)
    }

    async fn pause(&self, most_millis: u64) {
        let millis = self.rng.lock().u64(..most_millis);
        sleep(Duration::from_millis(millis)).await;
    }

    /// A node's processes, one after the other.
    async fn live(self: Arc<Self>, id: &'static str, until: Instant) {
        let mut restarted = false;
        while Instant::now() < until {
            let (node, mut tasks) = self.start(id, restarted);
            self.pause(60_000).await;
            tasks.abort_all();
            restarted = self.crashed(&node);
            self.pause(4_000).await;
        }
    }

    /// A process of that node.
    fn start(self: &Arc<Self>, id: &'static str, restarted: bool) -> (Arc<TestNode>, JoinSet<()>) {
        let shows = self.rng.lock().u64(1_000_000..1_000_000_000);
        let clock = Arc::new(OwnClock {
            began: self.began,
            shows,
        });
        let plan = Plan {
            replicas: self.replicas,
            capacity: 1 << 20,
            bytes_per_second: 1 << 20,
            lease: Some(LEASE),
            clock: clock.clone(),
            origin: self.origin.clone(),
            net: self.net.clone(),
        };
        let node = Arc::new(plan.node(id));
        let way = Arc::new(Way {
            world: self.clone(),
            id: id.into(),
            notices: watch::Sender::default(),
        });
        node.standing.joined(way.clone());
        let instance = self.rng.lock().u64(..).to_string();
        let me = Member {
            state: MemberState::Joining,
            instance: instance.into(),
            restarted,
            ..Member::new(id, format!("{id}:1"))
        };
        let process = Arc::new(Process {
            world: self.clone(),
            node: node.clone(),
            way,
            clock,
            me: Mutex::new(me),
            lease: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(process.clone().watch());
        tasks.spawn(process.clone().register());
        tasks.spawn(process.clone().live_on());
        tasks.spawn(process.clone().expel());
        tasks.spawn(process.clone().heed());
        let wanted = node.queued_copies.lock().take().expect("once");
        let handoff = node.handoff.clone();
        tasks.spawn(async move { handoff.follow(wanted, CancellationToken::new()).await });
        self.alive.lock().push(node.clone());
        (node, tasks)
    }

    /// That node's process is gone. Returns whether it was a member.
    fn crashed(&self, node: &Arc<TestNode>) -> bool {
        self.alive.lock().retain(|it| !Arc::ptr_eq(it, node));
        self.net.groups.lock().remove(&node.id);
        let topology = node.cluster.snapshot();
        topology.me().is_some_and(Member::can_promise)
    }

    /// Cuts links, and lets processes stand still.
    async fn break_things(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(6_000).await;
            let ends: Vec<&str> = IDS.iter().copied().chain([ETCD, ETCD, ETCD]).collect();
            let faults = 1 + self.random(4);
            for _ in 0..faults {
                let (a, b) = (IDS[self.random(5)], ends[self.random(ends.len())]);
                let kind = self.random(5);
                self.links.faults.send_modify(|it| {
                    let way = (a.to_owned(), b.to_owned());
                    let back = (b.to_owned(), a.to_owned());
                    match kind {
                        0 => drop(it.still.insert(a.to_owned())),
                        1 => drop(it.cut.insert(way)),
                        2 => drop(it.cut.insert(back)),
                        _ => it.cut.extend([way, back]),
                    }
                });
            }
            self.pause(12_000).await;
            self.links.faults.send_replace(Faults::default());
        }
        self.links.faults.send_replace(Faults::default());
    }

    async fn sweep(self: Arc<Self>, every: Duration) {
        loop {
            sleep(every).await;
            if self.etcd.lock().sweep() {
                self.changed.send_replace(());
            }
        }
    }

    /// A node that doesn't stand still.
    fn somebody(&self) -> Option<Arc<TestNode>> {
        let alive = self.alive.lock();
        let at = (!alive.is_empty()).then(|| self.random(alive.len()))?;
        let still = &self.links.faults.borrow().still;
        (!still.contains(&*alive[at].id)).then(|| alive[at].clone())
    }

    async fn read(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(100).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.random(KEYS));
            let floor = self.floors.lock().get(&key).copied().unwrap_or(0);
            let got = timeout(ENDS, node.group.get(&key)).await.expect("ends");
            let answer = got.expect("no get fails");
            let version = std::str::from_utf8(&answer.value)
                .expect("text")
                .parse::<u64>();
            let version = version.expect("a number");
            assert!(
                version >= floor,
                "{key} at {}: {version}, removed {floor}",
                node.id
            );
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn remove(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(1_500).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.random(KEYS));
            let version = {
                let mut versions = self.origin.0.lock();
                let version = versions.entry(key.clone()).or_default();
                *version += 1;
                *version
            };
            let done = timeout(ENDS, node.group.remove(&key)).await.expect("ends");
            // A process that has crashed answers nobody.
            if done.is_ok() && self.alive.lock().iter().any(|it| Arc::ptr_eq(it, &node)) {
                let mut floors = self.floors.lock();
                let floor = floors.entry(key).or_default();
                *floor = version.max(*floor);
                self.removals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn simulate(seed: u64, replicas: usize) -> [usize; 3] {
    let world = World::new(seed, replicas, true);
    let until = Instant::now() + RUN;
    let sweeping = tokio::spawn(world.clone().sweep(TICK / 2));
    let mut tasks = JoinSet::new();
    for id in IDS {
        tasks.spawn(world.clone().live(id, until));
    }
    for _ in 0..4 {
        tasks.spawn(world.clone().read(until));
    }
    for _ in 0..2 {
        tasks.spawn(world.clone().remove(until));
    }
    tasks.spawn(world.clone().break_things(until));
    let ended = timeout(RUN * 4, async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|error| panic!("seed {seed}, replicas {replicas}: {error}"));
        }
    });
    assert!(ended.await.is_ok(), "seed {seed} hangs");
    sweeping.abort();
    let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    [of(&world.gets), of(&world.removals), of(&world.expulsions)]
}

/// Of one thread, in virtual time. With `--cfg tokio_unstable` (`make simulation-test`), a seed's
/// runs are all alike: `select!` and `watch` make their choices by it, too.
fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let built = builder.enable_time().start_paused(true).build();
    built.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// `make simulation-test` sets it.
fn seeds() -> u64 {
    std::env::var("GAOCACHE_SEEDS").map_or(150, |seeds| seeds.parse().expect("a number"))
}

#[test]
fn whatever_is_cut_stands_still_or_restarts_nothing_removed_is_served() {
    let first: u64 = std::env::var("GAOCACHE_SEED").map_or(0, |seed| seed.parse().expect("a seed"));
    let seeds = seeds();
    let mut sums = [0; 3];
    for seed in first..first + seeds {
        let replicas = 1 + usize::from(seed % 2 == 1);
        let done = runtime(seed).block_on(simulate(seed, replicas));
        sums = std::array::from_fn(|at| sums[at] + done[at]);
    }
    let [gets, removals, expulsions] = sums;
    println!("{seeds} seeds: {gets} gets, {removals} removals, {expulsions} expulsions");
    let each = |least: u64| usize::try_from(seeds * least).expect("few");
    assert!(
        gets > each(500) && removals > each(10) && expulsions >= each(1),
        "nothing much happened"
    );
}
