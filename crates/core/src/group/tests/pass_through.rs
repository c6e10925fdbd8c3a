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
