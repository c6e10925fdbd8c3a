//! Nodes that join, leave and crash at random, over a network that delays and loses, with views
//! that arrive late: many seeds, virtual time.
//!
//! Checked at every answer: no get fails, none brings what was removed before it was asked or what
//! had expired by then, no member is asked on behalf of another's question, and everything ends.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use fastrand::Rng;
use futures::FutureExt;
use parking_lot::Mutex as SyncMutex;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    error::Result,
    harness_tests::{Plan as Nodes, TTL_MS, TestNet, TestNode},
    membership::{Member, MemberState, View},
    ports::{Loaded, Origin, Timestamp},
};

const KEYS: usize = 12;
const SEEDS: u64 = 150;
/// Virtual.
const RUN: Duration = Duration::from_secs(100);
const LEASE: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(5);
/// Virtual; what takes longer hangs.
const ENDS: Duration = Duration::from_secs(120);

/// Virtual time.
pub(super) struct VirtualClock(pub(super) Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = self.0.elapsed().as_millis();
        Timestamp(1_000_000 + u64::try_from(passed).expect("a short run"))
    }
}

/// Each key has a version; a value tells it, and when it was loaded.
struct Versions {
    current: SyncMutex<HashMap<String, u64>>,
    clock: Arc<VirtualClock>,
    rng: SyncMutex<Rng>,
}

impl Versions {
    fn of(&self, key: &str) -> u64 {
        self.current.lock().get(key).copied().unwrap_or(0)
    }

    fn bump(&self, key: &str) -> u64 {
        let mut current = self.current.lock();
        let version = current.entry(key.to_owned()).or_default();
        *version += 1;
        *version
    }
}

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, crate::error::BoxError> {
        let value = format!("{} {}", self.of(key), self.clock.now().0);
        let takes = self.rng.lock().u64(1..200);
        sleep(Duration::from_millis(takes)).await;
        Ok(value.into_bytes().into())
    }
}

/// A member's state, and the revision at which it came into the ring.
type Since = (MemberState, u64);

/// The world of one seed.
struct World {
    plan: Nodes,
    net: Arc<TestNet>,
    origin: Arc<Versions>,
    clock: Arc<VirtualClock>,
    /// The registry: members by id, with the revision at which each came into the ring; and its
    /// revision.
    members: SyncMutex<(u64, HashMap<Arc<str>, Since>)>,
    changed: watch::Sender<u64>,
    alive: SyncMutex<Vec<Arc<TestNode>>>,
    /// Which life of its node each id stands for.
    lives: SyncMutex<HashMap<Arc<str>, u64>>,
    /// Those, and the nodes that join.
    listed: SyncMutex<Vec<Arc<TestNode>>>,
    /// Versions that removals answered for, by key.
    floors: SyncMutex<HashMap<String, u64>>,
    /// Gets under way, by node and key.
    asking: Arc<SyncMutex<HashMap<(String, String), usize>>>,
    gets: AtomicUsize,
    removals: AtomicUsize,
    rng: SyncMutex<Rng>,
}

impl World {
    fn new(seed: u64, replicas: usize) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(VirtualClock(Instant::now()));
        let origin = Arc::new(Versions {
            current: SyncMutex::default(),
            clock: clock.clone(),
            rng: SyncMutex::new(rng.fork()),
        });
        let net = Arc::<TestNet>::default();
        let ways = SyncMutex::new(rng.fork());
        *net.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
            let mut rng = ways.lock();
            let (lost, millis) = match rng.u32(..100) {
                0..3 => (true, rng.u64(..100)),
                // Nearly as long as anything may be on its way.
                3..6 => (false, rng.u64(..9_000)),
                _ => (false, rng.u64(..20)),
            };
            async move {
                sleep(Duration::from_millis(millis)).await;
                !lost
            }
            .boxed()
        })));
        let asking: Arc<SyncMutex<HashMap<(String, String), usize>>> = Arc::default();
        let asked = asking.clone();
        *net.on_fetch.lock() = Some(Box::new(move |from, key| {
            let under_way = asked.lock();
            let own = under_way.get(&(from.to_owned(), key.to_owned()));
            assert!(own.is_some_and(|gets| *gets > 0), "a second hop by {from}");
        }));
        Arc::new(Self {
            plan: Nodes {
                replicas,
                capacity: 1 << 20,
                bytes_per_second: 1 << 40,
                lease: Some(LEASE),
                clock: clock.clone(),
                origin: origin.clone(),
                net: net.clone(),
            },
            net,
            origin,
            clock,
            members: SyncMutex::default(),
            changed: watch::Sender::new(0),
            alive: SyncMutex::default(),
            lives: SyncMutex::default(),
            listed: SyncMutex::default(),
            floors: SyncMutex::default(),
            asking,
            gets: AtomicUsize::new(0),
            removals: AtomicUsize::new(0),
            rng: SyncMutex::new(rng),
        })
    }

    fn random(&self, bound: usize) -> usize {
        self.rng.lock().usize(..bound)
    }

    async fn pause(&self, most_millis: u64) {
        let millis = self.rng.lock().u64(..most_millis);
        sleep(Duration::from_millis(millis)).await;
    }

    /// Tells the registry; returns the revision from which on a view has it.
    fn announce(&self, id: &Arc<str>, state: Option<MemberState>) -> u64 {
        let mut members = self.members.lock();
        members.0 += 1;
        let revision = members.0;
        match state {
            Some(state) => {
                let since = match members.1.get(id) {
                    Some((MemberState::Serving, since)) => *since,
                    _ => revision,
                };
                members.1.insert(id.clone(), (state, since))
            }
            None => members.1.remove(id),
        };
        drop(members);
        self.changed.send_replace(revision);
        revision
    }

    fn view(&self) -> View {
        let members = self.members.lock();
        let lives = self.lives.lock();
        let listed = members.1.iter().map(|(id, (state, since))| Member {
            state: *state,
            since: *since,
            instance: lives[id].to_string().into(),
            ..Member::new(id.clone(), format!("{id}:1"))
        });
        View::new(members.0, listed)
    }

    /// Brings each view to a node, late.
    async fn bring_views(self: Arc<Self>, node: Arc<TestNode>, gone: CancellationToken) {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = gone.cancelled() => return,
                it = changed.changed() => if it.is_err() { return },
            }
            self.pause(400).await;
            changed.mark_unchanged();
            let view = self.view();
            if !view.members.is_empty() {
                node.install(&view);
            }
        }
    }

    /// A node's whole life.
    async fn live(self: Arc<Self>, id: Arc<str>, until: Instant) {
        loop {
            *self.lives.lock().entry(id.clone()).or_default() += 1;
            let node = Arc::new(self.plan.node(&id));
            let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
            let views = tokio::spawn(self.clone().bring_views(node.clone(), gone.clone()));
            let wanted = node.queued_copies.lock().take().expect("once");
            let (handoff, stopped) = (node.handoff.clone(), stop.clone());
            let moving = tokio::spawn(async move { handoff.follow(wanted, stopped).await });
            self.join(&node).await;
            let mut rings = node.cluster.rings();
            let seen = rings.wait_for(|ring| ring.in_ring()).await;
            drop(seen.expect("the sender lives"));
            self.alive.lock().push(node.clone());
            self.pause(20_000).await;
            let over = Instant::now() >= until;
            let last = self.alive.lock().len() < 2;
            if !over && !last && self.random(4) == 0 {
                self.crash(&node, &stop).await;
            } else if !over {
                self.leave(&node, &stop).await;
            }
            stop.cancel();
            gone.cancel();
            moving.await.expect("no panic");
            views.await.expect("no panic");
            if over {
                self.bury(&node);
                return;
            }
            self.pause(3_000).await;
        }
    }

    /// As `node::membership` does it: keeps nothing until all others have seen it.
    async fn join(&self, node: &Arc<TestNode>) {
        self.listed.lock().push(node.clone());
        let revision = self.announce(&node.id, Some(MemberState::Joining));
        // A member that crashes meanwhile sees nothing any more.
        while timeout(LEASE, self.seen(revision)).await.is_err() {}
        self.announce(&node.id, Some(MemberState::Serving));
        node.standing
            .fence
            .extend(self.clock.now(), Timestamp::NEVER);
    }

    fn bury(&self, node: &Arc<TestNode>) {
        self.alive.lock().retain(|it| !Arc::ptr_eq(it, node));
        self.listed.lock().retain(|it| !Arc::ptr_eq(it, node));
    }

    async fn crash(&self, node: &Arc<TestNode>, stop: &CancellationToken) {
        self.bury(node);
        self.net.groups.lock().remove(&node.id);
        stop.cancel();
        sleep(LEASE).await;
        self.announce(&node.id, None);
    }

    /// As `node::shutdown` does it.
    async fn leave(&self, node: &Arc<TestNode>, stop: &CancellationToken) {
        stop.cancel();
        let _ = timeout(DRAIN, async {
            let revision = self.announce(&node.id, Some(MemberState::Draining));
            self.seen(revision).await;
            node.groups.leave();
            node.handoff.leave(DRAIN).await;
        })
        .await;
        node.standing.fence.end();
        let revision = self.announce(&node.id, None);
        let _ = timeout(DRAIN, self.seen(revision)).await;
        self.bury(node);
        self.net.groups.lock().remove(&node.id);
    }

    async fn seen(&self, revision: u64) {
        let nodes = self.listed.lock().clone();
        for node in nodes {
            let mut rings = node.cluster.rings();
            let _ = rings.wait_for(|ring| ring.view.revision >= revision).await;
        }
    }

    fn somebody(&self) -> Option<Arc<TestNode>> {
        let alive = self.alive.lock();
        let at = (!alive.is_empty()).then(|| self.random(alive.len()))?;
        Some(alive[at].clone())
    }

    async fn read(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(300).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.random(KEYS));
            let floor = self.floors.lock().get(&key).copied().unwrap_or(0);
            let asked_at = self.clock.now();
            let place = (node.id.to_string(), key.clone());
            *self.asking.lock().entry(place.clone()).or_default() += 1;
            let got = timeout(ENDS, node.group.get(&key)).await;
            *self.asking.lock().entry(place).or_default() -= 1;
            let answer = got.expect("ends").expect("no get fails");
            let text = std::str::from_utf8(&answer.value).expect("text").to_owned();
            let (version, loaded_at) = text.split_once(' ').expect("two numbers");
            let version: u64 = version.parse().expect("a number");
            let loaded_at: u64 = loaded_at.parse().expect("a number");
            assert!(
                version >= floor,
                "{key} at {}: {text}, removed {floor}",
                node.id
            );
            // Two seconds are granted for clocks that differ, see `core::group`; a load takes up to
            // 200 ms.
            let expires = loaded_at + 200 + TTL_MS + 2_000;
            assert!(
                asked_at.0 < expires,
                "{key}: {text}, asked at {}",
                asked_at.0
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
            let version = self.origin.bump(&key);
            let done = if self.random(20) == 0 {
                let purged = timeout(ENDS, node.group.purge()).await;
                purged.expect("ends").map(|_| ())
            } else {
                timeout(ENDS, node.group.remove(&key)).await.expect("ends")
            };
            // A removal by a node that is off the list by now isn't one: nobody knows whom it told.
            if done.is_ok() && self.alive.lock().iter().any(|it| Arc::ptr_eq(it, &node)) {
                let mut floors = self.floors.lock();
                let floor = floors.entry(key).or_default();
                *floor = version.max(*floor);
                self.removals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn simulate(seed: u64, replicas: usize) -> (usize, usize, usize) {
    let world = World::new(seed, replicas);
    let until = Instant::now() + RUN;
    let mut tasks = JoinSet::new();
    for id in ["a", "b", "c", "d", "e"] {
        tasks.spawn(world.clone().live(id.into(), until));
    }
    for _ in 0..4 {
        tasks.spawn(world.clone().read(until));
    }
    tasks.spawn(world.clone().remove(until));
    let ended = timeout(RUN * 3, async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|error| panic!("seed {seed}, replicas {replicas}: {error}"));
        }
    });
    assert!(ended.await.is_ok(), "seed {seed} hangs");
    (
        world.gets.load(Ordering::Relaxed),
        world.removals.load(Ordering::Relaxed),
        world.net.parcels.load(Ordering::Relaxed),
    )
}

#[test]
fn whatever_comes_and_goes_nothing_old_is_served_and_everything_ends() {
    let first: u64 = std::env::var("GAOCACHE_SEED").map_or(0, |seed| seed.parse().expect("a seed"));
    let (mut gets, mut removals, mut parcels) = (0, 0, 0);
    for seed in first..first + SEEDS {
        for replicas in [1, 2] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build();
            let done = runtime
                .expect("a runtime")
                .block_on(simulate(seed, replicas));
            gets += done.0;
            removals += done.1;
            parcels += done.2;
        }
    }
    println!("{SEEDS} seeds: {gets} gets, {removals} removals, {parcels} entries handed over");
    assert!(
        gets > 100_000 && removals > 1_000 && parcels > 10_000,
        "nothing much happened"
    );
}
