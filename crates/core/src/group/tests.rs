//! Read-through and invalidation over nodes without a network: peers call each other directly, time
//! is set by hand, origins can be held back.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Semaphore;

use super::*;
use crate::ports::{Freshness, Loaded, Timestamp};
use crate::{
    cluster::Cluster,
    harness_tests::{HOT_AFTER, HandClock, Plan, TTL_MS, TestNet, TestOrigin, ranked, view},
    membership::{Member, View},
    standing::Standing,
};

struct TestCluster {
    groups: Vec<Arc<Group>>,
    clusters: Vec<Arc<Cluster>>,
    standings: Vec<Arc<Standing>>,
    peers: Arc<TestNet>,
    origin: Arc<TestOrigin>,
    clock: Arc<HandClock>,
}

fn cluster(size: usize) -> TestCluster {
    let origin = Arc::<TestOrigin>::default();
    let (peers, clock) = (Arc::<TestNet>::default(), Arc::<HandClock>::default());
    let plan = Plan {
        replicas: 1,
        capacity: 1 << 20,
        bytes_per_second: 1 << 40,
        lease: None,
        clock: clock.clone(),
        origin: origin.clone(),
        net: peers.clone(),
    };
    let ids: Vec<String> = (0..size).map(|n| format!("n{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let nodes: Vec<_> = ids.iter().map(|id| plan.node(id)).collect();
    nodes.iter().for_each(|node| node.install(&view(1, &ids)));
    TestCluster {
        groups: nodes.iter().map(|node| node.group.clone()).collect(),
        clusters: nodes.iter().map(|node| node.cluster.clone()).collect(),
        standings: nodes.iter().map(|node| node.standing.clone()).collect(),
        peers,
        origin,
        clock,
    }
}

impl TestCluster {
    fn loads(&self) -> usize {
        self.origin.loads.load(Ordering::SeqCst)
    }

    /// A key and the numbers of its owner and of the one who stands in for it.
    fn key_and_ranks(&self) -> (String, usize, usize) {
        let key = "alice".to_owned();
        let view = self.clusters[0].snapshot().view.clone();
        let number = |id: &Arc<str>| id[1..].parse().expect("a number");
        let ranked: Vec<usize> = ranked(&self.groups[0], &key, &view)
            .iter()
            .map(number)
            .collect();
        (key, ranked[0], ranked[1])
    }

    fn hold_origin(&self) {
        self.origin.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    async fn until_loads(&self, loads: usize) {
        /// Far more than any load needs to begin; without a bound a broken flight would hang
        /// instead of fail.
        const TURNS: usize = 100_000;
        for _ in 0..TURNS {
            if self.loads() >= loads {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("load {loads} never began");
    }
}

#[tokio::test]
async fn a_thousand_gets_of_one_missing_key_over_three_nodes_cost_one_load() {
    let test = cluster(3);
    test.hold_origin();
    let gets = (0..1_000).map(|n| {
        let group = test.groups[n % 3].clone();
        tokio::spawn(async move { group.get("alice").await })
    });
    let gets: Vec<_> = gets.collect();
    test.until_loads(1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    test.origin.permits.add_permits(1);
    for get in join_all(gets).await {
        let answer = get.expect("no panic").expect("a value");
        assert_eq!(answer.value, "alice v1");
    }
    assert_eq!(test.loads(), 1);
}

#[tokio::test]
async fn the_second_get_is_a_hit_at_the_owner_and_a_peer_s_elsewhere() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    assert_eq!(
        test.groups[other].get(&key).await.expect("loads").source,
        Source::Origin
    );
    assert_eq!(
        test.groups[owner].get(&key).await.expect("has it").source,
        Source::Hit
    );
    let answer = test.groups[other].get(&key).await.expect("fetches it");
    assert_eq!(answer.source, Source::Peer);
    assert_eq!(*answer.owner, *format!("n{owner}"));
    assert_eq!(answer.expires_at, Timestamp(TTL_MS));
}

#[tokio::test]
async fn a_copy_is_kept_only_when_hot_and_never_past_its_expiry() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    for _ in 1..HOT_AFTER {
        assert_ne!(
            test.groups[other].get(&key).await.expect("a value").source,
            Source::Hit
        );
    }
    assert_eq!(
        test.groups[other].get(&key).await.expect("a value").source,
        Source::Peer
    );
    test.clock.0.store(TTL_MS - 1, Ordering::SeqCst);
    let copy = test.groups[other].get(&key).await.expect("a value");
    assert_eq!(
        (copy.source, copy.expires_at),
        (Source::Hit, Timestamp(TTL_MS))
    );
    test.origin.version.store(2, Ordering::SeqCst);
    test.clock.0.store(TTL_MS, Ordering::SeqCst);
    assert_eq!(
        test.groups[other].get(&key).await.expect("a value").value,
        "alice v2"
    );
}

#[tokio::test]
async fn nodes_that_each_take_the_other_for_the_owner_don_t_wait_for_each_other() {
    let test = cluster(2);
    let (key, ..) = test.key_and_ranks();
    for (me, other) in [(0, 1), (1, 0)] {
        // Each sees only the other.
        let view = View::new(2, [Member::new(format!("n{other}"), "h:1")]);
        test.clusters[me].install(view);
    }
    let (a, b) = tokio::join!(test.groups[0].get(&key), test.groups[1].get(&key));
    assert_eq!(a.expect("a value").value, "alice v1");
    assert_eq!(b.expect("a value").value, "alice v1");
    assert_eq!(test.peers.fetches.load(Ordering::SeqCst), 2, "one hop each");
}

#[tokio::test]
async fn callers_that_give_up_don_t_cancel_the_load() {
    let test = cluster(3);
    test.hold_origin();
    let (key, owner, other) = test.key_and_ranks();
    for (round, asked) in [owner, other].into_iter().enumerate() {
        let (group, asked_key) = (test.groups[asked].clone(), key.clone());
        let caller = tokio::spawn(async move { group.get(&asked_key).await });
        test.until_loads(round + 1).await;
        caller.abort();
        assert!(caller.await.expect_err("aborted").is_cancelled());
        test.origin.permits.add_permits(1);
        let answer = test.groups[asked].get(&key).await.expect("a value");
        assert_eq!(answer.value, "alice v1");
        assert_eq!(test.loads(), round + 1);
        test.groups[owner].remove(&key).await.expect("removed");
    }
}

#[tokio::test]
async fn the_next_in_ring_order_stands_in_for_an_owner_that_is_down() {
    let test = cluster(4);
    let (key, owner, second) = test.key_and_ranks();
    test.peers.down.lock().insert(format!("n{owner}").into());
    for group in test.groups.iter().enumerate().filter(|(n, _)| *n != owner) {
        assert_eq!(group.1.get(&key).await.expect("a value").value, "alice v1");
    }
    assert_eq!(test.loads(), 1, "one of the others holds it for all");
    assert!(test.groups[second].peek_for_peer(&key).entry.is_some());
}

#[tokio::test]
async fn an_error_of_the_origin_is_passed_on_and_not_asked_for_again_elsewhere() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    *test.origin.answer.lock() = Some(Error::origin_failed("it is down"));
    let error = test.groups[other].get(&key).await.expect_err("no value");
    assert_eq!(error.kind(), ErrorKind::OriginFailed);
    assert_eq!(test.loads(), 1);
    *test.origin.answer.lock() = None;
    assert!(
        test.groups[other].get(&key).await.is_ok(),
        "errors are not kept"
    );
}

#[tokio::test]
async fn a_missing_key_is_kept_in_mind_for_its_time() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    *test.origin.answer.lock() = Some(Error::not_found("no"));
    for _ in 0..3 {
        let error = test.groups[other].get(&key).await.expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(test.loads(), 1);
    *test.origin.answer.lock() = None;
    test.clock.0.store(TTL_MS, Ordering::SeqCst);
    assert!(test.groups[other].get(&key).await.is_ok());
}

#[tokio::test]
async fn after_remove_no_node_serves_the_old_value_hot_copies_included() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    for group in &test.groups {
        for _ in 0..=HOT_AFTER {
            group.get(&key).await.expect("a value");
        }
    }
    test.origin.version.store(2, Ordering::SeqCst);
    test.groups[other].remove(&key).await.expect("removed");
    for group in &test.groups {
        assert_eq!(group.get(&key).await.expect("a value").value, "alice v2");
    }
    test.origin.version.store(3, Ordering::SeqCst);
    assert!(test.groups[owner].purge().await.expect("purged") > 0);
    for group in &test.groups {
        assert_eq!(group.get(&key).await.expect("a value").value, "alice v3");
    }
}

#[tokio::test]
async fn a_load_under_way_does_not_bring_back_what_was_removed() {
    for purge in [false, true] {
        let test = cluster(3);
        test.hold_origin();
        let (key, owner, other) = test.key_and_ranks();
        let (group, asked) = (test.groups[other].clone(), key.clone());
        let early = tokio::spawn(async move { group.get(&asked).await });
        test.until_loads(1).await;
        test.origin.version.store(2, Ordering::SeqCst);
        if purge {
            test.groups[owner].purge().await.expect("purged");
        } else {
            test.groups[owner].remove(&key).await.expect("removed");
        }
        test.origin.permits.add_permits(10);
        let early = early.await.expect("no panic").expect("asked before");
        assert_eq!(early.value, "alice v1");
        for group in &test.groups {
            assert_eq!(group.get(&key).await.expect("a value").value, "alice v2");
        }
    }
}

#[tokio::test]
async fn a_copy_made_while_a_removal_is_under_way_is_gone_when_it_answers() {
    let test = cluster(3);
    let (key, owner, reader) = test.key_and_ranks();
    test.groups[owner].get(&key).await.expect("loads");
    test.origin.version.store(2, Ordering::SeqCst);
    *test.peers.reads_before.lock() =
        Some((format!("n{reader}").into(), format!("n{owner}").into()));
    test.groups[3 - owner - reader]
        .remove(&key)
        .await
        .expect("removed");
    assert!(
        test.peers.reads_before.lock().is_none(),
        "the race took place"
    );
    for group in &test.groups {
        assert_eq!(group.get(&key).await.expect("a value").value, "alice v2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_names_who_was_not_reached_and_reaches_the_others_all_the_same() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    test.groups[owner].get(&key).await.expect("loads");
    test.peers.down.lock().insert(format!("n{other}").into());
    let third = 3 - owner - other;
    let error = test.groups[third].remove(&key).await.expect_err("not all");
    assert_eq!(error.kind(), ErrorKind::PeerUnreachable);
    assert!(error.message().contains(&format!("n{other}")), "{error}");
    assert!(
        !error.message().contains(&format!("n{owner} at")),
        "{error}"
    );
    assert!(test.groups[owner].peek_for_peer(&key).entry.is_none());
}

#[tokio::test]
async fn a_removal_during_which_the_machine_was_suspended_is_refused() {
    let test = cluster(2);
    let (clock, bound) = (test.clock.clone(), test.standings[0].removal_bound());
    *test.peers.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
        // The clock goes on; timers don't.
        let bound = u64::try_from(bound.as_millis()).expect("seconds");
        clock.0.fetch_add(bound, Ordering::SeqCst);
        Box::pin(std::future::ready(true))
    })));
    let error = test.groups[0].remove("alice").await.expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::PeerUnreachable);
    *test.peers.passing.lock() = None;
    test.groups[0]
        .remove("alice")
        .await
        .expect("now it is told in time");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_confirmed_after_its_bound_is_refused() {
    // Once is a coin toss without the rule: bound and confirmation are ready at the same moment.
    for _ in 0..32 {
        let test = cluster(2);
        let gate = Arc::new(Semaphore::new(0));
        let way = gate.clone();
        *test.peers.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
            let way = way.clone();
            Box::pin(async move { way.acquire().await.is_ok() })
        })));
        let removal = test.groups[0].remove("alice");
        let mut removal = std::pin::pin!(removal);
        assert!(futures::poll!(&mut removal).is_pending());
        // Its node stands still from here on.
        tokio::time::advance(test.standings[0].removal_bound()).await;
        gate.add_permits(2);
        let error = removal.await.expect_err("too late");
        assert_eq!(error.kind(), ErrorKind::PeerUnreachable);
    }
}

#[tokio::test(start_paused = true)]
async fn who_joins_while_a_removal_is_under_way_is_told_too() {
    let test = cluster(3);
    let all = test.clusters[0].snapshot().view.clone();
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| *ranked(&test.groups[0], key, &all)[0] == *"n2")
        .expect("a share of the keys");
    test.groups[2].get(&key).await.expect("loads");
    test.clusters[0].install(view(2, &["n0", "n1"]));
    let gate = Arc::new(Semaphore::new(0));
    let way = gate.clone();
    *test.peers.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
        let way = way.clone();
        Box::pin(async move { way.acquire().await.is_ok() })
    })));
    let removal = test.groups[0].remove(&key);
    let mut removal = std::pin::pin!(removal);
    assert!(futures::poll!(&mut removal).is_pending());
    test.clusters[0].install(view(3, &["n0", "n1", "n2"]));
    // It hears of the ring before anyone confirms.
    assert!(futures::poll!(&mut removal).is_pending());
    gate.add_permits(2);
    removal.await.expect("all confirm");
    assert!(test.groups[2].peek_for_peer(&key).entry.is_none());
}

#[tokio::test]
async fn a_node_that_passes_through_keeps_nothing_and_asks_the_owners() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    for _ in 0..=HOT_AFTER {
        test.groups[other].get(&key).await.expect("a value");
    }
    assert_eq!(
        test.groups[other].get(&key).await.expect("a copy").source,
        Source::Hit
    );
    test.standings[other].fence.end();
    // Off the list, it is not told of removals.
    test.peers.down.lock().insert(format!("n{other}").into());
    let view = View::new(
        2,
        (0..3)
            .filter(|n| *n != other)
            .map(|n| Member::new(format!("n{n}"), "h:1")),
    );
    test.clusters.iter().for_each(|cluster| {
        cluster.install(view.clone());
    });
    test.origin.version.store(2, Ordering::SeqCst);
    test.groups[owner].remove(&key).await.expect("removed");
    for _ in 0..=HOT_AFTER {
        let answer = test.groups[other].get(&key).await.expect("a value");
        assert_eq!(answer.value, "alice v2");
        assert_ne!(answer.source, Source::Hit);
    }
}

#[tokio::test]
async fn a_node_that_passes_through_joins_no_flight_that_a_removal_could_not_ground() {
    let test = cluster(3);
    test.hold_origin();
    let (key, owner, other) = test.key_and_ranks();
    test.standings[other].fence.end();
    let get = || {
        let (group, key) = (test.groups[other].clone(), key.clone());
        tokio::spawn(async move { group.get(&key).await })
    };
    let early = get();
    test.until_loads(1).await;
    let ids: Vec<String> = (0..3)
        .filter(|n| *n != other)
        .map(|n| format!("n{n}"))
        .collect();
    let left: Vec<&str> = ids.iter().map(String::as_str).collect();
    for cluster in &test.clusters {
        cluster.install(view(2, &left));
    }
    test.origin.version.store(2, Ordering::SeqCst);
    test.groups[owner].remove(&key).await.expect("removed");
    let late = get();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    test.origin.permits.add_permits(2);
    let early = early.await.expect("no panic").expect("asked before");
    assert_eq!(early.value, "alice v1");
    let late = late.await.expect("no panic").expect("a value");
    assert_eq!(late.value, "alice v2", "asked after the removal");
}

#[tokio::test]
async fn keys_and_values_out_of_bounds_are_refused() {
    let test = cluster(1);
    let kind = async |key: &str| {
        let got = test.groups[0].get(key).await;
        got.map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(kind("").await, Err(ErrorKind::InvalidRequest));
    assert_eq!(
        kind(&"k".repeat(MAX_KEY_BYTES + 1)).await,
        Err(ErrorKind::InvalidRequest)
    );
    assert_eq!(test.loads(), 0);
    // The origin's value is the key and a little more: over the group's 1 KiB.
    assert_eq!(
        kind(&"k".repeat(MAX_KEY_BYTES)).await,
        Err(ErrorKind::ValueTooLarge)
    );
    assert_eq!(kind("small").await, Ok(()));
}

#[tokio::test]
async fn a_loader_that_panics_is_an_error_and_the_key_is_free_again() {
    struct Panics(AtomicUsize);
    #[async_trait]
    impl Origin for Panics {
        async fn load(&self, _: &str) -> Result<Loaded, crate::error::BoxError> {
            assert!(
                self.0.fetch_add(1, Ordering::SeqCst) > 0,
                "the first load dies"
            );
            Ok(Bytes::from_static(b"v").into())
        }
    }
    let test = cluster(1);
    let Group {
        rules,
        shared,
        observer,
        ..
    } = &*test.groups[0];
    let group = Arc::new(Group::new(
        GroupId(1),
        rules.clone(),
        Arc::new(Panics(AtomicUsize::new(0))),
        observer.clone(),
        shared.clone(),
    ));
    assert_eq!(
        group.get("k").await.expect_err("died").kind(),
        ErrorKind::Internal
    );
    assert_eq!(group.get("k").await.expect("loads").value, "v");
}

#[tokio::test]
async fn what_may_not_be_kept_is_served_and_not_kept() {
    struct NoStore(AtomicUsize);
    #[async_trait]
    impl Origin for NoStore {
        async fn load(&self, _: &str) -> Result<Loaded, crate::error::BoxError> {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Loaded::from(number.to_string()).with_freshness(Freshness::Uncacheable))
        }
    }
    let test = cluster(1);
    let Group {
        rules,
        shared,
        observer,
        ..
    } = &*test.groups[0];
    let origin = Arc::new(NoStore(AtomicUsize::new(0)));
    let group = Group::new(
        GroupId(1),
        rules.clone(),
        origin,
        observer.clone(),
        shared.clone(),
    );
    let group = Arc::new(group);
    assert_eq!(group.get("k").await.expect("a value").value, "0");
    assert_eq!(group.get("k").await.expect("a value").value, "1");
}
