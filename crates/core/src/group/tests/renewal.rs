//! What the origin says of a value, and what becomes of a value whose life ends: it is asked for by
//! its validator, ahead of its end, or late.

use super::*;
use crate::{
    metadata::Metadata,
    ports::{Fate, Handed, LoadQueue, LoadTurn, Parcel, Reloaded, Sender},
};

const WINDOW: u64 = 120_000;

fn rules() -> GroupRules {
    GroupRules {
        negative_ttl: Duration::ZERO,
        stale_if_error: Duration::from_millis(WINDOW),
        ..group_rules()
    }
}

fn tagged(rules: GroupRules) -> TestCluster {
    let test = cluster_of(3, rules);
    test.origin.is_tagged.store(true, Ordering::SeqCst);
    test
}

impl TestCluster {
    async fn answer(&self, node: usize, key: &str) -> Answer {
        // Where time is not the test's own, this is never reached.
        let answer = tokio::time::timeout(Duration::from_secs(3600), self.groups[node].get(key));
        answer.await.expect("in time").expect("an answer")
    }

    fn unchanged(&self) -> usize {
        self.origin.unchanged.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn what_the_origin_said_reaches_every_node_and_hot_copies() {
    let test = tagged(rules());
    let said = test.origin.said().expect("good");
    let (key, owner, other) = test.key_and_ranks();
    for node in [other, owner] {
        assert_eq!(test.answer(node, &key).await.metadata, said);
    }
    for _ in 0..HOT_AFTER {
        test.answer(other, &key).await;
    }
    assert_eq!(test.answer(other, &key).await.source, Source::Hit);
    assert_eq!(test.answer(other, &key).await.metadata, said, "a copy");
}

#[tokio::test]
async fn an_entry_that_is_handed_over_keeps_what_its_origin_said() {
    let test = tagged(rules());
    let said = test.origin.said().expect("good");
    let (key, owner, other) = test.key_and_ranks();
    test.answer(owner, &key).await;
    let record = test.groups[owner].find_owned(&test.groups[owner].hashed(&key));
    let record = record.expect("held").record();
    let parcel = Parcel {
        group: "users".into(),
        key: key.as_str().into(),
        what: Handed::Over(record),
        use_count: 1,
        copy: false,
    };
    let bytes = parcel.bytes();
    assert!(bytes > said.bytes() + key.len(), "{bytes} with {said:?}");
    let view = test.clusters[0].snapshot().view.clone();
    let sender = view
        .members
        .iter()
        .find(|it| it.id[1..] == *owner.to_string());
    let sender = Sender {
        member: sender.expect("a member").incarnation(),
        revision: 1,
    };
    assert_eq!(test.groups[other].accept(&parcel, sender), Fate::Kept);
    let taken = test.groups[other].find_owned(&test.groups[other].hashed(&key));
    assert_eq!(taken.expect("held").record().metadata, said);
}

#[tokio::test]
async fn a_value_that_has_not_changed_lives_on() {
    let test = tagged(rules());
    let (key, owner, other) = test.key_and_ranks();
    let before = test.answer(owner, &key).await;
    assert!(!before.course.stale);
    test.at(TTL_MS);
    let after = test.answer(owner, &key).await;
    assert_eq!((test.loads(), test.unchanged()), (2, 1));
    assert_eq!(after.value, before.value);
    assert_eq!(after.expires_at, Timestamp(2 * TTL_MS));
    assert_eq!(after.source, Source::Origin);
    assert!(after.course.stale);
    assert_eq!(after.metadata.get("x-renewed"), Some("yes"));
    assert_eq!(after.metadata.get("etag"), Some("\"v1\""));
    assert_eq!(after.entity_tag, before.entity_tag);
    test.at(2 * TTL_MS - 1);
    assert_eq!(test.answer(owner, &key).await.source, Source::Hit);

    // A value that changed comes anew, and one that went with its window, unasked.
    test.at(2 * TTL_MS);
    test.origin.version.store(2, Ordering::SeqCst);
    let changed = test.answer(other, &key).await;
    assert_eq!(changed.value, "alice v2");
    assert!(changed.course.stale, "told by the owner");
    assert_eq!(changed.metadata.get("x-renewed"), None);
    test.at(3 * TTL_MS + WINDOW);
    let late = test.answer(owner, &key).await;
    assert!(!late.course.stale);
    assert_eq!((test.loads(), test.unchanged()), (4, 1));
}

#[tokio::test]
async fn an_unchanged_answer_that_a_removal_overtakes_keeps_nothing() {
    let test = tagged(GroupRules {
        stale_while_revalidate: Duration::from_millis(WINDOW),
        ..rules()
    });
    let (key, owner, other) = test.key_and_ranks();
    test.answer(owner, &key).await;
    test.at(TTL_MS);
    test.hold_origin();
    assert_eq!(test.answer(owner, &key).await.source, Source::Stale);
    test.until_loads(2).await;
    test.groups[other].remove(&key).await.expect("removed");
    test.origin.permits.add_permits(1);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(test.unchanged(), 1);
    test.origin.permits.add_permits(1);
    let answer = test.answer(owner, &key).await;
    assert_eq!(answer.source, Source::Origin, "nothing was kept");
    assert_eq!((test.loads(), test.unchanged()), (3, 1));
}

/// Says that everything is as it was.
struct Lazy;

#[async_trait]
impl LoadQueue for Lazy {
    async fn ask(
        &self,
        _: &str,
        _: Option<&Metadata>,
        _: LoadTurn<'_>,
    ) -> Result<Reloaded, crate::error::BoxError> {
        Ok(Reloaded::Unchanged {
            freshness: Freshness::Unsaid,
            metadata: Metadata::NONE,
        })
    }

    async fn ask_many(
        &self,
        _: &[&str],
        _: LoadTurn<'_>,
    ) -> Vec<Result<Loaded, crate::error::BoxError>> {
        unreachable!("takes no batches")
    }

    fn batch_size(&self) -> usize {
        1
    }

    fn also_wanted(&self, _: &str) {}
}

#[tokio::test]
async fn an_origin_that_calls_unchanged_what_was_not_named_to_it_has_failed() {
    let test = cluster_of(1, rules());
    let wanted = |origin| Wanted {
        rules: rules(),
        origin,
    };
    test.groups[0].adjust(wanted(Arc::new(Lazy)));
    let failed = test.groups[0].get("k").await.expect_err("nothing is kept");
    assert_eq!(failed.kind(), ErrorKind::OriginFailed);
    // Nor is a value without a validator.
    test.groups[0].adjust(wanted(test.origin.clone()));
    test.answer(0, "k").await;
    test.at(TTL_MS);
    test.groups[0].adjust(wanted(Arc::new(Lazy)));
    let stale = test.answer(0, "k").await;
    assert_eq!(stale.source, Source::Stale, "in place of the error");
    assert!(stale.course.stale);
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_goes_on_while_the_old_value_is_served() {
    let patient = GroupRules {
        soft_timeout: Duration::from_millis(50),
        ..rules()
    };
    let test = cluster_of(3, patient);
    let (key, owner, other) = test.key_and_ranks();
    test.answer(owner, &key).await;
    test.origin.version.store(2, Ordering::SeqCst);
    test.at(TTL_MS);
    test.hold_origin();
    for node in [owner, other, owner] {
        let answer = test.answer(node, &key).await;
        assert_eq!(
            (&*answer.value, answer.source),
            (&b"alice v1"[..], Source::Stale)
        );
        assert!(answer.course.stale);
    }
    assert_eq!(test.loads(), 2, "one load, though all have gone");
    test.origin.permits.add_permits(1);
    test.until_gets(owner, &key, "alice v2").await;
    assert_eq!(test.loads(), 2);

    // Without a value to serve, a get waits for its load.
    test.at(3 * TTL_MS + WINDOW);
    let late = tokio::time::timeout(Duration::from_secs(60), test.groups[owner].get(&key));
    assert!(late.await.is_err(), "waits");
    test.origin.permits.add_permits(1);
    assert_eq!(test.answer(owner, &key).await.source, Source::Origin);
}

/// Loads wait for their turn, and are given up there if nobody wants them any more.
struct Queued(Arc<TestOrigin>, AtomicUsize);

#[async_trait]
impl LoadQueue for Queued {
    async fn ask(
        &self,
        key: &str,
        _: Option<&Metadata>,
        turn: LoadTurn<'_>,
    ) -> Result<Reloaded, crate::error::BoxError> {
        tokio::select! {
            loaded = self.0.load(key) => loaded.map(Reloaded::Changed),
            () = turn.abandoned => {
                self.1.fetch_add(1, Ordering::SeqCst);
                Err(Error::origin_failed("given up").into())
            }
        }
    }

    async fn ask_many(
        &self,
        _: &[&str],
        _: LoadTurn<'_>,
    ) -> Vec<Result<Loaded, crate::error::BoxError>> {
        unreachable!("takes no batches")
    }

    fn batch_size(&self) -> usize {
        1
    }

    fn also_wanted(&self, _: &str) {}
}

#[tokio::test(start_paused = true)]
async fn a_load_in_place_of_an_old_value_keeps_its_turn_though_nobody_waits() {
    for revalidate in [0, WINDOW] {
        let rules = GroupRules {
            stale_while_revalidate: Duration::from_millis(revalidate),
            soft_timeout: Duration::from_millis(50),
            ..rules()
        };
        let test = cluster_of(1, rules.clone());
        let queued = Arc::new(Queued(test.origin.clone(), AtomicUsize::new(0)));
        test.groups[0].adjust(Wanted {
            rules,
            origin: queued.clone(),
        });
        test.answer(0, "k").await;
        test.at(TTL_MS);
        test.origin.version.store(2, Ordering::SeqCst);
        test.hold_origin();
        assert_eq!(test.answer(0, "k").await.source, Source::Stale);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queued.1.load(Ordering::SeqCst), 0, "given up");
        test.origin.permits.add_permits(1);
        test.until_gets(0, "k", "k v2").await;
        assert_eq!(test.loads(), 2);
    }
}

#[tokio::test]
async fn a_load_that_is_in_time_is_what_a_patient_get_brings() {
    let test = cluster_of(
        1,
        GroupRules {
            soft_timeout: Duration::from_secs(3600),
            ..rules()
        },
    );
    test.answer(0, "k").await;
    test.at(TTL_MS);
    assert_eq!(test.answer(0, "k").await.source, Source::Origin);
}

#[tokio::test]
async fn a_value_in_use_is_loaded_anew_shortly_before_its_end() {
    let ahead = GroupRules {
        refresh_ahead: true,
        stale_if_error: Duration::ZERO,
        ..rules()
    };
    let test = cluster_of(3, ahead);
    let (key, owner, other) = test.key_and_ranks();
    test.answer(owner, &key).await;
    for node in [owner, other] {
        test.groups[node].ahead.took(Duration::from_millis(100));
    }
    test.origin.version.store(2, Ordering::SeqCst);
    test.at(TTL_MS / 2);
    assert_eq!(test.answer(owner, &key).await.value, "alice v1");
    assert_eq!(test.loads(), 1, "long before its end");
    // At its last moment any draw is due, but only the owner loads.
    test.at(TTL_MS - 1);
    for _ in 0..100 {
        let answer = test.answer(other, &key).await;
        assert_ne!(answer.source, Source::Origin, "a hit never waits");
        tokio::task::yield_now().await;
    }
    test.until_gets(owner, &key, "alice v2").await;
    let answer = test.answer(owner, &key).await;
    assert_eq!(answer.expires_at, Timestamp(2 * TTL_MS - 1));
    assert_eq!(test.loads(), 2);
}
