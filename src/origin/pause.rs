//! Where a load that runs waits between two attempts: whoever asked for it may hang up meanwhile,
//! and then there is no need to ask the origin again.
//!
//! A flight that has been found abandoned is off the core's table, and another may load its key.
//! So nobody may look for that while an attempt runs, or two could run at once.
//!
//! The life of a value begins with the attempt that brought it.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use gaocache_core::ports::Asked;

/// The attempts of one load.
struct Attempts {
    /// It waits between two of them.
    pauses: AtomicBool,
    asked: Asked,
}

tokio::task_local! {
    static ATTEMPTS: Arc<Attempts>;
}

/// Waits between two attempts of the load that the current task runs.
#[cfg(feature = "cli")]
pub(super) async fn pause(time: std::time::Duration) {
    let attempts = ATTEMPTS.try_with(Arc::clone).ok();
    let pauses = |pauses| {
        if let Some(attempts) = &attempts {
            attempts.pauses.store(pauses, Ordering::Relaxed);
        }
    };
    pauses(true);
    tokio::time::sleep(time).await;
    pauses(false);
    if let Some(attempts) = &attempts {
        attempts.asked.note();
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
        pauses: AtomicBool::new(false),
        asked: asked.clone(),
    });
    asked.note();
    let mut load = pin!(ATTEMPTS.scope(attempts.clone(), load));
    let mut abandoned = pin!(abandoned);
    poll_fn(|cx| {
        if let Poll::Ready(loaded) = load.as_mut().poll(cx) {
            return Poll::Ready(Some(loaded));
        }
        if anyway || attempts.pauses.load(Ordering::Relaxed) {
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
}
