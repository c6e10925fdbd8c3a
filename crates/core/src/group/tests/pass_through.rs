//! A node whose fence is closed.

use super::*;

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
    // Off the list, it hears of no removals.
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

#[tokio::test(start_paused = true)]
async fn a_removal_waits_until_the_node_is_sure_to_be_a_member() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    test.groups[owner].get(&key).await.expect("loads");
    test.origin.version.store(2, Ordering::SeqCst);
    let fence = test.standings[other].fence.clone();
    fence.close();
    let removal = tokio::spawn({
        let (group, key) = (test.groups[other].clone(), key.clone());
        async move { group.remove(&key).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!removal.is_finished(), "it knows whom to tell only later");
    fence.extend(Timestamp(0), Timestamp::NEVER);
    removal.await.expect("no panic").expect("removed");
    let answer = test.groups[owner].get(&key).await.expect("a value");
    assert_eq!(answer.value, "alice v2");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_becomes_a_member_or_leaves_refuses_removals() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    test.standings[other].fence.close();
    let began = tokio::time::Instant::now();
    let refused = test.groups[other].remove(&key).await.expect_err("unsure");
    assert_eq!(refused.kind(), ErrorKind::Registry);
    assert_eq!(began.elapsed(), test.standings[other].removal_bound());
    test.standings[owner].fence.end();
    let began = tokio::time::Instant::now();
    test.groups[owner]
        .remove(&key)
        .await
        .expect_err("it leaves");
    assert!(began.elapsed().is_zero(), "there is nothing to wait for");
}
