//! Nodes that join, leave and crash at random, over a network that delays and loses, with views
//! that arrive late: many seeds, virtual time.
//!
//! Checked at every answer: no get fails, none brings what was removed before it was asked or what
//! had expired by then, no member is asked on behalf of another's question, and everything ends.

use std::{collections::HashMap, sync::atomic::Ordering};

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
    harness_tests::{
        Plan as Nodes, TTL_MS, TestNet, TestNode, group_rules,
        simulation::{
            Dice, ENDS, Ledger, VirtualClock, all_end, runtime, seeds, some_keys, tag_of, tagged,
        },
    },
    membership::{Member, MemberState, View},
    ports::{Clock, Loaded, Origin, Timestamp},
};

const KEYS: usize = 12;
const SEEDS: u64 = 150;
/// Virtual.
const RUN: Duration = Duration::from_secs(100);
const LEASE: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(5);
/// A value contains its version, and when it was loaded.
struct Versions {
    ledger: Arc<Ledger>,
    clock: Arc<VirtualClock>,
    dice: Dice,
}

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, crate::error::BoxError> {
        let version = self.ledger.version(key);
        let value = format!("{version} {}", self.clock.now().0);
        sleep(Duration::from_millis(self.dice.number(1..200))).await;
        Ok(tagged(value, key, version))
    }
}

/// A member's state, and the revision at which it came into the ring.
type Since = (MemberState, u64);

/// The world of one seed.
struct World {
    plan: Nodes,
    net: Arc<TestNet>,
    ledger: Arc<Ledger>,
    clock: Arc<VirtualClock>,
    /// The registry: members by id, with the revision at which each came into the ring; and its
    /// revision.
    members: SyncMutex<(u64, HashMap<Arc<str>, Since>)>,
    changed: watch::Sender<u64>,
    alive: SyncMutex<Vec<Arc<TestNode>>>,
    /// Which incarnation of its node each id means.
    lives: SyncMutex<HashMap<Arc<str>, u64>>,
    /// Those, and the nodes that join.
    listed: SyncMutex<Vec<Arc<TestNode>>>,
    /// Gets under way, by node and key.
    asking: Arc<SyncMutex<HashMap<(String, String), usize>>>,
    dice: Dice,
}

impl World {
    fn new(seed: u64, replicas: usize) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(VirtualClock::shared());
        let ledger = Arc::<Ledger>::default();
        let origin = Arc::new(Versions {
            ledger: ledger.clone(),
            clock: clock.clone(),
            dice: Dice::new(rng.fork()),
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
                rules: group_rules(),
                replicas,
                capacity: 1 << 20,
                bytes_per_second: 1 << 40,
                lease: Some(LEASE),
                clock: clock.clone(),
                origin,
                net: net.clone(),
            },
            net,
            ledger,
            clock,
            members: SyncMutex::default(),
            changed: watch::Sender::new(0),
            alive: SyncMutex::default(),
            lives: SyncMutex::default(),
            listed: SyncMutex::default(),
            asking,
            dice: Dice::new(rng),
        })
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
            self.dice.pause(400).await;
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
            self.dice.pause(20_000).await;
            let over = Instant::now() >= until;
            let last = self.alive.lock().len() < 2;
            if !over && !last && self.dice.below(4) == 0 {
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
            self.dice.pause(3_000).await;
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

    async fn read(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.dice.pause(300).await;
            let Some(node) = self.dice.one_of(&self.alive) else {
                continue;
            };
            let keys = some_keys(&self.dice, KEYS);
            let floors: Vec<u64> = keys.iter().map(|key| self.ledger.floor(key)).collect();
            let asked_at = self.clock.now();
            let place = |key: &String| (node.id.to_string(), key.clone());
            for key in &keys {
                *self.asking.lock().entry(place(key)).or_default() += 1;
            }
            let got = timeout(ENDS, node.get_all(&keys)).await.expect("ends");
            for key in &keys {
                *self.asking.lock().entry(place(key)).or_default() -= 1;
            }
            for ((key, floor), got) in keys.iter().zip(floors).zip(got) {
                let answer = got.expect("no get fails");
                let text = std::str::from_utf8(&answer.value).expect("text").to_owned();
                let (version, loaded_at) = text.split_once(' ').expect("two numbers");
                let version: u64 = version.parse().expect("a number");
                let loaded_at: u64 = loaded_at.parse().expect("a number");
                self.ledger.got(&node, key, version, floor);
                // Two seconds are granted for clocks that differ, see `core::group`; a load takes
                // up to 200 ms.
                let expires = loaded_at + 200 + TTL_MS + 2_000;
                assert!(
                    asked_at.0 < expires,
                    "{key}: {text}, asked at {}",
                    asked_at.0
                );
            }
        }
    }

    async fn remove(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.dice.pause(1_500).await;
            let Some(node) = self.dice.one_of(&self.alive) else {
                continue;
            };
            let key = format!("k{}", self.dice.below(KEYS));
            let what = self.dice.below(20);
            let tag = tag_of(&key);
            let keys = (0..KEYS).map(|key| format!("k{key}"));
            let keys: Vec<String> = match what {
                1..6 => keys.filter(|key| tag_of(key) == tag).collect(),
                _ => vec![key.clone()],
            };
            let versions: Vec<u64> = keys.iter().map(|key| self.ledger.bump(key)).collect();
            let done = async {
                match what {
                    0 => node.group.purge().await.map(|_| ()),
                    1..6 => node.group.purge_tag(&tag).await,
                    _ => node.group.remove(&key).await,
                }
            };
            let done = timeout(ENDS, done).await.expect("ends");
            // A removal by a node that is off the list by now isn't one: it is not known which
            // members it reached.
            if done.is_ok() && self.alive.lock().iter().any(|it| Arc::ptr_eq(it, &node)) {
                for (key, version) in keys.into_iter().zip(versions) {
                    self.ledger.removed(key, version);
                }
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
    all_end(tasks, RUN * 3, seed, replicas).await;
    (
        world.ledger.gets(),
        world.ledger.removals(),
        world.net.parcels.load(Ordering::Relaxed),
    )
}

#[test]
fn whatever_comes_and_goes_nothing_old_is_served_and_everything_ends() {
    let (mut gets, mut removals, mut parcels) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        for replicas in [1, 2] {
            let done = runtime(seed).block_on(simulate(seed, replicas));
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
