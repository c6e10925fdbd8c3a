//! Copies at a second member: that they are there, stay there, and come back.

use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use futures::future::join_all;
use tokio::{task::JoinSet, time::sleep};

use super::{
    growth_tests::Counting,
    tests::{KEYS, Scene, hashed, key, scene},
    *,
};
use crate::{
    harness_tests::{
        Plan as Nodes, TestNet, TestNode, group_rules, ranked, simulation::VirtualClock, view,
    },
    membership::{Member, View},
    ports::Timestamp,
    store::{Store, charge},
};

#[tokio::test]
async fn with_two_replicas_a_crash_costs_nothing() {
    let scene = scene(&["a", "b", "c"], 2);
    scene.warm("a").await;
    scene.settle().await;
    for number in 0..KEYS {
        assert_eq!(scene.held_by(number).len(), 2, "key {number}");
    }
    // Dead, and still in the ring: the next in ring order stands in.
    scene.net.down.lock().insert("a".into());
    scene.warm("b").await;
    scene.install(&view(2, &["b", "c"]));
    scene.warm("c").await;
    assert_eq!(scene.loads(), KEYS);
    scene.settle().await;
    for number in 0..KEYS {
        let mut holders = scene.held_by(number);
        holders.retain(|id| *id != "a");
        assert_eq!(holders, ["b", "c"], "a second copy again");
    }
}

/// Serving members whose zone is the first letter of their id.
fn in_zones(revision: u64, ids: &[&str]) -> View {
    let members = view(revision, ids)
        .members
        .iter()
        .cloned()
        .collect::<Vec<_>>();
    let members = members.into_iter().map(|it| Member {
        zone: it.id[..1].into(),
        ..it
    });
    View::new(revision, members)
}

#[tokio::test]
async fn with_zones_neither_a_crash_nor_a_lost_zone_costs_anything() {
    let scene = scene(&["a1", "a2", "b1", "b2", "c1", "c2"], 2);
    scene.install(&in_zones(2, &["a1", "a2", "b1", "b2", "c1", "c2"]));
    scene.warm("a1").await;
    scene.settle().await;
    for number in 0..KEYS {
        let zones: Vec<&str> = scene.held_by(number).iter().map(|id| &id[..1]).collect();
        assert!(zones.len() == 2 && zones[0] != zones[1], "{zones:?}");
    }
    // Its keys go to whoever is next in the ring, in whatever zone, and the copies are elsewhere.
    scene.net.down.lock().insert("a1".into());
    let left = in_zones(3, &["a2", "b1", "b2", "c1", "c2"]);
    scene.install(&left);
    let next_to_a1 = (0..KEYS).filter(|number| {
        let holders = scene.held_by(*number);
        holders.contains(&"a1") && !holders.contains(&&*scene.owner(*number, &left))
    });
    assert!(
        next_to_a1.count() > 5,
        "some keys have a new owner without a copy"
    );
    scene.warm("b1").await;
    assert_eq!(scene.loads(), KEYS, "a crash");
    scene.settle().await;
    for id in ["b1", "b2"] {
        scene.net.down.lock().insert(id.into());
    }
    scene.warm("c1").await;
    scene.install(&in_zones(4, &["a2", "c1", "c2"]));
    scene.warm("c2").await;
    assert_eq!(scene.loads(), KEYS, "a lost zone");
}

#[tokio::test]
async fn new_entries_are_copied_as_they_come() {
    let scene = scene(&["a", "b", "c"], 2);
    let stop = CancellationToken::new();
    let mut following = tokio::task::JoinSet::new();
    for node in &scene.nodes {
        let wanted = node.queued_copies.lock().take().expect("once");
        let (handoff, stop) = (node.handoff.clone(), stop.clone());
        following.spawn(async move { handoff.follow(wanted, stop).await });
    }
    scene.warm("a").await;
    let copied = async {
        while (0..KEYS).any(|number| scene.held_by(number).len() < 2) {
            tokio::task::yield_now().await;
        }
    };
    let copied = tokio::time::timeout(Duration::from_secs(30), copied).await;
    copied.expect("every key has a copy");
    stop.cancel();
    following.join_all().await;
}

impl Scene {
    async fn sweep(&self) {
        for node in &self.nodes {
            node.handoff.announce_used().await;
        }
    }

    /// Drops what is held of a key by those who don't own it.
    fn evict_copy(&self, number: usize, ring: &View) {
        let owner = self.owner(number, ring);
        for node in self.nodes.iter().filter(|node| node.id != owner) {
            node.store.remove(&hashed(&key(number)));
        }
    }

    fn copied(&self) -> usize {
        (0..KEYS).filter(|it| self.held_by(*it).len() == 2).count()
    }
}

#[tokio::test]
async fn a_copy_that_was_evicted_comes_back_when_its_key_is_used() {
    let scene = scene(&["a", "b", "c"], 2);
    let ring = view(1, &["a", "b", "c"]);
    scene.warm("a").await;
    scene.settle().await;
    scene.sweep().await;
    (0..KEYS).for_each(|number| scene.evict_copy(number, &ring));
    scene.sweep().await;
    assert_eq!(scene.copied(), 0, "nobody used them");
    let parcels = scene.net.parcels.load(Ordering::SeqCst);
    for number in (0..KEYS).step_by(3) {
        let owner = scene.node(&scene.owner(number, &ring));
        owner.group.get(&key(number)).await.expect("a value");
    }
    scene.sweep().await;
    assert_eq!(scene.copied(), KEYS / 3);
    // Each announced, and handed over.
    let sent = scene.net.parcels.load(Ordering::SeqCst) - parcels;
    assert_eq!(sent, KEYS / 3 * 2);
    // Used again, each is only announced.
    for number in (0..KEYS).step_by(3) {
        let owner = scene.node(&scene.owner(number, &ring));
        owner.group.get(&key(number)).await.expect("a value");
    }
    scene.sweep().await;
    scene.sweep().await;
    let again = scene.net.parcels.load(Ordering::SeqCst) - parcels - sent;
    assert_eq!(again, KEYS / 3);
}

#[tokio::test]
async fn copies_come_back_after_a_purge() {
    let scene = scene(&["a", "b", "c"], 2);
    scene.warm("a").await;
    scene.settle().await;
    assert_eq!(scene.copied(), KEYS);
    scene.node("a").group.purge().await.expect("purged");
    scene.warm("a").await;
    scene.settle().await;
    scene.sweep().await;
    assert_eq!(scene.copied(), 0, "removed lately: taken from nobody");
    let tombstone = scene.node("a").standing.tombstone().as_millis();
    let later = u64::try_from(tombstone).expect("seconds") + 1;
    scene.clock.0.store(later, Ordering::SeqCst);
    scene.sweep().await;
    assert_eq!(scene.copied(), KEYS);
}

#[tokio::test]
async fn copies_come_back_after_their_holder_was_started_anew() {
    let mut scene = scene(&["a", "b", "c"], 2);
    scene.warm("a").await;
    scene.settle().await;
    scene.nodes.retain(|node| *node.id != *"c");
    scene.join("c");
    let restarted = Member {
        instance: "second".into(),
        ..Member::new("c", "c:1")
    };
    let members = view(2, &["a", "b"]).members;
    let ring = View::new(2, members.iter().cloned().chain([restarted]));
    scene.install(&ring);
    scene.settle().await;
    assert_eq!(scene.copied(), KEYS);
}

#[tokio::test]
async fn what_a_full_holder_refuses_is_not_there_and_not_sent_for_ever() {
    let scene = scene(&["a", "b"], 2);
    let now = Timestamp(0);
    let fill = |node: &TestNode| {
        let fits = node.store.capacity() / charge(8, 900);
        for number in 0..fits {
            let key = format!("{}-{number}", node.id);
            node.store.offer(entry_used(&key, 8), now);
        }
    };
    fill(scene.node("b"));
    let ring = view(1, &["a", "b"]);
    let mine = (0..KEYS).filter(|number| *scene.owner(*number, &ring) == *"a");
    let mine: Vec<usize> = mine.collect();
    let a = scene.node("a");
    for number in &mine {
        a.store.insert(entry_used(&key(*number), 0));
    }
    let sent = || scene.net.parcels.load(Ordering::SeqCst);
    a.handoff.walk(a.handoff.background()).await;
    assert_eq!(sent(), mine.len());
    let confirmed = |number: &usize| {
        let entry = a.store.peek(&hashed(&key(*number)), now).expect("kept");
        entry.has_replica()
    };
    assert!(!mine.iter().any(confirmed), "refused: not there");
    a.handoff.announce_used().await;
    assert_eq!(
        sent(),
        mine.len(),
        "not asked for again while nobody uses it"
    );
    for number in &mine {
        a.group.get(&key(*number)).await.expect("a hit");
    }
    a.handoff.announce_used().await;
    assert!(mine.iter().all(confirmed), "in use: as good as any other");
}

fn entry_used(key: &str, use_count: u32) -> crate::store::Entry {
    crate::harness_tests::entry(&hashed(key), 900, Timestamp::NEVER).with_use_count(use_count)
}

const IN_USE: usize = 600;
/// At most so many of a hundred keys in use may be loaded again after a crash.
const LOST_PERCENT: usize = 1;

/// Half of the readers keep keys in use, half ask for each key once. They ask the owners: hot
/// copies elsewhere would hide what replicas do.
async fn read(reader: u64, seed: u64, nodes: Arc<[Arc<TestNode>; 3]>, running: Arc<AtomicBool>) {
    let ring = nodes[0].cluster.snapshot().view.clone();
    let mut rng = Rng::with_seed(seed * 100 + reader);
    if reader.is_multiple_of(2) {
        // First the stores fill up.
        sleep(Duration::from_secs(30)).await;
    }
    for step in 0.. {
        if !running.load(Ordering::SeqCst) {
            return;
        }
        let key = match reader % 2 {
            0 => format!("in-use-{}", rng.usize(..IN_USE)),
            _ => format!("once-{reader}-{step}"),
        };
        let owner = ranked(&nodes[0].group, &key, &ring)[0].clone();
        let node = nodes.iter().find(|node| node.id == owner);
        let got = node.expect("a node").group.get(&key).await;
        got.expect("a value");
        sleep(Duration::from_millis(rng.u64(1..20))).await;
    }
}

/// Three full nodes with two replicas: loads for keys in use after one of them was killed.
async fn kill_one_of_three_full_nodes(seed: u64) -> usize {
    let origin = Arc::<Counting>::default();
    let net = Arc::<TestNet>::default();
    let plan = Nodes {
        rules: group_rules(),
        replicas: 2,
        capacity: 1 << 20,
        bytes_per_second: 64 << 20,
        lease: None,
        clock: Arc::new(VirtualClock::shared()),
        origin: origin.clone(),
        net: net.clone(),
    };
    let ids = ["a", "b", "c"];
    let nodes: Arc<[Arc<TestNode>; 3]> = Arc::new(ids.map(|id| Arc::new(plan.node(id))));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for node in nodes.iter() {
        node.install(&view(1, &ids));
        let wanted = node.queued_copies.lock().take().expect("once");
        let (handoff, stop) = (node.handoff.clone(), stop.clone());
        tasks.spawn(async move { handoff.follow(wanted, stop).await });
    }
    let running = Arc::new(AtomicBool::new(true));
    for reader in 0..16 {
        let reading = read(reader, seed, nodes.clone(), running.clone());
        tasks.spawn(reading);
    }
    sleep(Duration::from_secs(60)).await;
    running.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    for node in nodes.iter() {
        let full = node.store.bytes() as f64 / node.store.capacity() as f64;
        assert!(full > 0.9, "{} is not full: {full}", node.id);
    }
    net.down.lock().insert("a".into());
    stop.cancel();
    nodes[1..]
        .iter()
        .for_each(|node| node.install(&view(2, &ids[1..])));
    let loads = || origin.0.lock().values().sum::<usize>();
    let before = loads();
    let gets = (0..IN_USE).map(async |number| {
        let key = format!("in-use-{number}");
        nodes[1].group.get(&key).await.map(|_| ())
    });
    let got: crate::error::Result<()> = join_all(gets).await.into_iter().collect();
    got.expect("values");
    tasks.join_all().await;
    loads() - before
}

#[test]
fn a_crash_costs_keys_in_use_next_to_nothing_even_when_all_stores_are_full() {
    const RUNS: usize = 5;
    let runs = (0..RUNS as u64).map(|seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(kill_one_of_three_full_nodes(seed))
    });
    let loads: Vec<usize> = runs.collect();
    println!("after a crash of one of three full nodes, of {IN_USE} keys in use: {loads:?} loads");
    let most = RUNS * IN_USE * LOST_PERCENT / 100;
    assert!(loads.iter().sum::<usize>() <= most);
}

#[test]
fn an_announced_copy_outlives_entries_that_nobody_announces() {
    // Values of up to a quarter of it: one shard, so that chance plays no part.
    let store = Store::new(64 << 10, 16 << 10);
    let now = Timestamp(0);
    let copies = ["announced", "silent"].map(|key| key.to_owned());
    for key in &copies {
        store.offer(entry_used(key, 0), now);
    }
    for number in 0..2_000 {
        let key = key(number);
        store.insert(entry_used(&key, 0));
        // Used, so it deserves its place.
        store.get(&hashed(&key), now);
        store.get(&hashed(&key), now);
        store.would_keep_copy(&hashed(&copies[0]), 900, 2, now);
    }
    let held = |key: &str| store.peek(&hashed(key), now).is_some();
    assert_eq!((held("announced"), held("silent")), (true, false));
}
