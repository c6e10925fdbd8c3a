//! Gets: hits, flights, stand-ins, copies, errors and bounds.

use super::*;

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
        shared, observer, ..
    } = &*test.groups[0];
    let rules = test.groups[0].rules();
    let group = Arc::new(Group::new(
        GroupId(1),
        rules,
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
        shared, observer, ..
    } = &*test.groups[0];
    let rules = test.groups[0].rules();
    let origin = Arc::new(NoStore(AtomicUsize::new(0)));
    let group = Group::new(GroupId(1), rules, origin, observer.clone(), shared.clone());
    let group = Arc::new(group);
    assert_eq!(group.get("k").await.expect("a value").value, "0");
    assert_eq!(group.get("k").await.expect("a value").value, "1");
}

#[tokio::test]
async fn a_failure_is_kept_for_its_time_and_not_past_a_removal() {
    const ERROR_TTL: Duration = Duration::from_secs(1);
    let rules = GroupRules {
        error_ttl: ERROR_TTL,
        ..group_rules()
    };
    let test = cluster_of(3, rules);
    let (key, owner, other) = test.key_and_ranks();
    *test.origin.answer.lock() = Some(Error::origin_failed("down"));
    let end = u64::try_from(ERROR_TTL.as_millis()).expect("small");
    // Asked all the time: that must not prolong it.
    for now in (0..end).step_by(100) {
        test.clock.0.store(now, Ordering::SeqCst);
        for group in [&test.groups[owner], &test.groups[other]] {
            let error = group.get(&key).await.expect_err("down");
            assert_eq!(error.kind(), ErrorKind::OriginFailed);
            let left = Duration::from_millis(end - now);
            assert_eq!(error.retry_after(), Some(left), "{error:?}");
        }
    }
    assert_eq!(test.loads(), 1);
    *test.origin.answer.lock() = None;
    assert!(test.groups[owner].get(&key).await.is_err());
    test.groups[other].remove(&key).await.expect("removed");
    assert!(test.groups[owner].get(&key).await.is_ok(), "asked again");

    *test.origin.answer.lock() = Some(Error::origin_failed("down"));
    for forgets in [true, false] {
        assert!(test.groups[owner].get("bob").await.is_err());
        let loads = test.loads();
        match forgets {
            true => drop(test.groups[owner].purge().await.expect("purged")),
            false => test.clock.0.store(3 * end, Ordering::SeqCst),
        }
        assert!(test.groups[owner].get("bob").await.is_err());
        assert_eq!(test.loads(), loads + 1, "{forgets}");
    }
}
