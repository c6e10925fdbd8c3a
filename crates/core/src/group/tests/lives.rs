//! A life begins when the origin is asked: a value may have changed there while it was under way.

use futures::StreamExt;

use super::*;
use crate::{error::Result, ports::Clock};

const SLOW: u64 = 20_000;

impl TestCluster {
    /// Gets these keys at a node, as one batch if there are several. The loads, of which so many
    /// were before, end only after that time.
    async fn load_slowly(&self, node: usize, keys: &[&str], millis: u64) -> Vec<Result<Answer>> {
        let (began, before) = (self.clock.now().0, self.loads());
        self.hold_origin();
        let group = &self.groups[node];
        let get = async {
            match keys {
                [key] => vec![group.get(key).await],
                keys => group.get_many(keys).map(|it| it.1).collect().await,
            }
        };
        let end = async {
            self.until_loads(before + keys.len()).await;
            self.at(began + millis);
            self.origin.permits.add_permits(Semaphore::MAX_PERMITS);
        };
        tokio::join!(get, end).0
    }

    /// Where a get of the key is answered from.
    async fn source(&self, node: usize, key: &str) -> Result<Source> {
        Ok(self.groups[node].get(key).await?.source)
    }
}

/// Asked one by one, and as a batch of the origin, of which the loads share one beginning.
#[tokio::test]
async fn the_time_that_a_load_took_is_part_of_the_life_of_its_value() {
    for (keys, batch) in [(&["k"][..], 1), (&["k", "l", "m"], 10)] {
        let test = cluster(1);
        test.origin.batch.store(batch, Ordering::SeqCst);
        for answer in test.load_slowly(0, keys, SLOW).await {
            let answer = answer.expect("loaded");
            assert_eq!(answer.source, Source::Origin);
            assert_eq!(answer.expires_at, Timestamp(TTL_MS));
        }
        assert_eq!(test.origin.batches.load(Ordering::SeqCst), batch / 10);
        test.at(TTL_MS - 1);
        assert_eq!(test.source(0, "k").await.expect("kept"), Source::Hit);
        test.at(TTL_MS);
        assert_eq!(test.source(0, "k").await.expect("loads"), Source::Origin);
    }
}

#[tokio::test]
async fn so_it_is_of_a_renewal_and_of_the_word_that_there_is_no_such_key() {
    let test = cluster_of(
        1,
        GroupRules {
            negative_ttl: Duration::from_millis(TTL_MS),
            stale_if_error: Duration::from_millis(TTL_MS),
            ..group_rules()
        },
    );
    test.origin.is_tagged.store(true, Ordering::SeqCst);
    assert_eq!(test.source(0, "k").await.expect("loads"), Source::Origin);
    test.at(TTL_MS);
    let renewed = test.load_slowly(0, &["k"], SLOW).await.remove(0);
    assert_eq!(test.origin.unchanged.load(Ordering::SeqCst), 1);
    assert_eq!(renewed.expect("renewed").expires_at, Timestamp(2 * TTL_MS));

    test.fails(Error::not_found("none"));
    let nothing = test.load_slowly(0, &["other"], SLOW).await.remove(0);
    assert_eq!(nothing.expect_err("none").kind(), ErrorKind::NotFound);
    let asked = TTL_MS + SLOW;
    test.fails(None);
    test.at(asked + TTL_MS - 1);
    assert!(test.source(0, "other").await.is_err(), "remembered");
    test.at(asked + TTL_MS);
    let source = test.source(0, "other").await.expect("loads");
    assert_eq!(source, Source::Origin);
}

#[tokio::test]
async fn a_value_whose_load_outlasts_its_life_is_answered_and_not_kept() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    for (node, loads) in [(owner, 1), (other, 2), (other, 3)] {
        let answer = test.load_slowly(node, &[&key], TTL_MS).await.remove(0);
        assert_eq!(answer.expect("who waits has it").source, Source::Origin);
        assert_eq!(test.loads(), loads);
    }
    assert!(test.groups[owner].shared.owned.is_empty(), "not even kept");
    assert!(test.groups[other].shared.hot.is_empty());

    // It may be what is served as a stale one: then it is kept for that.
    let test = cluster_of(
        3,
        GroupRules {
            stale_while_revalidate: Duration::from_millis(SLOW),
            ..group_rules()
        },
    );
    let took = TTL_MS + SLOW - 1;
    let answer = test.load_slowly(owner, &[&key], took).await.remove(0);
    assert_eq!(answer.expect("loaded").source, Source::Origin);
    let source = test.source(owner, &key).await.expect("at once");
    assert_eq!(source, Source::Stale);
}

#[tokio::test]
async fn a_load_ahead_that_outlasts_the_new_life_leaves_no_old_value() {
    let test = cluster_of(
        1,
        GroupRules {
            refresh_ahead: true,
            ..group_rules()
        },
    );
    assert_eq!(test.source(0, "k").await.expect("loads"), Source::Origin);
    test.groups[0].ahead.took(Duration::from_secs(3600));
    test.origin.version.store(2, Ordering::SeqCst);
    test.at(TTL_MS - 1);
    test.hold_origin();
    assert_eq!(test.source(0, "k").await.expect("at once"), Source::Hit);
    test.until_loads(2).await;
    // Who asks now waits for the load that is under way.
    test.at(2 * TTL_MS);
    let get = test.source(0, "k");
    let end = async {
        tokio::task::yield_now().await;
        test.origin.permits.add_permits(Semaphore::MAX_PERMITS);
    };
    assert_eq!(tokio::join!(get, end).0.expect("late"), Source::Origin);
    assert_eq!(test.loads(), 2);
    assert!(test.groups[0].shared.owned.is_empty());
}
