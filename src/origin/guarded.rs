//! Stands before every origin: bounds how many loads run and how many wait, and counts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    error::{Error, ErrorKind, Result},
    ports::{Loaded, Origin},
};

/// Told of every load.
pub trait LoadObserver: Send + Sync + 'static {
    /// A load ended.
    fn loaded(&self, took: Duration, outcome: Result<usize, &Error>);
}

/// An origin with its bounds.
pub struct Guarded {
    origin: Arc<dyn Origin>,
    observer: Arc<dyn LoadObserver>,
    running: Semaphore,
    /// Counts those who run and those who wait.
    admitted: Semaphore,
    max_concurrency: usize,
    max_queue: usize,
}

impl Guarded {
    /// At most `max_concurrency` loads run and `max_queue` wait.
    pub fn new(
        origin: Arc<dyn Origin>,
        observer: Arc<dyn LoadObserver>,
        max_concurrency: usize,
        max_queue: usize,
    ) -> Self {
        let bound = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Self {
            origin,
            observer,
            running: bound(max_concurrency),
            admitted: bound(max_concurrency.saturating_add(max_queue)),
            max_concurrency,
            max_queue,
        }
    }

    async fn load_in_turn(&self, key: &str) -> Result<Loaded> {
        let Ok(_admitted) = self.admitted.try_acquire() else {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "{} loads run and {} wait for this origin already (max_concurrency, max_queue)",
                    self.max_concurrency, self.max_queue
                ),
            ));
        };
        let closed = |_| Error::new(ErrorKind::Internal, "the origin was closed");
        let _running = self.running.acquire().await.map_err(closed)?;
        self.origin.load(key).await
    }
}

#[async_trait]
impl Origin for Guarded {
    async fn load(&self, key: &str) -> Result<Loaded> {
        let started = Instant::now();
        let result = self.load_in_turn(key).await;
        let outcome = result.as_ref().map(|loaded| loaded.value.len());
        self.observer.loaded(started.elapsed(), outcome);
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::ports::loader;

    struct Nobody;
    impl LoadObserver for Nobody {
        fn loaded(&self, _took: Duration, _outcome: Result<usize, &Error>) {}
    }

    #[tokio::test]
    async fn past_the_queue_a_load_is_refused_at_once() {
        let gate = Arc::new(Notify::new());
        let waiting = gate.clone();
        let slow = loader(move |_| {
            let gate = waiting.clone();
            async move {
                gate.notified().await;
                Ok("v")
            }
        });
        let origin = Guarded::new(slow, Arc::new(Nobody), 1, 1);
        let (first, second, third) = tokio::join!(
            origin.load("1"),
            async {
                let second = origin.load("2");
                tokio::pin!(second);
                // Takes its place in the queue before the third comes.
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
        assert_eq!(third.unwrap_err().kind(), ErrorKind::Overloaded);
    }
}
