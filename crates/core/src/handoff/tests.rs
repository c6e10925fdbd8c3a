//! Handoff between nodes without a network: what moves, what the origin notices, and what must not
//! come back.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::*;
use crate::{
    error::ErrorKind,
    harness_tests::{HandClock, Plan, TTL_MS, TestNet, TestNode, TestOrigin, entry, ranked, view},
    membership::{IdHash, Member, MemberState, View},
    ports::{Parcel, TRANSFER_TIMEOUT, Timestamp},
    record::Record,
};

const KEYS: usize = 300;
const BOUND: Duration = Duration::from_secs(10);

struct Scene {
    plan: Plan,
    origin: Arc<TestOrigin>,
    net: Arc<TestNet>,
    clock: Arc<HandClock>,
    nodes: Vec<TestNode>,
}

fn scene(ids: &[&str], replicas: usize) -> Scene {
    let origin = Arc::<TestOrigin>::default();
    let (net, clock) = (Arc::<TestNet>::default(), Arc::<HandClock>::default());
    let plan = Plan {
        replicas,
        capacity: 4 << 20,
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

fn hashed(key: &str) -> HashedKey<'_> {
    HashedKey::new(GroupId(0), key)
}

fn key(number: usize) -> String {
    format!("user-{number}")
}

/// Serving members, and those that are leaving.
fn with_leaving(revision: u64, serving: &[&str], leaving: &[&str]) -> View {
    let members = view(revision, serving);
    let leaving = leaving.iter().map(|id| Member {
        state: MemberState::Draining,
        ..Member::new(*id, format!("{id}:1"))
    });
    View::new(revision, members.members.iter().cloned().chain(leaving))
}

impl Scene {
    fn install(&self, view: &View) {
        for node in &self.nodes {
            if view.member(&node.id).is_some() {
                node.install(view);
            }
        }
    }

    fn node(&self, id: &str) -> &TestNode {
        let found = self.nodes.iter().find(|node| *node.id == *id);
        found.expect("a node of the scene")
    }

    fn join(&mut self, id: &str) {
        self.nodes.push(self.plan.node(id));
    }

    fn loads(&self) -> usize {
        self.origin.loads.load(Ordering::SeqCst)
    }

    async fn warm(&self, at: &str) {
        for number in 0..KEYS {
            let got = self.node(at).group.get(&key(number)).await;
            got.expect("a value");
        }
    }

    /// One walk in the background at every node.
    async fn settle(&self) {
        for node in &self.nodes {
            node.handoff.walk(node.handoff.background()).await;
        }
    }

    fn held_by(&self, number: usize) -> Vec<&str> {
        let holds = |node: &&TestNode| {
            let now = Timestamp(self.clock.0.load(Ordering::SeqCst));
            let key = key(number);
            node.store.peek(&hashed(&key), now).is_some()
        };
        let holders = self.nodes.iter().filter(holds);
        holders.map(|node| &*node.id).collect()
    }

    fn owner(&self, number: usize, view: &View) -> Arc<str> {
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

#[tokio::test]
async fn a_removed_key_does_not_come_back_with_a_batch_that_was_under_way() {
    let mut scene = scene(&["a", "b"], 1);
    scene.warm("a").await;
    scene.join("c");
    let three = view(2, &["a", "b", "c"]);
    scene.install(&three);
    let moved = (0..KEYS).find(|number| *scene.owner(*number, &three) == *"c");
    let number = moved.expect("some key moves");
    let parcel = Parcel {
        group: "users".into(),
        key: key(number).into(),
        record: Record {
            value: Some(Bytes::from_static(b"old")),
            expires_at: Timestamp(TTL_MS),
            entity_tag: 0,
        },
        use_count: 9,
        copy: false,
    };
    for purge in [false, true] {
        if purge {
            scene.node("b").group.purge().await.expect("purged");
        } else {
            scene
                .node("b")
                .group
                .remove(&key(number))
                .await
                .expect("removed");
        }
        let accepted = scene.node("c").group.accept(&parcel, IdHash::of("a"));
        assert_eq!(accepted, crate::group::Accepted::Refused);
        assert!(scene.held_by(number).is_empty());
    }
}

#[tokio::test]
async fn what_was_under_way_for_longer_than_tombstones_reckon_with_is_refused_and_not_lost() {
    let scene = scene(&["a", "b"], 1);
    let parcel = Parcel {
        group: "users".into(),
        key: "k".into(),
        record: Record {
            value: Some(Bytes::from_static(b"removed since")),
            expires_at: Timestamp::NEVER,
            entity_tag: 0,
        },
        use_count: 9,
        copy: false,
    };
    let (b, sender) = (scene.node("b"), scene.node("a").standing.incarnation());
    let accept = |read_at, now| {
        let parcels = std::slice::from_ref(&parcel);
        let sender = sender.expect("a member");
        b.groups
            .accept(&b.standing, parcels, sender, (read_at, now))
    };
    let (read_at, limit) = (Timestamp(1_000), TRANSFER_TIMEOUT);
    let late = accept(read_at, read_at.after(limit));
    // An error, not a receipt: so its sender keeps what it has.
    assert_eq!(late.expect_err("refused").kind(), ErrorKind::NotReady);
    assert!(b.store.is_empty());
    let just_before = Timestamp(read_at.after(limit).0 - 1);
    assert_eq!(accept(read_at, just_before).expect("taken").kept, 1);
}

#[tokio::test]
async fn a_node_that_is_not_sure_to_be_a_member_takes_nothing_over_and_keeps_nothing() {
    let mut scene = scene(&["a", "b"], 1);
    scene.warm("a").await;
    scene.plan.lease = Some(Duration::from_secs(3));
    scene.join("c");
    let three = view(2, &["a", "b", "c"]);
    // b has not seen c yet, so c's fence is closed.
    scene.node("a").install(&three);
    scene.node("c").install(&three);
    scene.settle().await;
    let of_c = (0..KEYS).filter(|number| *scene.owner(*number, &three) == *"c");
    for number in of_c {
        let holders = scene.held_by(number);
        assert!(matches!(*holders, ["a"] | ["b"]), "{number} at {holders:?}");
        let answer = scene.node("c").group.get(&key(number)).await;
        answer.expect("served all the same");
        assert_eq!(scene.held_by(number), holders, "and not kept");
    }
    assert_eq!(scene.loads(), KEYS, "asked of who has them");
}

#[tokio::test]
async fn rings_that_disagree_don_t_send_an_entry_to_and_fro() {
    let scene = scene(&["a", "b"], 1);
    scene.warm("a").await;
    // Each takes the other for the only one in the ring.
    scene.node("a").install(&with_leaving(2, &["b"], &["a"]));
    scene.node("b").install(&with_leaving(3, &["a"], &["b"]));
    for _ in 0..3 {
        scene.settle().await;
    }
    // Wherever they are, they are there: nothing was lost, and the origin sees nothing.
    for id in ["a", "b"] {
        scene.warm(id).await;
    }
    assert_eq!(scene.loads(), KEYS);
    let all: usize = scene.nodes.iter().map(|node| node.store.len()).sum();
    assert!(all >= KEYS);
}

#[tokio::test]
async fn a_receiver_that_is_full_keeps_the_hotter_of_both() {
    let mut scene = scene(&["a"], 1);
    let entry = |use_count: u32| Arc::new(entry(900, Timestamp(TTL_MS)).with_use_count(use_count));
    scene.join("b");
    let (a, b) = (scene.node("a"), scene.node("b"));
    // As much as fits, twice: half of each node's entries are hot.
    let fits = (4 << 20) / (900 + 256 + 8);
    for number in 0..fits {
        let use_count = if number % 2 == 0 { 100 } else { 0 };
        for (node, name) in [(a, "at-a"), (b, "at-b")] {
            let key = format!("{name}-{number}");
            node.store
                .offer(&hashed(&key), entry(use_count), Timestamp(0));
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
        let entry = entry(900, Timestamp(TTL_MS)).with_use_count(use_count);
        let (store, key) = (&scene.node("a").store, key(number));
        store.offer(&hashed(&key), entry.into(), Timestamp(0));
    }
    scene.install(&with_leaving(2, &["b"], &["a"]));
    scene.node("a").handoff.leave(BOUND).await;
    let heats = scene.net.heats.lock().clone();
    assert_eq!(heats.len(), KEYS);
    assert!(heats.is_sorted_by(|a, b| a >= b), "{heats:?}");
}
