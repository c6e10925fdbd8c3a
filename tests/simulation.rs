//! Membership in a simulated network: a registry with leases, members that come, go, crash and are
//! cut off, watches that lag and break, a registry that is wiped. Thousands of histories, each from
//! a seed that reproduces it: `GAOCACHE_SIMULATION_SEED=17 cargo test --test simulation`.
//!
//! What is real here is the core (`Reconciler`, `View`); what is simulated is etcd and the network.
//! `tests/registry.rs` and `tests/failures.rs` have the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use gaocache_core::membership::{Member, View};
use gaocache_discovery::reconcile::{Event, History, Reconciler};

const SEEDS: u64 = 3_000;
const NODES: usize = 5;
/// Milliseconds of simulated time.
const LEASE: u64 = 10_000;
const STEP: u64 = 100;
const CHAOS_STEPS: u64 = 600;
/// Longer than a lease, a hold and a reconnect together.
const CALM_STEPS: u64 = 400;

/// The simulated etcd.
#[derive(Default)]
struct Registry {
    /// Counts wipes: another cluster behind the same address.
    cluster: u64,
    revision: u64,
    keys: BTreeMap<Arc<str>, (Member, u64)>,
    history: Vec<(u64, Event<Member>)>,
}

impl Registry {
    fn change(&mut self, event: Event<Member>) {
        self.revision += 1;
        self.history.push((self.revision, event));
    }

    fn put(&mut self, member: &Member, now: u64) {
        let renewed = now + LEASE;
        let known = self
            .keys
            .insert(member.id.clone(), (member.clone(), renewed));
        if known.is_none_or(|(before, _)| before != *member) {
            self.change(Event::Put(member.id.clone(), member.clone()));
        }
    }

    fn delete(&mut self, id: &Arc<str>) {
        if self.keys.remove(id).is_some() {
            self.change(Event::Delete(id.clone()));
        }
    }

    fn expire(&mut self, now: u64) {
        let over = self.keys.iter().filter(|(_, (_, lease))| *lease <= now);
        let over: Vec<Arc<str>> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.delete(&id);
        }
    }

    fn wipe(&mut self) {
        *self = Self {
            cluster: self.cluster + 1,
            ..Self::default()
        };
    }
}

/// An open watch: events on their way, with the time at which each arrives.
struct Watch {
    cluster: u64,
    sent: usize,
    on_the_way: VecDeque<(u64, u64, Event<Member>)>,
}

struct Node {
    me: Member,
    running: bool,
    starts: u64,
    /// Until then it can't reach the registry.
    cut_until: u64,
    watch: Option<Watch>,
    seen: Option<(u64, u64)>,
    reconciler: Reconciler<Member>,
}

impl Node {
    fn new(number: usize) -> Self {
        Self {
            me: Member::new(format!("n{number}"), format!("h:{number}")),
            running: true,
            starts: 0,
            cut_until: 0,
            watch: None,
            seen: None,
            reconciler: Reconciler::new(LEASE),
        }
    }

    /// Lists and begins to watch, as `discovery::Discovery` does.
    fn connect(&mut self, registry: &Registry, now: u64) {
        let known = self.seen;
        let forgot = known.is_some_and(|(cluster, revision)| {
            cluster != registry.cluster || registry.revision < revision
        });
        let history = if forgot { History::Lost } else { History::Kept };
        let list = registry.keys.iter();
        let list = list.map(|(id, (member, _))| (id.clone(), member.clone()));
        self.reconciler
            .replace(now, registry.revision, list.collect(), history);
        self.seen = Some((registry.cluster, registry.revision));
        self.watch = Some(Watch {
            cluster: registry.cluster,
            sent: registry.history.len(),
            on_the_way: VecDeque::new(),
        });
    }

    fn step(&mut self, registry: &mut Registry, now: u64, random: &mut fastrand::Rng) {
        if !self.running {
            return;
        }
        let cut = now < self.cut_until;
        let stale = self
            .watch
            .as_ref()
            .is_some_and(|it| it.cluster != registry.cluster);
        if cut || stale {
            // The stream is gone, and with it whatever was on its way.
            self.watch = None;
        }
        if cut {
            return;
        }
        let knew_somebody = !self.reconciler.members().is_empty();
        if self.watch.is_none() {
            self.connect(registry, now);
        }
        self.reconciler.release(now);
        // Only an explicit deletion of the last member may; neither a listing nor the end of a
        // grace.
        let knows_somebody = !self.reconciler.members().is_empty();
        assert!(
            knows_somebody || !knew_somebody,
            "an empty list wiped the view of {}",
            self.me.id
        );
        // Renews its lease, or registers again when the key is gone.
        registry.put(&self.me, now);
        let Some(watch) = &mut self.watch else { return };
        for (revision, event) in &registry.history[watch.sent..] {
            // A stream delays but does not reorder.
            let earliest = watch.on_the_way.back().map_or(now, |(at, ..)| *at);
            let at = earliest.max(now + random.u64(0..1_000));
            watch.on_the_way.push_back((at, *revision, event.clone()));
        }
        watch.sent = registry.history.len();
        while watch.on_the_way.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, revision, event) = watch.on_the_way.pop_front().unwrap();
            self.seen = Some((watch.cluster, revision));
            self.reconciler.apply(revision, event);
        }
    }

    fn view(&self) -> View {
        View::new(
            self.reconciler.revision(),
            self.reconciler.members().values().cloned(),
        )
    }
}

struct World {
    registry: Registry,
    nodes: Vec<Node>,
    random: fastrand::Rng,
    now: u64,
}

impl World {
    fn disturb(&mut self) {
        let victim = self.random.usize(..NODES);
        let dice = self.random.u32(..1_000);
        let node = &mut self.nodes[victim];
        match dice {
            // Crash: the key stays until its lease ends.
            0..8 => node.running = false,
            // Graceful leave.
            8..16 if node.running && node.watch.is_some() => {
                self.registry.delete(&node.me.id);
                node.running = false;
            }
            // A start, perhaps at another address, knowing nothing.
            16..40 if !node.running => {
                let starts = node.starts + 1;
                *node = Node::new(victim);
                node.starts = starts;
                node.me.address = format!("h:{victim}-{starts}").into();
            }
            // Cut off from the registry, for less or more than a lease.
            40..60 => node.cut_until = self.now + self.random.u64(100..3 * LEASE),
            // The watch breaks.
            60..80 => node.watch = None,
            // Somebody deletes a key by hand.
            80..84 => {
                let id = node.me.id.clone();
                self.registry.delete(&id);
            }
            84..86 => self.registry.wipe(),
            _ => {}
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.registry.expire(self.now);
        for at in 0..NODES {
            let Self {
                registry,
                nodes,
                random,
                now,
                ..
            } = self;
            nodes[at].step(registry, *now, random);
        }
    }
}

fn world(seed: u64) -> World {
    World {
        registry: Registry::default(),
        nodes: (0..NODES).map(Node::new).collect(),
        random: fastrand::Rng::with_seed(seed),
        now: 0,
    }
}

fn run(seed: u64) {
    let mut world = world(seed);
    for _ in 0..CHAOS_STEPS {
        world.disturb();
        world.step();
    }
    // Calm: everything reaches everything, and nothing more happens.
    for node in &mut world.nodes {
        node.cut_until = 0;
    }
    for _ in 0..CALM_STEPS {
        world.step();
    }
    let registered: Vec<Member> = world
        .registry
        .keys
        .values()
        .map(|(member, _)| member.clone())
        .collect();
    let expected = View::new(0, registered).fingerprint();
    for node in world.nodes.iter().filter(|node| node.running) {
        let view = node.view();
        assert_eq!(
            view.fingerprint(),
            expected,
            "{} sees {:?}",
            node.me.id,
            view.members
        );
        assert!(
            view.member(&node.me.id).is_some_and(|me| *me == node.me),
            "{} is in its own ring",
            node.me.id
        );
        for other in &world.nodes {
            assert_eq!(
                view.member(&other.me.id).is_some(),
                other.running,
                "{} in the eyes of {}",
                other.me.id,
                node.me.id
            );
        }
    }
}

/// No node crashes or is cut off; but the registry is wiped again and again, and watches break.
fn run_wipes(seed: u64) {
    let mut world = world(seed);
    for _ in 0..50 {
        world.step();
    }
    for _ in 0..CHAOS_STEPS {
        match world.random.u32(..100) {
            0 => world.registry.wipe(),
            1..10 => {
                let victim = world.random.usize(..NODES);
                world.nodes[victim].watch = None;
            }
            _ => {}
        }
        world.step();
        for node in &world.nodes {
            let members = node.reconciler.members().len();
            assert_eq!(members, NODES, "{} lost somebody who lives", node.me.id);
        }
    }
}

/// Runs a history for each seed, or for the one that the environment names.
fn for_all_seeds(run: fn(u64)) {
    if let Ok(seed) = std::env::var("GAOCACHE_SIMULATION_SEED") {
        return run(seed.parse().expect("a number"));
    }
    for seed in 0..SEEDS {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("seed {seed}; reproduce with GAOCACHE_SIMULATION_SEED={seed}");
        }
    }
    println!("{SEEDS} histories");
}

#[test]
fn whatever_happens_views_agree_in_the_end_and_none_is_ever_emptied() {
    for_all_seeds(run);
}

#[test]
fn nothing_living_is_lost_to_a_wiped_registry() {
    for_all_seeds(run_wipes);
}
