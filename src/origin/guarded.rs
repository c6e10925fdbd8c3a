//! Wraps every origin: limits how many loads run, how many wait, and how long one may take, refuses
//! them while the circuit breaker is open, and counts them. Clients take turns.
//!
//! A load whose callers have all gone is cancelled while it waits: in the queue, or between two
//! attempts. One that runs continues, because the origin is already working on it, unless the group
//! wants it otherwise.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tracing::Instrument;
use xxhash_rust::xxh3::xxh3_64;

use super::{bounds::Bounds, breaker::Breaker, pause::unless_abandoned, ramp::Ramp};
use crate::{fairness::ClientId, telemetry::trace};
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result},
    metadata::Metadata,
    ports::{BreakerState, LoadObserver, Loaded, Origin, Reloaded},
};

/// An origin with its limits.
pub struct Guarded {
    origin: Arc<dyn Origin>,
    observer: Arc<dyn LoadObserver>,
    bounds: Bounds,
    ramp: Ramp,
    breaker: Option<Breaker>,
}

/// Why a load did not begin.
enum NotBegun {
    /// All callers had given up before, or between two attempts.
    GivenUp,
    /// The breaker is open.
    Refused(Error),
    /// There was no room for it.
    NoRoom(Error),
}

impl Guarded {
    /// Wraps an origin in these limits.
    pub fn new(origin: Arc<dyn Origin>, observer: Arc<dyn LoadObserver>, bounds: Bounds) -> Self {
        let breaker = bounds.breaker;
        // The group may have had another origin before.
        observer.breaker(BreakerState::Closed);
        Self {
            origin,
            breaker: breaker.map(|rules| Breaker::new(rules, observer.clone())),
            observer,
            bounds,
            ramp: Ramp::new(bounds.max_concurrency, bounds.ramp),
        }
    }

    /// Runs a load, or a batch of loads, in its turn. `is_fault`: whether the outcome is the
    /// origin's fault.
    async fn in_turn<T>(
        &self,
        key: &str,
        mut abandoned: BoxFuture<'_, ()>,
        load: impl Future<Output = T>,
        is_fault: impl FnOnce(&T) -> bool,
    ) -> std::result::Result<T, NotBegun> {
        let breaker = self.breaker.as_ref();
        // Loads that hang may hold all places: no load should wait behind them.
        if let Some(Err(refused)) = breaker.map(|it| it.check(Instant::now())) {
            return Err(NotBegun::Refused(refused));
        }
        self.ramp.widen(Instant::now());
        let client = ClientId::current();
        let most = self.bounds.max_concurrency;
        let most = most.saturating_add(self.bounds.max_queue);
        let turn = tokio::select! {
            biased;
            turn = self.ramp.places().take(client, line_key(key), most) => turn,
            () = &mut abandoned => {
                trace::event("given up in the queue", None);
                return Err(NotBegun::GivenUp);
            }
        };
        let Ok(_running) = turn else {
            return Err(NotBegun::NoRoom(self.overloaded()));
        };
        trace::event("left the queue", None);
        // Once more: it may have opened while this load waited for its turn.
        let pass = match breaker.map(|it| it.admit(Instant::now())).transpose() {
            Ok(pass) => pass,
            Err(refused) => return Err(NotBegun::Refused(refused)),
        };
        let began = Instant::now();
        let anyway = self.bounds.cancel_abandoned;
        let Some(loaded) = unless_abandoned(load, abandoned, anyway).await else {
            trace::event("given up between two attempts", None);
            return Err(NotBegun::GivenUp);
        };
        let now = Instant::now();
        if pass.is_some_and(|pass| pass.ended(now - began, is_fault(&loaded), now)) {
            self.ramp.restart(now);
        }
        self.ramp.widen(now);
        Ok(loaded)
    }

    async fn load_many_in_time(&self, keys: &[&str]) -> Vec<Result<Loaded>> {
        match timeout(self.bounds.load_timeout, self.origin.load_many(keys)).await {
            Ok(loaded) => {
                let results = loaded.into_iter();
                results.map(|it| it.map_err(Error::from_loader)).collect()
            }
            Err(_) => vec![Err(self.too_slow()); keys.len()],
        }
    }

    async fn load_in_time(&self, key: &str, kept: Option<&Metadata>) -> Result<Reloaded> {
        let load = async {
            match kept {
                Some(kept) => self.origin.reload(key, kept).await,
                None => self.origin.load(key).await.map(Reloaded::Changed),
            }
        };
        match timeout(self.bounds.load_timeout, load).await {
            Ok(loaded) => loaded.map_err(Error::from_loader),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// What the callers get, and whether it counts as a load that failed.
    fn not_begun(&self, why: NotBegun) -> (Error, bool) {
        match why {
            NotBegun::NoRoom(error) => (error, true),
            NotBegun::Refused(error) => {
                self.observer.refused_by_breaker();
                (error, false)
            }
            NotBegun::GivenUp => {
                let what = "no caller waits for this load any more";
                (Error::new(ErrorKind::Overloaded, what), false)
            }
        }
    }

    fn overloaded(&self) -> Error {
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "loads from this origin: {} running and {} waiting (max_concurrency, max_queue)",
                self.bounds.max_concurrency, self.bounds.max_queue
            ),
        )
    }

    fn too_slow(&self) -> Error {
        Error::new(
            ErrorKind::OriginTimeout,
            format!(
                "the load took longer than {} s",
                self.bounds.load_timeout.as_secs_f64()
            ),
        )
    }
}

/// By which a load is found in the line.
fn line_key(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// Whether the load failed because of the state of the origin. A missing key or a value that is too
/// large say nothing about it, nor does a lack of memory here.
fn is_origins_fault<T>(loaded: &Result<T>) -> bool {
    let kind = loaded.as_ref().err().map(Error::kind);
    matches!(
        kind,
        Some(ErrorKind::OriginFailed | ErrorKind::OriginTimeout)
    )
}

#[async_trait]
impl Origin for Guarded {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let nobody = Box::pin(std::future::pending());
        match self.load_in_turn(key, None, nobody).await? {
            Reloaded::Changed(loaded) => Ok(loaded),
            _ => Err(Error::origin_failed("it calls unchanged what was not named to it").into()),
        }
    }

    fn batch_size(&self) -> usize {
        self.origin.batch_size()
    }

    /// A batch takes one place, and counts as one load for the breaker: as a failed one, if the
    /// origin answered for no key.
    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
        let load = async {
            let started = Instant::now();
            let nobody = Box::pin(std::future::pending());
            let load = self.load_many_in_time(keys);
            let all_fail = |loaded: &Vec<Result<Loaded>>| loaded.iter().all(is_origins_fault);
            let first = keys.first().copied().unwrap_or_default();
            let loaded = self.in_turn(first, nobody, load, all_fail).await;
            let loaded = match loaded.map_err(|it| self.not_begun(it)) {
                Ok(loaded) => loaded,
                Err((error, true)) => vec![Err(error); keys.len()],
                Err((error, false)) => {
                    return keys.iter().map(|_| Err(error.clone().into())).collect();
                }
            };
            for (key, loaded) in keys.iter().zip(&loaded) {
                let outcome = loaded.as_ref().map(|it| it.value.len());
                self.observer.loaded(key, started.elapsed(), outcome);
            }
            let results = loaded.into_iter();
            results.map(|it| it.map_err(Into::into)).collect()
        };
        load.instrument(trace::load_span()).await
    }

    async fn load_in_turn(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        abandoned: BoxFuture<'_, ()>,
    ) -> Result<Reloaded, BoxError> {
        let load = async {
            let started = Instant::now();
            let load = self.load_in_time(key, kept);
            let loaded = self.in_turn(key, abandoned, load, is_origins_fault).await;
            let result = match loaded.map_err(|it| self.not_begun(it)) {
                Ok(loaded) => loaded,
                Err((error, true)) => Err(error),
                Err((error, false)) => return Err(error.into()),
            };
            if let Ok(Reloaded::Unchanged { .. }) = &result {
                self.observer.renewed();
            }
            let outcome = result.as_ref().map(Reloaded::value_bytes);
            self.observer.loaded(key, started.elapsed(), outcome);
            result.map_err(Into::into)
        };
        load.instrument(trace::load_span()).await
    }

    fn also_wanted(&self, key: &str) {
        let places = self.ramp.places();
        places.also_for(ClientId::current(), line_key(key));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::sync::Notify;

    use super::*;
    use crate::origin::breaker::BreakerRules;
    use gaocache_core::ports::loader;

    pub(in super::super) struct Nobody;
    impl LoadObserver for Nobody {
        fn loaded(&self, _key: &str, _took: Duration, _outcome: Result<usize, &Error>) {}
        fn renewed(&self) {}
        fn refused_by_breaker(&self) {}
        fn breaker(&self, _state: BreakerState) {}
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
            let kind = |it: Result<Loaded, BoxError>| {
                it.err().map(|error| Error::from_loader(error).kind())
            };
            loaded.into_iter().map(kind).collect()
        };
        assert_eq!(kinds(hung), [Some(ErrorKind::OriginTimeout); 2]);
        assert_eq!(kinds(waits), [None]);
        assert_eq!(kinds(refused), [Some(ErrorKind::Overloaded); 2]);
    }

    #[tokio::test]
    async fn a_load_that_nobody_waits_for_is_given_up_in_the_queue_but_not_once_it_runs() {
        let (origin, gate, begun) = one_at_a_time();
        let mut runs = origin.load_in_turn("1", None, Box::pin(std::future::ready(())));
        assert!(futures::poll!(runs.as_mut()).is_pending());
        let queued = origin.load_in_turn("2", None, Box::pin(std::future::ready(())));
        assert!(queued.await.is_err(), "given up");
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        gate.notify_one();
        assert!(runs.await.is_ok(), "goes on");
    }
}
