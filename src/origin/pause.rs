//! Where a running load waits between two attempts: its callers may hang up meanwhile,
//! and then there is no need to ask the origin again.
//!
//! A flight that has been found abandoned is off the core's table, and another may load its key.
//! So nothing may check for that while an attempt runs, or another load of the key could run, too.
//!
//! The life of a value begins with the attempt that brought it, or earlier.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use gaocache_core::ports::Asked;

/// The attempts of one load.
struct Attempts {
    /// How many of them run; those that pause don't.
    running: AtomicUsize,
    #[cfg(feature = "cli")]
    asked: Asked,
}

tokio::task_local! {
    static ATTEMPTS: Arc<Attempts>;
}

/// The attempts of the load that the current task runs; outside of a load, `None`.
fn attempts() -> Option<Arc<Attempts>> {
    ATTEMPTS.try_with(Arc::clone).ok()
}

/// Waits between two attempts of the load that the current task runs.
#[cfg(feature = "cli")]
pub(super) async fn pause(time: std::time::Duration) {
    let attempts = attempts();
    if let Some(attempts) = &attempts {
        attempts.running.fetch_sub(1, Ordering::Relaxed);
    }
    tokio::time::sleep(time).await;
    if let Some(attempts) = &attempts
        && attempts.running.fetch_add(1, Ordering::Relaxed) == 0
    {
        // Beside another one that runs, the value may be that one's.
        attempts.asked.note();
    }
}

/// Whether the load that the current task runs waits between two attempts.
pub(super) fn is_pausing() -> bool {
    attempts().is_none_or(|it| it.running.load(Ordering::Relaxed) == 0)
}

/// Runs another one for the same load, at the same time.
pub(super) async fn beside<T>(another: impl Future<Output = T>) -> T {
    if let Some(attempts) = attempts() {
        attempts.running.fetch_add(1, Ordering::Relaxed);
    }
    let outcome = another.await;
    ended();
    outcome
}

/// One of two ended, and the other goes on.
pub(super) fn ended() {
    if let Some(attempts) = attempts() {
        attempts.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a load ends with; `None` if it was abandoned while it paused, or at any time if it ends
/// `anyway` then. Notes when each attempt began.
pub(super) async fn unless_abandoned<T>(
    load: impl Future<Output = T>,
    abandoned: impl Future<Output = ()>,
    anyway: bool,
    asked: &Asked,
) -> Option<T> {
    let attempts = Arc::new(Attempts {
        running: AtomicUsize::new(1),
        #[cfg(feature = "cli")]
        asked: asked.clone(),
    });
    asked.note();
    let mut load = pin!(ATTEMPTS.scope(attempts.clone(), load));
    let mut abandoned = pin!(abandoned);
    poll_fn(|cx| {
        if let Poll::Ready(loaded) = load.as_mut().poll(cx) {
            return Poll::Ready(Some(loaded));
        }
        if anyway || attempts.running.load(Ordering::Relaxed) == 0 {
            return abandoned.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        time::Duration,
    };

    use futures::poll;

    use super::*;
    use crate::clock::MonotonicClock;

    #[tokio::test(start_paused = true)]
    async fn a_load_that_nobody_waits_for_ends_in_a_pause_and_never_in_an_attempt() {
        let load = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pause(Duration::from_secs(1)).await;
            "loaded"
        };
        let asked = Asked::by(Arc::new(MonotonicClock));
        let mut attempts = pin!(unless_abandoned(load, ready(()), false, &asked));
        assert!(poll!(attempts.as_mut()).is_pending(), "an attempt runs");
        assert_eq!(attempts.await, None);

        let runs = async {
            pause(Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            "loaded"
        };
        let late = tokio::time::sleep(Duration::from_millis(1500));
        let loaded = unless_abandoned(runs, late, false, &asked).await;
        assert_eq!(loaded, Some("loaded"), "abandoned after the pause");
        let at_once = unless_abandoned(pending::<()>(), ready(()), true, &asked);
        assert_eq!(at_once.await, None);
    }
    #[tokio::test(start_paused = true)]
    async fn of_two_that_run_at_once_both_must_pause() {
        let second = Duration::from_secs(1);
        let first = async {
            pause(3 * second).await;
            pending::<()>().await;
        };
        let other = async {
            tokio::time::sleep(second).await;
            pause(second).await;
            pending::<()>().await;
        };
        let load = async { tokio::join!(first, beside(other)) };
        let asked = Asked::by(Arc::new(MonotonicClock));
        let mut load = pin!(unless_abandoned(load, ready(()), false, &asked));
        assert!(poll!(load.as_mut()).is_pending(), "the other runs");
        let began = tokio::time::Instant::now();
        assert_eq!(load.await, None);
        assert_eq!(began.elapsed(), second);
    }
}
