//! A guard before an origin: turns, limits, ramp and batches.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::*;
use crate::{
    clock::MonotonicClock,
    origin::{breaker::BreakerRules, pause::pause},
};
use gaocache_core::ports::{Asked, Clock, Timestamp, loader};

pub(in super::super) struct Nobody;
impl LoadObserver for Nobody {
    fn loaded(&self, _key: &str, _took: Duration, _outcome: Result<usize, &Error>) {}
    fn renewed(&self) {}
    fn hedged(&self, _won: bool) {}
    fn saved(&self, _bytes: u64) {}
    fn refused_by_breaker(&self) {}
    fn breaker(&self, _state: BreakerState) {}
}

/// The turn of a load that no group has asked for.
fn anyway() -> LoadTurn<'static> {
    LoadTurn::anyway(Asked::by(Arc::new(MonotonicClock)))
}

impl Guarded {
    async fn load(&self, key: &str) -> Result<Reloaded, BoxError> {
        self.ask(key, None, anyway()).await
    }

    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
        self.ask_many(keys, anyway()).await
    }
}

#[tokio::test]
async fn while_the_ramp_holds_them_back_loads_wait_and_all_come_through() {
    let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (runs, peak) = (running.clone(), most.clone());
    let slow = loader(move |_| {
        let (running, most) = (runs.clone(), peak.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Error>("v")
        }
    });
    let bounds = Bounds {
        max_concurrency: 20,
        max_queue: 100,
        ramp: Duration::from_secs(3600),
        ..Bounds::default()
    };
    let origin = Guarded::new(slow, Arc::new(Nobody), bounds);
    let loads = (0..50).map(|_| origin.load("k"));
    let loaded = futures::future::join_all(loads).await;
    assert!(loaded.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), 2, "a tenth of twenty");
}

/// An origin with room for one load and one that waits. A load runs until the gate is
/// notified; those that began are counted.
fn one_at_a_time() -> (Guarded, Arc<Notify>, Arc<AtomicUsize>) {
    let (gate, begun) = (Arc::new(Notify::new()), Arc::<AtomicUsize>::default());
    let (waiting, count) = (gate.clone(), begun.clone());
    let slow = loader(move |_| {
        let (gate, begun) = (waiting.clone(), count.clone());
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok::<_, Error>("v")
        }
    });
    let bounds = Bounds {
        max_concurrency: 1,
        max_queue: 1,
        ..Bounds::default()
    };
    (Guarded::new(slow, Arc::new(Nobody), bounds), gate, begun)
}

#[tokio::test]
async fn past_the_queue_a_load_is_refused_at_once() {
    let (origin, gate, _) = one_at_a_time();
    let (first, second, third) = tokio::join!(
        origin.load("1"),
        async {
            let second = origin.load("2");
            tokio::pin!(second);
            // Takes its place in the queue before the third arrives.
            assert!(futures::poll!(second.as_mut()).is_pending());
            gate.notify_one();
            gate.notify_one();
            let third = origin.load("3").await;
            gate.notify_one();
            (second.await, third)
        },
        async {}
    );
    let () = third;
    assert!(first.is_ok());
    let (second, third) = second;
    gate.notify_one();
    assert!(second.is_ok());
    let refused = Error::from_loader(third.unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_hangs_ends_as_a_timeout_and_frees_its_place() {
    let hangs = loader(async |key: String| {
        if key == "hangs" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Error>("v")
    });
    let bounds = Bounds {
        max_concurrency: 1,
        ..Bounds::default()
    };
    let origin = Guarded::new(hangs, Arc::new(Nobody), bounds);
    let (hung, next) = tokio::join!(origin.load("hangs"), origin.load("next"));
    let hung = Error::from_loader(hung.expect_err("never loads"));
    assert_eq!(hung.kind(), ErrorKind::OriginTimeout);
    assert!(next.is_ok());
}

/// Ten minutes without an origin, with a get every 10 ms: one probe a second.
#[tokio::test(start_paused = true)]
async fn a_dead_origin_is_asked_once_a_second_and_a_slow_one_holds_nobody_up() {
    let (asked, down) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicUsize::new(1)));
    let (count, is_down) = (asked.clone(), down.clone());
    let dies = loader(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let down = is_down.load(Ordering::SeqCst);
        async move {
            match down {
                0 => Ok("v"),
                1 => Err(Error::origin_failed("down")),
                _ => std::future::pending().await,
            }
        }
    });
    let bounds = Bounds {
        max_concurrency: 1,
        load_timeout: Duration::from_secs(2),
        breaker: Some(BreakerRules::default()),
        ..Bounds::default()
    };
    let origin = Guarded::new(dies, Arc::new(Nobody), bounds);
    for _ in 0..60_000 {
        assert!(origin.load("k").await.is_err());
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let asked = asked.load(Ordering::SeqCst);
    println!("dead for ten minutes, 60,000 gets: asked {asked} times");
    assert!((500..=620).contains(&asked), "{asked} in ten minutes");

    // The probe hangs: the others are refused meanwhile.
    down.store(2, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut probe = Box::pin(origin.load("k"));
    assert!(futures::poll!(probe.as_mut()).is_pending());
    let refused = timeout(Duration::from_secs(60), origin.load("k")).await;
    let refused = refused.expect("not held up").expect_err("refused");
    let refused = Error::from_loader(refused);
    assert_eq!(refused.kind(), ErrorKind::BreakerOpen);
    let failed = Error::from_loader(probe.await.expect_err("hung"));
    assert_eq!(failed.kind(), ErrorKind::OriginTimeout);

    down.store(0, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert!(origin.load("k").await.is_ok(), "it is back");
    }
}

/// Takes batches of any size, and notes how large they are.
struct Batches(AtomicUsize);

#[async_trait]
impl Origin for Batches {
    async fn load(&self, _key: &str) -> Result<Loaded, BoxError> {
        Ok("alone".into())
    }
    fn batch_size(&self) -> usize {
        usize::MAX
    }
    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if keys.contains(&"hangs") {
            std::future::pending::<()>().await;
        }
        let load = |key: &&str| match *key {
            "broken" => Err(Error::origin_failed("broken").into()),
            _ => Ok("v".into()),
        };
        keys.iter().map(load).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_one_place_and_one_time_limit_and_each_key_has_its_outcome() {
    let batches = Arc::new(Batches(AtomicUsize::new(0)));
    let bounds = Bounds {
        max_concurrency: 1,
        max_queue: 1,
        breaker: Some(BreakerRules::default()),
        ..Bounds::default()
    };
    let origin = Guarded::new(batches.clone(), Arc::new(Nobody), bounds);
    assert_eq!(origin.batch_size(), usize::MAX);
    // Were one broken key the origin's failure, the breaker would open.
    for _ in 0..100 {
        let loaded = origin.load_many(&["1", "broken", "2"]).await;
        let is_ok: Vec<bool> = loaded.iter().map(Result::is_ok).collect();
        assert_eq!(is_ok, [true, false, true]);
    }
    assert_eq!(batches.0.load(Ordering::SeqCst), 100);
    let (hung, waits, refused) = tokio::join!(
        origin.load_many(&["hangs", "3"]),
        origin.load_many(&["4"]),
        origin.load_many(&["5", "6"]),
    );
    let kinds = |loaded: Vec<Result<Loaded, BoxError>>| -> Vec<Option<ErrorKind>> {
        let kind =
            |it: Result<Loaded, BoxError>| it.err().map(|error| Error::from_loader(error).kind());
        loaded.into_iter().map(kind).collect()
    };
    assert_eq!(kinds(hung), [Some(ErrorKind::OriginTimeout); 2]);
    assert_eq!(kinds(waits), [None]);
    assert_eq!(kinds(refused), [Some(ErrorKind::Overloaded); 2]);
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_is_given_up_in_the_queue_but_not_once_it_runs() {
    let (origin, gate, begun) = one_at_a_time();
    let given_up = || LoadTurn {
        abandoned: Box::pin(std::future::ready(())),
        ..anyway()
    };
    let mut runs = origin.ask("1", None, given_up());
    assert!(futures::poll!(runs.as_mut()).is_pending());
    let queued = origin.ask("2", None, given_up());
    assert!(queued.await.is_err(), "given up");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    gate.notify_one();
    assert!(runs.await.is_ok(), "goes on");
}

/// Shows the time of the test.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp(0).after(self.0.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn the_origin_is_asked_when_the_attempt_begins_that_brings_the_value() {
    const SECOND: Duration = Duration::from_secs(1);
    let attempts = loader(async |key: String| {
        if key == "fails at first" {
            tokio::time::sleep(SECOND).await;
            pause(SECOND).await;
        }
        tokio::time::sleep(SECOND).await;
        Ok::<_, Error>("v")
    });
    let bounds = Bounds {
        max_concurrency: 1,
        ..Bounds::default()
    };
    let origin = Guarded::new(attempts, Arc::new(Nobody), bounds);
    let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
    let [again, waits, many] = [(); 3].map(|()| Asked::by(clock.clone()));
    let load = |key, asked: &Asked| origin.ask(key, None, LoadTurn::anyway(asked.clone()));
    let (first, second, third) = tokio::join!(
        load("fails at first", &again),
        load("waits", &waits),
        origin.ask_many(&["waits longer"], LoadTurn::anyway(many.clone())),
    );
    assert!(first.is_ok() && second.is_ok() && third.iter().all(Result::is_ok));
    let asked = [again, waits, many].map(|it| it.at().since(Timestamp(0)));
    assert_eq!(asked, [SECOND * 2, SECOND * 3, SECOND * 4]);
}

/// Loads take a millisecond, and while `stuck` is set, they never end. Calls are counted.
fn hedged(bounds: Bounds) -> (Guarded, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (calls, stuck) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (count, is_stuck) = (calls.clone(), stuck.clone());
    let load = loader(move |key: String| {
        count.fetch_add(1, Ordering::SeqCst);
        let stuck = is_stuck.load(Ordering::SeqCst) == 1;
        async move {
            match key.as_str() {
                _ if stuck => std::future::pending().await,
                "fails" => Err(Error::origin_failed("down")),
                _ => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok("v")
                }
            }
        }
    });
    let bounds = Bounds {
        hedge: true,
        ..bounds
    };
    (Guarded::new(load, Arc::new(Nobody), bounds), calls, stuck)
}

/// How often the origin is asked for a load that hangs, after two hundred that did not.
async fn asked_for_one_that_hangs(bounds: Bounds, before: &[&str]) -> usize {
    let (origin, calls, stuck) = hedged(bounds);
    for _ in 0..200 {
        assert!(origin.load("k").await.is_ok());
    }
    for key in before {
        let _ = origin.load(key).await;
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let asked = calls.load(Ordering::SeqCst);
    stuck.store(1, Ordering::SeqCst);
    let hung = timeout(Duration::from_secs(10), origin.load("k")).await;
    assert!(hung.is_err(), "hangs");
    calls.load(Ordering::SeqCst) - asked
}

#[tokio::test(start_paused = true)]
async fn a_load_is_begun_a_second_time_only_in_a_free_place_and_where_nothing_is_wrong() {
    let breaker = BreakerRules {
        failure_ratio: Some(0.01),
        ..BreakerRules::default()
    };
    let guarded = Bounds {
        breaker: Some(breaker),
        ..Bounds::default()
    };
    assert_eq!(asked_for_one_that_hangs(guarded, &[]).await, 2);
    let probe = asked_for_one_that_hangs(guarded, &["fails"; 3]).await;
    assert_eq!(probe, 1, "it finds out whether the origin is back");
    let alone = Bounds {
        max_concurrency: 1,
        ..Bounds::default()
    };
    assert_eq!(asked_for_one_that_hangs(alone, &[]).await, 1, "no place");
}

/// One load in twenty takes ten seconds.
#[tokio::test(start_paused = true)]
async fn hedged_loads_are_seldom_slow_and_one_in_twenty_is_begun_twice() {
    let calls = Arc::<AtomicUsize>::default();
    let count = calls.clone();
    let load = loader(move |_| {
        let slow = count.fetch_add(1, Ordering::SeqCst) % 20 == 19;
        async move {
            let takes = if slow { 10_000 } else { 10 };
            tokio::time::sleep(Duration::from_millis(takes)).await;
            Ok::<_, Error>("v")
        }
    });
    let bounds = Bounds {
        hedge: true,
        ..Bounds::default()
    };
    let origin = Guarded::new(load, Arc::new(Nobody), bounds);
    let mut slow = 0;
    for _ in 0..2_000 {
        let began = Instant::now();
        assert!(origin.load("k").await.is_ok());
        slow += usize::from(began.elapsed() > Duration::from_secs(1));
    }
    let calls = calls.load(Ordering::SeqCst);
    println!("2,000 loads, {calls} requests, {slow} slow");
    assert!(calls <= 2_100, "{calls} requests");
    assert!(slow <= 10, "{slow} slow loads");
}
