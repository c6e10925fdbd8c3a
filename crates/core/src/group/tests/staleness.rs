//! Values past their life: served on purpose, within bounds, and never once they were removed.

use super::*;
use crate::{
    membership::IdHash,
    metadata::Metadata,
    ports::{Fate, Handed, Parcel, Sender},
    record::{Record, Stale},
};

const REVALIDATE: u64 = 30_000;
const IF_ERROR: u64 = 120_000;

fn rules() -> GroupRules {
    GroupRules {
        negative_ttl: Duration::ZERO,
        ..group_rules()
    }
}

fn revalidating() -> GroupRules {
    GroupRules {
        stale_while_revalidate: Duration::from_millis(REVALIDATE),
        ..rules()
    }
}

fn if_error() -> GroupRules {
    GroupRules {
        stale_if_error: Duration::from_millis(IF_ERROR),
        ..rules()
    }
}

impl TestCluster {
    pub(super) fn at(&self, millis: u64) {
        self.clock.0.store(millis, Ordering::SeqCst);
    }

    pub(super) fn fails(&self, error: impl Into<Option<Error>>) {
        *self.origin.answer.lock() = error.into();
    }

    async fn gets(&self, node: usize, key: &str) -> Result<(Bytes, Source)> {
        let answer = self.groups[node].get(key).await?;
        Ok((answer.value, answer.source))
    }

    /// Gives background loads their turns until a get here brings that.
    pub(super) async fn until_gets(&self, node: usize, key: &str, wanted: &str) {
        for _ in 0..100_000 {
            if matches!(self.gets(node, key).await, Ok((value, _)) if value == wanted) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("never {wanted}");
    }
}

fn down() -> Error {
    Error::origin_failed("down")
}

fn answered(value: &'static str, source: Source) -> (Bytes, Source) {
    (Bytes::from(value), source)
}

#[tokio::test]
async fn an_old_value_is_served_at_once_while_one_load_brings_the_new() {
    let test = cluster_of(3, revalidating());
    let (key, owner, other) = test.key_and_ranks();
    test.gets(owner, &key).await.expect("loads");
    test.origin.version.store(2, Ordering::SeqCst);
    test.at(TTL_MS);
    test.hold_origin();
    for _ in 0..10 {
        for node in [owner, other] {
            let answer = test.gets(node, &key).await.expect("stale");
            assert_eq!(answer, answered("alice v1", Source::Stale));
        }
    }
    test.until_loads(2).await;
    test.at(TTL_MS + REVALIDATE - 1);
    let last = test.gets(other, &key).await.expect("stale");
    assert_eq!(last.1, Source::Stale);
    assert_eq!(test.loads(), 2, "one load for all");
    test.origin.permits.add_permits(1);
    test.until_gets(owner, &key, "alice v2").await;
    assert_eq!(test.loads(), 2);

    // Past the window, gets wait for the load.
    test.origin.permits.add_permits(1);
    test.at(3 * TTL_MS);
    let answer = test.gets(other, &key).await.expect("loads");
    assert_eq!(answer, answered("alice v2", Source::Origin));
}

#[tokio::test]
async fn an_old_value_stands_in_for_an_error_of_the_origin_within_its_window() {
    let test = cluster_of(3, if_error());
    let (key, owner, other) = test.key_and_ranks();
    test.gets(other, &key).await.expect("loads");
    for kind in [
        ErrorKind::OriginFailed,
        ErrorKind::OriginTimeout,
        ErrorKind::BreakerOpen,
        ErrorKind::Overloaded,
    ] {
        test.fails(Error::new(kind, "away"));
        for now in [TTL_MS, TTL_MS + IF_ERROR - 1] {
            test.at(now);
            for node in [owner, other] {
                let answer = test.gets(node, &key).await.expect("stale");
                assert_eq!(answer, answered("alice v1", Source::Stale), "{kind:?}");
            }
        }
    }
    test.fails(Error::value_too_large("grew", 1));
    assert!(test.gets(owner, &key).await.is_err(), "the origin is there");
    test.fails(down());
    test.at(TTL_MS + IF_ERROR);
    for node in [owner, other] {
        assert!(test.gets(node, &key).await.is_err(), "its window is over");
    }
    test.fails(None);
    let answer = test.gets(other, &key).await.expect("loads");
    assert_eq!(answer.1, Source::Origin);
}

#[tokio::test]
async fn what_gets_return_past_a_life_is_explained_and_so_is_what_they_fail_with() {
    for (rules, is_served) in [(if_error(), true), (rules(), false)] {
        let rules = GroupRules {
            error_ttl: Duration::from_millis(100),
            ..rules
        };
        let test = cluster_of(3, rules);
        let (key, owner, _) = test.key_and_ranks();
        let explained = async || test.groups[owner].explain(&key).await.expect("a key");
        test.gets(owner, &key).await.expect("loads");
        let fresh = explained().await;
        assert!(!fresh.owned.expect("held").stale);
        assert!(fresh.failure.is_none());
        test.fails(down());
        test.at(TTL_MS);
        assert_eq!(test.gets(owner, &key).await.is_ok(), is_served);
        let known = explained().await;
        assert_eq!(known.owned.map(|it| it.stale), is_served.then_some(true));
        let failure = known.failure.expect("remembered");
        assert_eq!(failure.kind(), ErrorKind::OriginFailed);
        // As long as it is held, there is no reason for its leaving.
        test.fails(None);
        test.at(TTL_MS + 100);
        let gone = explained().await.last_departure;
        let wanted = (!is_served).then_some(crate::store::GoneReason::Expired);
        assert_eq!(gone, wanted);
        test.groups[owner].remove(&key).await.expect("removed");
        test.at(5 * TTL_MS);
        test.gets(owner, &key).await.expect("loads");
        let held = explained().await;
        assert!(held.owned.is_some());
        assert_eq!(held.last_departure, None);
    }
}

#[tokio::test]
async fn without_a_window_nothing_is_served_past_its_life() {
    let test = cluster_of(3, rules());
    let (key, owner, _) = test.key_and_ranks();
    test.gets(owner, &key).await.expect("loads");
    test.fails(down());
    test.at(TTL_MS);
    assert!(test.gets(owner, &key).await.is_err());
}

#[tokio::test]
async fn a_removed_value_is_never_served_as_a_stale_one() {
    for purge in [false, true] {
        let test = cluster_of(3, if_error());
        let (key, owner, other) = test.key_and_ranks();
        test.gets(owner, &key).await.expect("loads");
        test.fails(down());
        test.at(TTL_MS);
        test.gets(owner, &key).await.expect("stale");
        match purge {
            true => drop(test.groups[other].purge().await.expect("purged")),
            false => test.groups[other].remove(&key).await.expect("removed"),
        }
        for node in 0..3 {
            assert!(test.gets(node, &key).await.is_err(), "{node}, {purge}");
        }
    }
}

#[tokio::test]
async fn a_refresh_that_a_removal_overtakes_keeps_nothing() {
    let test = cluster_of(3, revalidating());
    let (key, owner, other) = test.key_and_ranks();
    test.gets(owner, &key).await.expect("loads");
    test.at(TTL_MS);
    test.hold_origin();
    test.gets(owner, &key).await.expect("stale");
    // It has read the old value.
    test.until_loads(2).await;
    test.origin.version.store(2, Ordering::SeqCst);
    test.groups[other].remove(&key).await.expect("removed");
    test.origin.permits.add_permits(2);
    let answer = test.gets(owner, &key).await.expect("loads");
    assert_eq!(answer, answered("alice v2", Source::Origin));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let answer = test.gets(owner, &key).await.expect("has it");
    assert_eq!(answer, answered("alice v2", Source::Hit));
}

#[tokio::test]
async fn a_key_that_is_gone_at_the_origin_is_gone_though_its_absence_is_not_kept() {
    let both = GroupRules {
        stale_if_error: Duration::from_millis(IF_ERROR),
        ..revalidating()
    };
    let test = cluster_of(3, both);
    let (key, owner, other) = test.key_and_ranks();
    test.gets(owner, &key).await.expect("loads");
    test.at(TTL_MS);
    test.fails(Error::not_found("gone"));
    let answer = test.gets(other, &key).await.expect("stale");
    assert_eq!(answer.1, Source::Stale);
    test.until_loads(2).await;
    tokio::task::yield_now().await;
    for error in [Error::not_found("gone"), down()] {
        test.fails(error.clone());
        let failed = test.gets(owner, &key).await.expect_err("gone");
        assert_eq!(failed.kind(), error.kind());
    }
}

#[tokio::test]
async fn a_hot_copy_is_never_a_stale_value() {
    let test = cluster_of(3, if_error());
    let (key, owner, other) = test.key_and_ranks();
    for _ in 0..=HOT_AFTER {
        test.gets(other, &key).await.expect("a value");
    }
    assert_eq!(test.gets(other, &key).await.expect("a copy").1, Source::Hit);
    test.fails(down());
    test.at(TTL_MS);
    let owner_s = test.gets(other, &key).await.expect("the owner's");
    assert_eq!(owner_s.1, Source::Stale);
    test.peers.down.lock().insert(format!("n{owner}").into());
    assert!(test.gets(other, &key).await.is_err());
}

/// An entry of a member that leaves while the origin is down.
#[tokio::test]
async fn an_old_value_is_handed_over_with_what_is_left_of_its_window() {
    let test = cluster_of(3, if_error());
    let (key, owner, _) = test.key_and_ranks();
    test.fails(down());
    test.at(1_000_000);
    let parcel = |if_error| Parcel {
        group: "users".into(),
        key: key.as_str().into(),
        what: Handed::Over(Record {
            value: Some("old".into()),
            expires_at: Timestamp(1_000_000),
            stale: Stale {
                if_error: Timestamp(if_error),
                ..Stale::NEVER
            },
            entity_tag: 1,
            metadata: Metadata::NONE,
        }),
        use_count: 1,
        copy: false,
    };
    let sender = Sender {
        member: IdHash(7),
        revision: 1,
    };
    let accept = |if_error| test.groups[owner].accept(&parcel(if_error), sender);
    assert_eq!(accept(1_000_000), Fate::Refused, "its window is over");
    assert_eq!(accept(1_005_000), Fate::Kept);
    assert_eq!(accept(1_009_000), Fate::Known, "no better than it");
    let answer = test.gets(owner, &key).await.expect("stale");
    assert_eq!(answer, answered("old", Source::Stale));
    test.at(1_005_000);
    assert!(test.gets(owner, &key).await.is_err());
}

#[tokio::test]
async fn no_life_is_longer_than_the_longest() {
    let rules = GroupRules {
        ttl: None,
        max_ttl: Some(Duration::from_millis(500)),
        ..rules()
    };
    let test = cluster_of(1, rules);
    let life = |said| test.groups[0].life(said, KeyHash(1), Timestamp(100));
    let ends = |said| life(said).expires_at;
    assert_eq!(ends(Freshness::Unsaid), Timestamp(600));
    let millis = |millis| Freshness::For(Duration::from_millis(millis));
    assert_eq!(ends(millis(499)), Timestamp(599));
    assert_eq!(ends(millis(501)), Timestamp(600));
    assert!(life(Freshness::Uncacheable).uncacheable);
}
