//! Several keys at once: messages, loads, errors, values that are too large for a batch.

use futures::StreamExt;
use tokio::time::timeout;

use super::*;
use crate::{
    error::Result,
    metadata::Metadata,
    ports::{LoadQueue, LoadTurn, Reloaded},
};

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key-{number}")).collect()
}

/// The answers, in the order of the keys.
async fn all(group: &Arc<Group>, keys: &[String]) -> Vec<Result<Answer>> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut answers: Vec<_> = group.get_many(&keys).collect().await;
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn messages(test: &TestCluster) -> (usize, usize) {
    let net = &test.peers;
    (
        net.batches.load(Ordering::SeqCst),
        net.fetches.load(Ordering::SeqCst),
    )
}

#[tokio::test]
async fn the_keys_of_an_owner_leave_in_one_message_and_each_is_loaded_once() {
    let test = cluster(5);
    let keys = keys(1_000);
    for round in 0..2 {
        let answers = all(&test.groups[0], &keys).await;
        for (key, answer) in keys.iter().zip(answers) {
            assert_eq!(answer.expect("a value").value, format!("{key} v1"));
        }
        assert_eq!(messages(&test), (4 * (round + 1), 0));
    }
    assert_eq!(test.loads(), 1_000);
    assert_eq!(test.origin.batches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_origin_that_takes_batches_is_asked_for_the_missing_keys_of_an_owner_at_once() {
    let test = cluster(5);
    test.origin.batch.store(2_000, Ordering::SeqCst);
    let keys = keys(1_000);
    let owner_has = test.groups[0].get("key-7").await;
    assert!(owner_has.is_ok());
    for answer in all(&test.groups[0], &keys).await {
        assert!(answer.is_ok());
    }
    assert_eq!(
        test.origin.batches.load(Ordering::SeqCst),
        5,
        "one an owner"
    );
    assert_eq!(test.loads(), 1_000, "key-7 was there");
    test.origin.batch.store(10, Ordering::SeqCst);
    let missing: Vec<String> = (0..100).map(|number| format!("other-{number}")).collect();
    all(&test.groups[0], &missing).await;
    let batches = test.origin.batches.load(Ordering::SeqCst) - 5;
    assert!((10..=14).contains(&batches), "ten keys each: {batches}");
}

#[tokio::test]
async fn each_key_has_an_error_of_its_own_and_twice_the_same_key_is_loaded_once() {
    let test = cluster(3);
    let keys = ["a", "", "a", &"k".repeat(MAX_KEY_BYTES), "b"].map(str::to_owned);
    let answers = all(&test.groups[0], &keys).await;
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| {
            answer
                .as_ref()
                .map(|it| it.value.clone())
                .map_err(Error::kind)
        })
        .collect();
    assert_eq!(kinds[0], Ok("a v1".into()));
    assert_eq!(kinds[1], Err(ErrorKind::InvalidRequest));
    assert_eq!(kinds[2], Ok("a v1".into()));
    assert_eq!(kinds[3], Err(ErrorKind::ValueTooLarge));
    assert_eq!(kinds[4], Ok("b v1".into()));
    assert_eq!(test.loads(), 3);
}

#[tokio::test]
async fn the_keys_of_an_owner_that_is_down_go_to_their_stand_ins_one_by_one() {
    let test = cluster(3);
    test.peers.down.lock().insert("n1".into());
    let keys = keys(60);
    for (key, answer) in keys.iter().zip(all(&test.groups[0], &keys).await) {
        assert_eq!(answer.expect("a value").value, format!("{key} v1"));
    }
    assert_eq!(test.loads(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_no_answers_holds_up_nobody_who_shares_its_flights() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    let unread = test.groups[other].get_many(&["", &key, "b", "c"]);
    let get = test.groups[other].get(&key);
    let get = timeout(Duration::from_secs(60), get).await;
    assert_eq!(
        get.expect("not held up").expect("a value").value,
        "alice v1"
    );
    drop(unread);
}

#[tokio::test]
async fn what_is_large_or_past_the_room_of_a_batch_is_fetched_alone_and_never_loaded_twice() {
    assert!(!Room::default().take((64 << 10) + 1));
    let room = Room::default();
    assert_eq!((0..100).filter(|_| room.take(64 << 10)).count(), 64);
    let rules = GroupRules {
        max_value: 1 << 20,
        ..group_rules()
    };
    let test = cluster_with(2, rules, 64 << 20);
    test.origin.padding.store(64 << 10, Ordering::SeqCst);
    for round in 0..2 {
        let answers = all(&test.groups[0], &keys(20)).await;
        assert!(answers.iter().all(Result::is_ok));
        let (batches, alone) = messages(&test);
        assert_eq!(batches, round + 1);
        assert!(alone > 0 && alone < 40, "those of the other node: {alone}");
    }
    assert_eq!(test.loads(), 20);
}

/// The answers of a batch whose keys memory doesn't have, in their order.
async fn all_held_first(group: &Arc<Group>, keys: &[String]) -> Vec<Result<Answer>> {
    let places: Vec<usize> = (0..keys.len()).collect();
    let mut answers = group.get_batch(&keys.into(), &places).concat().await;
    answers.sort_unstable_by_key(|(place, _)| *place);
    let came: Vec<usize> = answers.iter().map(|(place, _)| *place).collect();
    assert_eq!(came, places, "one answer a key");
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn what_owners_hold_comes_without_a_flight_and_the_rest_is_loaded_once_each() {
    let test = cluster(3);
    let (keys, held) = (keys(60), || test.peers.held.load(Ordering::SeqCst));
    for key in keys.iter().step_by(2) {
        test.groups[1].get(key).await.expect("a value");
    }
    for round in 0..2 {
        let answers = all_held_first(&test.groups[0], &keys).await;
        let owners = test.clusters[0].snapshot();
        for (key, answer) in keys.iter().zip(answers) {
            let answer = answer.expect("a value");
            assert_eq!(answer.value, format!("{key} v1"));
            let owner = owners.owner_id(test.groups[0].hash(key));
            assert_eq!(Some(&answer.owner), owner);
            let is_peer_s = &*answer.owner != "n0";
            assert!(round == 0 || (answer.source == Source::Peer) == is_peer_s);
        }
        assert_eq!(held(), 2 * (round + 1), "one message an owner");
        let (batches, _) = messages(&test);
        assert_eq!(batches, 2, "only for what they had to load");
        assert_eq!(test.loads(), 60);
    }
    let none = test.groups[0]
        .get_batch(&Vec::new().into(), &[])
        .count()
        .await;
    assert_eq!(none, 0);
}

#[tokio::test]
async fn what_no_owner_brings_is_asked_for_by_the_rules_of_a_get() {
    let test = cluster(3);
    let keys = ["", "a", "a", "b", &"k".repeat(MAX_KEY_BYTES)].map(str::to_owned);
    test.peers.down.lock().insert("n1".into());
    let answers = all_held_first(&test.groups[0], &keys).await;
    let kinds: Vec<_> = answers
        .iter()
        .map(|it| it.as_ref().map(|it| &*it.value).map_err(Error::kind))
        .collect();
    assert_eq!(kinds[0], Err(ErrorKind::InvalidRequest));
    assert_eq!(kinds[1..3], [Ok(&b"a v1"[..]), Ok(b"a v1")]);
    assert_eq!(kinds[3], Ok(&b"b v1"[..]));
    assert_eq!(kinds[4], Err(ErrorKind::ValueTooLarge));
    // Outside the fence, nobody is asked for what it holds.
    let before = test.peers.held.load(Ordering::SeqCst);
    test.standings[0].fence.end();
    let answers = all_held_first(&test.groups[0], &keys[1..4]).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(test.peers.held.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_key_that_is_often_asked_for_in_batches_is_kept_here() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    for _ in 0..=HOT_AFTER {
        let answers = all_held_first(&test.groups[other], std::slice::from_ref(&key)).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    let answer = test.groups[other].get(&key).await.expect("a value");
    assert_eq!(answer.source, Source::Hit);
}

#[tokio::test]
async fn an_owner_s_value_whose_time_ends_on_the_way_is_fetched_anew() {
    let test = cluster(3);
    let (key, owner, other) = test.key_and_ranks();
    test.groups[owner].get(&key).await.expect("a value");
    let (clock, back) = (test.clock.clone(), format!("n{other}"));
    *test.peers.passing.lock() = Some(Arc::new(Box::new(move |_: &str, to: &str| {
        if *to == *back {
            clock.0.store(TTL_MS, Ordering::SeqCst);
        }
        Box::pin(std::future::ready(true))
    })));
    test.origin.version.store(2, Ordering::SeqCst);
    let answers = all_held_first(&test.groups[other], &[key]).await;
    let answer = answers.into_iter().next().expect("one").expect("a value");
    assert_eq!(answer.value, "alice v2");
}

#[tokio::test]
async fn a_removal_grounds_the_flights_of_a_batch() {
    let test = cluster(3);
    let (key, _, other) = test.key_and_ranks();
    test.hold_origin();
    let group = test.groups[other].clone();
    let asked = key.clone();
    let batch = tokio::spawn(async move { all(&group, &[asked, "b".into()]).await });
    test.until_loads(2).await;
    test.origin.version.store(2, Ordering::SeqCst);
    test.groups[other].remove(&key).await.expect("removed");
    test.origin.permits.add_permits(10);
    let answers = batch.await.expect("no panic");
    assert!(answers.iter().all(Result::is_ok));
    for group in &test.groups {
        let answer = group.get(&key).await.expect("a value");
        assert_eq!(answer.value, "alice v2");
    }
}

/// Batches wait for their turn, which never comes, and are given up there if nobody wants them.
#[derive(Default)]
struct Waiting(AtomicUsize);

#[async_trait]
impl LoadQueue for Waiting {
    async fn ask(
        &self,
        _: &str,
        _: Option<&Metadata>,
        _: LoadTurn<'_>,
    ) -> Result<Reloaded, crate::error::BoxError> {
        std::future::pending().await
    }

    fn batch_size(&self) -> usize {
        100
    }

    async fn ask_many(
        &self,
        keys: &[&str],
        turn: LoadTurn<'_>,
    ) -> Vec<Result<Loaded, crate::error::BoxError>> {
        turn.abandoned.await;
        self.0.fetch_add(keys.len(), Ordering::SeqCst);
        Vec::new()
    }
}

#[tokio::test]
async fn a_batch_that_waits_is_given_up_when_the_last_caller_of_its_last_key_has_gone() {
    let test = cluster(1);
    let (origin, group) = (Arc::<Waiting>::default(), &test.groups[0]);
    group.adjust(Wanted {
        rules: group_rules(),
        origin: origin.clone(),
    });
    let keys = keys(10);
    let mut batch = Box::pin(all(group, &keys));
    assert!(futures::poll!(&mut batch).is_pending());
    let mut other = Box::pin(group.get(&keys[7]));
    assert!(futures::poll!(&mut other).is_pending());
    let turns = async || {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    turns().await;
    drop(batch);
    turns().await;
    assert_eq!(origin.0.load(Ordering::SeqCst), 0, "one is waited for");
    assert_eq!(group.local.len(), 10, "so all stay on the table");
    drop(other);
    turns().await;
    assert_eq!(origin.0.load(Ordering::SeqCst), 10);
    assert!(group.local.is_empty());
}
