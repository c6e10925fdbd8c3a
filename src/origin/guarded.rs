//! Wraps every origin: limits how many loads run, how many wait, and how long one may take, and
//! counts loads.
//!
//! A load that nobody waits for any more is given up while it waits for its turn. One that runs
//! goes on, since the origin has the work already.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::Instrument;

use crate::telemetry::trace;
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result},
    ports::{LoadObserver, Loaded, Origin},
};

/// An origin with its limits.
pub struct Guarded {
    origin: Arc<dyn Origin>,
    observer: Arc<dyn LoadObserver>,
    running: Semaphore,
    /// Counts the loads that run and those that wait.
    admitted: Semaphore,
    bounds: Bounds,
    ramp: Ramp,
}

/// Bound on what a load can take with all its waiting, whatever the limits say: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Limits on the loads from an origin.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of running loads.
    pub max_concurrency: usize,
    /// Maximum number of waiting loads.
    pub max_queue: usize,
    /// Time limit for a load once it runs, all its attempts included.
    pub load_timeout: Duration,
    /// The time, from the first load on, in which the concurrency grows from a tenth to all of
    /// `max_concurrency`; zero means no ramp.
    pub ramp: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_concurrency: 64,
            max_queue: 10_000,
            load_timeout: Duration::from_secs(30),
            ramp: Duration::ZERO,
        }
    }
}

impl Bounds {
    /// How long a load can take at most, if it is the last in a full queue of loads that all take
    /// as long as they may.
    pub fn longest_load(&self) -> Duration {
        let rounds = self.max_queue.div_ceil(self.max_concurrency.max(1));
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
        let running = self.load_timeout.saturating_mul(rounds);
        running.saturating_add(self.ramp).min(LONGEST)
    }

    /// What can't work.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`].
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Configuration, what));
        if self.max_concurrency == 0 {
            return wrong("max_concurrency must not be 0: no load could ever begin");
        }
        if self.load_timeout.is_zero() {
            return wrong("load_timeout must not be 0: no load could ever end in time");
        }
        Ok(())
    }
}

impl Guarded {
    /// Wraps an origin in these limits.
    pub fn new(origin: Arc<dyn Origin>, observer: Arc<dyn LoadObserver>, bounds: Bounds) -> Self {
        let permits = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        let ramp = Ramp::new(bounds);
        Self {
            origin,
            observer,
            running: permits(ramp.first),
            admitted: permits(bounds.max_concurrency.saturating_add(bounds.max_queue)),
            bounds,
            ramp,
        }
    }

    /// Lets as many more loads run as the ramp now allows. Every load calls this when it begins and
    /// when it ends, so it is called as long as any load waits.
    fn widen(&self) {
        let further = self.ramp.due(Instant::now());
        if further > 0 {
            self.running.add_permits(further);
        }
    }

    /// `None` if the load was given up before it ran.
    async fn queue_and_load(
        &self,
        key: &str,
        abandoned: BoxFuture<'_, ()>,
    ) -> Option<Result<Loaded>> {
        let Ok(_admitted) = self.admitted.try_acquire() else {
            return Some(Err(self.overloaded()));
        };
        self.widen();
        let running = tokio::select! {
            biased;
            running = self.running.acquire() => running,
            () = abandoned => {
                trace::event("given up in the queue", None);
                return None;
            }
        };
        let Ok(_running) = running else {
            return Some(Err(Error::new(
                ErrorKind::Internal,
                "the origin was closed",
            )));
        };
        trace::event("left the queue", None);
        let loaded = timeout(self.bounds.load_timeout, self.origin.load(key)).await;
        self.widen();
        Some(match loaded {
            Ok(loaded) => loaded.map_err(Error::from_loader),
            Err(_) => Err(self.too_slow()),
        })
    }

    fn overloaded(&self) -> Error {
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "{} loads from this origin are running and {} are waiting (max_concurrency, max_queue)",
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

/// Protects a cold origin: the concurrency limit grows linearly.
struct Ramp {
    first: usize,
    last: usize,
    over: Duration,
    began: OnceLock<Instant>,
    granted: AtomicUsize,
}

impl Ramp {
    fn new(bounds: Bounds) -> Self {
        let last = bounds.max_concurrency.min(Semaphore::MAX_PERMITS);
        let first = if bounds.ramp.is_zero() {
            last
        } else {
            last.div_ceil(10)
        };
        Self {
            first,
            last,
            over: bounds.ramp,
            began: OnceLock::new(),
            granted: AtomicUsize::new(first),
        }
    }

    /// How many more loads may run now than have been granted so far.
    fn due(&self, now: Instant) -> usize {
        if self.granted.load(Ordering::Relaxed) == self.last {
            return 0;
        }
        let began = *self.began.get_or_init(|| now);
        let done = (now - began).as_secs_f64() / self.over.as_secs_f64();
        let grown = ((self.last - self.first) as f64 * done.min(1.0)) as usize;
        let target = self.first + grown;
        let before = self.granted.fetch_max(target, Ordering::Relaxed);
        target.saturating_sub(before)
    }
}

#[async_trait]
impl Origin for Guarded {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        self.load_in_turn(key, Box::pin(std::future::pending()))
            .await
    }

    async fn load_in_turn(
        &self,
        key: &str,
        abandoned: BoxFuture<'_, ()>,
    ) -> Result<Loaded, BoxError> {
        let load = async {
            let started = Instant::now();
            let Some(result) = self.queue_and_load(key, abandoned).await else {
                let what = "nobody waits for this load any more";
                return Err(Error::new(ErrorKind::Overloaded, what).into());
            };
            let outcome = result.as_ref().map(|loaded| loaded.value.len());
            self.observer.loaded(key, started.elapsed(), outcome);
            result.map_err(Into::into)
        };
        load.instrument(trace::load_span()).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use gaocache_core::ports::loader;

    struct Nobody;
    impl LoadObserver for Nobody {
        fn loaded(&self, _key: &str, _took: Duration, _outcome: Result<usize, &Error>) {}
    }

    #[test]
    fn the_ramp_grants_a_tenth_at_first_and_everything_in_the_end() {
        let ramp = Ramp::new(Bounds {
            max_concurrency: 64,
            max_queue: 0,
            ramp: Duration::from_secs(10),
            ..Bounds::default()
        });
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(ramp.first, 7);
        assert_eq!(ramp.due(began), 0);
        assert_eq!(ramp.due(after(5)), 28);
        assert_eq!(ramp.due(after(5)), 0);
        assert_eq!(ramp.due(after(60)), 64 - 7 - 28);
        assert_eq!(ramp.due(after(120)), 0);
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

    #[tokio::test]
    async fn a_load_that_nobody_waits_for_is_given_up_in_the_queue_but_not_once_it_runs() {
        let (origin, gate, begun) = one_at_a_time();
        let mut runs = origin.load_in_turn("1", Box::pin(std::future::ready(())));
        assert!(futures::poll!(runs.as_mut()).is_pending());
        let queued = origin.load_in_turn("2", Box::pin(std::future::ready(())));
        assert!(queued.await.is_err(), "given up");
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        gate.notify_one();
        assert!(runs.await.is_ok(), "goes on");
    }

    #[test]
    fn the_longest_load_is_the_last_of_a_full_queue() {
        let bounds = |max_concurrency, max_queue| Bounds {
            max_concurrency,
            max_queue,
            load_timeout: Duration::from_secs(4),
            ramp: Duration::from_secs(10),
        };
        assert_eq!(bounds(10, 0).longest_load().as_secs(), 14);
        assert_eq!(bounds(10, 21).longest_load().as_secs(), 4 * 4 + 10);
        assert_eq!(bounds(1, usize::MAX).longest_load(), LONGEST);
    }
}
