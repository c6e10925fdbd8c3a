//! Handoff between nodes without a network: what moves, and what the origin notices.

use std::sync::atomic::Ordering;

use super::*;
use crate::{
    harness_tests::{
        HandClock, Plan, TTL_MS, TestNet, TestNode, TestOrigin, entry, group_rules, ranked, view,
    },
    key::GroupId,
    key::HashedKey,
    membership::{Member, MemberState, View},
    ports::Timestamp,
};

pub(super) const KEYS: usize = 300;
const BOUND: Duration = Duration::from_secs(10);

pub(super) struct Scene {
    pub(super) plan: Plan,
    pub(super) origin: Arc<TestOrigin>,
    pub(super) net: Arc<TestNet>,
    pub(super) clock: Arc<HandClock>,
    pub(super) nodes: Vec<TestNode>,
}

pub(super) fn scene(ids: &[&str], replicas: usize) -> Scene {
    let origin = Arc::<TestOrigin>::default();
    let (net, clock) = (Arc::<TestNet>::default(), Arc::<HandClock>::default());
    let plan = Plan {
        rules: group_rules(),
        replicas,
        capacity: 4 << 20,
        bytes_per_second: 1 << 40,
        lease: None,
        clock: clock.clone(),
        origin: origin.clone(),
        net: net.clone(),
    };
    let nodes: Vec<TestNode> = ids.iter().map(|id| plan.node(id)).collect();
    let scene = Scene {
        plan,
        origin,
        net,
        clock,
        nodes,
    };
    scene.install(&view(1, ids));
    scene
}

pub(super) fn hashed(key: &str) -> HashedKey<'_> {
    HashedKey::new(GroupId(0), key)
}

pub(super) fn key(number: usize) -> String {
    format!("user-{number}")
}

/// Serving members, and those that are leaving.
pub(super) fn with_leaving(revision: u64, serving: &[&str], leaving: &[&str]) -> View {
    let members = view(revision, serving);
    let leaving = leaving.iter().map(|id| Member {
        state: MemberState::Draining,
        ..Member::new(*id, format!("{id}:1"))
    });
    View::new(revision, members.members.iter().cloned().chain(leaving))
}

impl Scene {
    pub(super) fn install(&self, view: &View) {
        for node in &self.nodes {
            if view.member(&node.id).is_some() {
                node.install(view);
            }
        }
    }

    pub(super) fn node(&self, id: &str) -> &TestNode {
        let found = self.nodes.iter().find(|node| *node.id == *id);
        found.expect("a node of the scene")
    }

    pub(super) fn join(&mut self, id: &str) {
        self.nodes.push(self.plan.node(id));
    }

    pub(super) fn loads(&self) -> usize {
        self.origin.loads.load(Ordering::SeqCst)
    }

    pub(super) async fn warm(&self, at: &str) {
        for number in 0..KEYS {
            let got = self.node(at).group.get(&key(number)).await;
            got.expect("a value");
        }
    }

    /// One walk in the background at every node.
    pub(super) async fn settle(&self) {
        for node in &self.nodes {
            node.handoff.walk(node.handoff.background()).await;
        }
    }

    pub(super) fn held_by(&self, number: usize) -> Vec<&str> {
        let holds = |node: &&TestNode| {
            let now = Timestamp(self.clock.0.load(Ordering::SeqCst));
            let key = key(number);
            node.store.peek(&hashed(&key), now).is_some()
        };
        let holders = self.nodes.iter().filter(holds);
        holders.map(|node| &*node.id).collect()
    }

    pub(super) fn owner(&self, number: usize, view: &View) -> Arc<str> {
        ranked(&self.nodes[0].group, &key(number), view)[0].clone()
    }
}

#[tokio::test]
async fn a_node_that_joins_costs_the_origin_nothing_from_its_first_get_on() {
    let mut scene = scene(&["a", "b", "c"], 1);
    scene.warm("a").await;
    scene.join("d");
    let four = view(2, &["a", "b", "c", "d"]);
    scene.install(&four);
    // Before anything was handed over: d asks those who had the keys before.
    scene.warm("d").await;
    assert_eq!(scene.loads(), KEYS);
    scene.settle().await;
    for number in 0..KEYS {
        let holders = scene.held_by(number);
        assert_eq!(holders, [&*scene.owner(number, &four)], "key {number}");
    }
    // And now from its own memory.
    let peeks = scene.net.peeks.load(Ordering::SeqCst);
    scene.warm("d").await;
    assert_eq!(scene.loads(), KEYS);
    assert_eq!(scene.net.peeks.load(Ordering::SeqCst), peeks);
}

#[tokio::test]
async fn entries_come_to_a_node_that_joins_without_a_get() {
    let mut scene = scene(&["a", "b"], 1);
    scene.warm("a").await;
    scene.join("c");
    let three = view(2, &["a", "b", "c"]);
    scene.install(&three);
    scene.settle().await;
    for number in 0..KEYS {
        let owner = scene.owner(number, &three);
        assert_eq!(scene.held_by(number), [&*owner]);
    }
    let parcels = scene.net.parcels.load(Ordering::SeqCst);
    assert_eq!(parcels, scene.node("c").store.len(), "each once");
    scene.settle().await;
    assert_eq!(
        scene.net.parcels.load(Ordering::SeqCst),
        parcels,
        "and no more"
    );
}

#[tokio::test]
async fn a_node_that_leaves_hands_everything_over_with_its_age() {
    let scene = scene(&["a", "b", "c"], 1);
    scene.warm("b").await;
    scene.clock.0.store(TTL_MS / 2, Ordering::SeqCst);
    scene.install(&with_leaving(2, &["b", "c"], &["a"]));
    let held = scene.node("a").store.len();
    assert!(held > 0);
    assert_eq!(scene.node("a").handoff.leave(BOUND).await.sent, held);
    assert_eq!(scene.node("a").store.len(), 0);
    assert!(scene.node("a").group.is_leaving(), "it takes nothing back");
    for number in 0..KEYS {
        let answer = scene.node("b").group.get(&key(number)).await;
        let answer = answer.expect("a value");
        assert_eq!(answer.expires_at, Timestamp(TTL_MS), "not younger");
    }
    assert_eq!(scene.loads(), KEYS);
    // What has expired is not worth the way.
    scene.clock.0.store(TTL_MS, Ordering::SeqCst);
    scene.install(&with_leaving(3, &["c"], &["b"]));
    assert_eq!(scene.node("b").handoff.leave(BOUND).await.sent, 0);
}

#[tokio::test]
async fn three_of_five_leave_at_once() {
    let scene = scene(&["a", "b", "c", "d", "e"], 1);
    scene.warm("a").await;
    // Each learns of its own departure first: it sends some entries to nodes that are leaving, too.
    let last = with_leaving(5, &["d", "e"], &["a", "b", "c"]);
    scene
        .node("a")
        .install(&with_leaving(2, &["b", "c", "d", "e"], &["a"]));
    scene
        .node("b")
        .install(&with_leaving(3, &["a", "c", "d", "e"], &["b"]));
    scene
        .node("c")
        .install(&with_leaving(4, &["a", "b", "d", "e"], &["c"]));
    for id in ["a", "b", "c"] {
        scene.node(id).groups.leave();
    }
    let leaving = ["a", "b", "c"].map(|id| scene.node(id));
    let (all_left, ()) = tokio::join!(
        futures::future::join_all(leaving.iter().map(|node| node.handoff.leave(BOUND))),
        async {
            tokio::task::yield_now().await;
            scene.install(&last);
        }
    );
    assert!(
        all_left.iter().all(|moved| moved.failed == 0),
        "{all_left:?}"
    );
    for number in 0..KEYS {
        assert_eq!(
            scene.held_by(number),
            [&*scene.owner(number, &view(5, &["d", "e"]))]
        );
    }
    assert_eq!(scene.loads(), KEYS);
}

#[tokio::test]
async fn a_receiver_that_is_full_keeps_the_hotter_of_both() {
    let mut scene = scene(&["a"], 1);
    scene.join("b");
    let (a, b) = (scene.node("a"), scene.node("b"));
    // As much as fits, twice: half of each node's entries are hot.
    let fits = (4 << 20) / crate::store::charge(8, 900) as usize;
    for number in 0..fits {
        let use_count = if number % 2 == 0 { 100 } else { 0 };
        for (node, name) in [(a, "at-a"), (b, "at-b")] {
            let key = format!("{name}-{number}");
            let entry = entry(&hashed(&key), 900, Timestamp(TTL_MS));
            node.store
                .offer(entry.with_use_count(use_count), Timestamp(0));
        }
    }
    scene.install(&with_leaving(2, &["b"], &["a"]));
    scene.node("a").handoff.leave(BOUND).await;
    let kept = |name: &str, odd: usize| {
        let numbers = (odd..fits).step_by(2);
        let key = |number: &usize| format!("{name}-{number}");
        let held = numbers.filter(|number| {
            let key = key(number);
            b.store.peek(&hashed(&key), Timestamp(0)).is_some()
        });
        held.count() as f64 / (fits / 2) as f64
    };
    let (hot, cold) = (
        kept("at-a", 0) + kept("at-b", 0),
        kept("at-a", 1) + kept("at-b", 1),
    );
    println!("kept: {hot:.2} of 2 hot halves, {cold:.2} of 2 cold ones");
    assert!(b.store.bytes() <= b.store.capacity());
    assert!(hot > 1.7, "hot ones went for cold ones: {hot} {cold}");
}

#[tokio::test]
async fn a_receiver_that_dies_half_way_loses_nothing() {
    let scene = scene(&["a", "b", "c"], 1);
    scene.warm("b").await;
    scene.install(&with_leaving(2, &["b", "c"], &["a"]));
    scene.net.down.lock().insert("c".into());
    let leave = scene.node("a").handoff.leave(BOUND);
    let dies = async {
        tokio::task::yield_now().await;
        scene.install(&with_leaving(3, &["b"], &["a"]));
    };
    let (moved, ()) = tokio::join!(leave, dies);
    assert_eq!(moved.failed, 0, "in the end");
    let before = scene.loads();
    let of_a = (0..KEYS).filter(|number| *scene.owner(*number, &view(1, &["a", "b", "c"])) == *"a");
    for number in of_a {
        scene
            .node("b")
            .group
            .get(&key(number))
            .await
            .expect("a value");
    }
    assert_eq!(scene.loads(), before);
}

#[tokio::test]
async fn the_hottest_go_first() {
    let scene = scene(&["a", "b"], 1);
    for number in 0..KEYS {
        let use_count = [0, 1, 8, 64][number % 4];
        let (store, key) = (&scene.node("a").store, key(number));
        let entry = entry(&hashed(&key), 900, Timestamp(TTL_MS));
        store.offer(entry.with_use_count(use_count), Timestamp(0));
    }
    scene.install(&with_leaving(2, &["b"], &["a"]));
    scene.node("a").handoff.leave(BOUND).await;
    let use_counts = scene.net.use_counts.lock().clone();
    assert_eq!(use_counts.len(), KEYS);
    assert!(use_counts.is_sorted_by(|a, b| a >= b), "{use_counts:?}");
}
