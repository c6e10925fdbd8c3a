//! What must not come in: entries that were removed, are late, or belong elsewhere.

use bytes::Bytes;

use super::{
    tests::{KEYS, Scene, hashed, key, scene, with_leaving},
    *,
};
use crate::harness_tests::{TTL_MS, entry};
use crate::{
    error::ErrorKind,
    harness_tests::view,
    membership::IdHash,
    metadata::Metadata,
    ports::{Fate, Handed, Parcel, Reading, Sender, TRANSFER_TIMEOUT, Timestamp},
    record::{Record, Stale},
};

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
        what: Handed::Over(Record {
            value: Some(Bytes::from_static(b"old")),
            expires_at: Timestamp(TTL_MS),
            stale: Stale::NEVER,
            entity_tag: 0,
            metadata: Metadata::NONE,
        }),
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
        let sender = Sender {
            member: IdHash::of("a"),
            revision: 2,
        };
        let accepted = scene.node("c").group.accept(&parcel, sender);
        assert_eq!(accepted, Fate::Refused);
        assert!(scene.held_by(number).is_empty());
    }
}

#[tokio::test]
async fn what_was_under_way_for_longer_than_tombstones_reckon_with_is_refused_and_not_lost() {
    let scene = scene(&["a", "b"], 1);
    let parcel = Parcel {
        group: "users".into(),
        key: "k".into(),
        what: Handed::Over(Record {
            value: Some(Bytes::from_static(b"removed since")),
            expires_at: Timestamp::NEVER,
            stale: Stale::NEVER,
            entity_tag: 0,
            metadata: Metadata::NONE,
        }),
        use_count: 9,
        copy: false,
    };
    let (b, sender) = (scene.node("b"), scene.node("a").standing.incarnation());
    let accept = |read_at, now| {
        let parcels = std::slice::from_ref(&parcel);
        let sender = Sender {
            member: sender.expect("a member"),
            revision: 1,
        };
        b.groups
            .accept(&b.standing, parcels, sender, Reading { read_at, now })
    };
    let (read_at, limit) = (Timestamp(1_000), TRANSFER_TIMEOUT);
    let late = accept(read_at, read_at.after(limit));
    // An error, not a receipt: so its sender keeps what it has.
    assert_eq!(late.expect_err("refused").kind(), ErrorKind::NotReady);
    assert!(b.store.is_empty());
    let just_before = Timestamp(read_at.after(limit).0 - 1);
    assert_eq!(
        accept(read_at, just_before).expect("taken").fates,
        [Fate::Kept]
    );
}

#[tokio::test]
async fn an_entry_sent_by_an_older_ring_stays_with_its_sender_until_the_rings_agree() {
    let mut scene = scene(&["a", "b"], 1);
    scene.warm("a").await;
    scene.join("c");
    let three = view(2, &["a", "b", "c"]);
    let of_c = |scene: &Scene, number: usize| *scene.owner(number, &three) == *"c";
    // c and b know of c already. a knows only that b is there, and gives b what is c's.
    for id in ["b", "c"] {
        scene.node(id).install(&three);
    }
    scene.node("a").install(&with_leaving(1, &["b"], &["a"]));
    let a = scene.node("a");
    let moved = a.handoff.walk(a.handoff.background()).await;
    let left = (0..KEYS).filter(|number| scene.held_by(*number).contains(&"a"));
    let left: Vec<usize> = left.collect();
    assert!(!left.is_empty() && moved.failed > 0);
    for number in 0..KEYS {
        let holders = scene.held_by(number);
        assert_eq!(holders.len(), 1, "{number} at {holders:?}");
        // b takes what is its own by its ring, and nothing else.
        if left.contains(&number) {
            assert_ne!(*scene.owner(number, &three), *"b");
        }
    }
    assert!(left.iter().any(|number| of_c(&scene, *number)));
    scene.node("a").install(&three);
    scene.settle().await;
    for number in left.into_iter().filter(|number| of_c(&scene, *number)) {
        assert_eq!(scene.held_by(number), ["c"]);
    }
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
async fn a_value_that_is_too_large_for_its_receiver_is_given_up_and_holds_up_nothing() {
    let mut scene = scene(&["a"], 1);
    let two = view(2, &["a", "b"]);
    let moved: Vec<usize> = (0..KEYS)
        .filter(|number| *scene.owner(*number, &two) == *"b")
        .collect();
    let (large, other) = (moved[0], moved[1]);
    let value = entry(&hashed(&key(large)), 900, Timestamp(TTL_MS));
    scene.node("a").store.offer(value, Timestamp(0));
    scene.warm("a").await;
    scene.join("b");
    scene.net.largest.lock().insert("b".into(), 100);
    scene.install(&two);
    let handoff = &scene.node("a").handoff;
    let walked = handoff.walk(handoff.background()).await;
    assert_eq!((walked.sent, walked.failed), (moved.len(), 0));
    assert_eq!(scene.held_by(other), ["b"]);
    assert!(scene.held_by(large).is_empty());
}
