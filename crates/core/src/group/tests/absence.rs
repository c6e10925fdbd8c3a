//! What an origin says in place of a value: everybody gets it, for as long as the absence is
//! remembered, and never as a value.

use super::*;
use crate::{
    absence::{MAX_NOT_FOUND_BODY, NotFoundBody},
    metadata::Metadata,
};

const NEGATIVE_TTL: u64 = 5_000;

fn body(text: impl Into<Bytes>) -> NotFoundBody {
    let html = Metadata::new([("content-type", "text/html")]).expect("good");
    NotFoundBody::new(text, html)
}

/// Three nodes whose origin has no key, and says this of each.
fn nothing(negative_ttl: u64, body: NotFoundBody) -> TestCluster {
    let rules = GroupRules {
        negative_ttl: Duration::from_millis(negative_ttl),
        stale_while_revalidate: Duration::from_secs(3600),
        stale_if_error: Duration::from_secs(3600),
        max_value: 1 << 16,
        ..group_rules()
    };
    let test = cluster_of(3, rules);
    test.origin_says(Error::not_found("nobody").with_source(body));
    test
}

impl TestCluster {
    fn origin_says(&self, error: Error) {
        *self.origin.answer.lock() = Some(error);
    }

    /// What comes with the error that a get ends with.
    async fn absent(&self, node: usize, key: &str) -> Option<NotFoundBody> {
        let error = self.groups[node].get(key).await.expect_err("absent");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        NotFoundBody::of(&error).cloned()
    }
}

#[tokio::test]
async fn the_body_of_absence_reaches_all_nodes_and_their_copies_until_it_is_forgotten_or_removed() {
    let test = nothing(NEGATIVE_TTL, body("nobody"));
    let (key, owner, other) = test.key_and_ranks();
    for _ in 0..=HOT_AFTER {
        for node in 0..3 {
            assert_eq!(test.absent(node, &key).await, Some(body("nobody")));
        }
    }
    assert_eq!(test.loads(), 1);
    let explained = test.groups[owner].explain(&key).await.expect("explained");
    let held = explained.owned.expect("held");
    assert_eq!(held.bytes, None, "no value");

    test.groups[other].remove(&key).await.expect("removed");
    assert_eq!(test.absent(other, &key).await, Some(body("nobody")));
    assert_eq!(test.loads(), 2);

    test.clock.0.fetch_add(NEGATIVE_TTL, Ordering::SeqCst);
    test.origin_says(Error::origin_failed("down"));
    let failed = test.groups[owner].get(&key).await.expect_err("down");
    assert_eq!(failed.kind(), ErrorKind::OriginFailed, "never stale");
}

#[tokio::test]
async fn who_waits_gets_the_body_of_absence_that_is_not_kept() {
    let test = nothing(0, body("nobody"));
    let (key, owner, other) = test.key_and_ranks();
    for node in [owner, other] {
        assert_eq!(test.absent(node, &key).await, Some(body("nobody")));
    }
    assert_eq!(test.loads(), 2);
}

#[tokio::test]
async fn a_large_body_of_absence_is_left_out_and_a_value_comes_after_it() {
    let fits = body(vec![b'x'; MAX_NOT_FOUND_BODY]);
    let test = nothing(NEGATIVE_TTL, fits.clone());
    let (key, owner, other) = test.key_and_ranks();
    assert!(test.absent(other, &key).await == Some(fits));
    let large = body(vec![b'x'; MAX_NOT_FOUND_BODY + 1]);
    test.origin_says(Error::not_found("nobody").with_source(large));
    test.clock.0.fetch_add(NEGATIVE_TTL, Ordering::SeqCst);
    assert_eq!(test.absent(other, &key).await, None);
    test.clock.0.fetch_add(NEGATIVE_TTL, Ordering::SeqCst);
    *test.origin.answer.lock() = None;
    for node in [other, owner] {
        let answer = test.groups[node].get(&key).await.expect("a value");
        assert!(answer.metadata.is_empty());
    }
}

#[test]
fn what_another_node_says_in_place_of_a_value_is_bounded_and_lives_as_absence_does() {
    let rules = GroupRules {
        negative_ttl: Duration::from_millis(NEGATIVE_TTL),
        stale_if_error: Duration::from_secs(3600),
        ..group_rules()
    };
    let never = Timestamp::NEVER;
    let record = |bytes: usize| {
        let nothing = Record {
            value: None,
            expires_at: never,
            stale: crate::record::Stale {
                while_revalidating: never,
                if_error: never,
            },
            entity_tag: 0,
            metadata: Metadata::NONE,
        };
        nothing.with_absence(&body(vec![b'x'; bytes]))
    };
    let little = record(9).with_little_absence(9);
    assert_eq!(little, record(9));
    let within = rules.within_life(&little, Timestamp(0)).expect("some life");
    assert_eq!(within.expires_at, Timestamp(NEGATIVE_TTL));
    assert_eq!(within.stale, crate::record::Stale::NEVER);
    for (bytes, most) in [(10, 9), (MAX_NOT_FOUND_BODY + 1, u64::MAX)] {
        let cut = record(bytes).with_little_absence(most);
        assert!(cut.value.is_none() && cut.is_absent() && cut.metadata.is_empty());
    }
}
