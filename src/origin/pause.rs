//! Where a running load waits between two attempts: its callers may hang up meanwhile,
//! and then there is no need to ask the origin again.
//!
//! A flight that has been found abandoned is off the core's table, and another may load its key.
//! So nothing may check for that while an attempt runs, or two could run at once.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

tokio::task_local! {
    static PAUSES: Arc<AtomicBool>;
}

/// Waits between two attempts of the load that the current task runs.
#[cfg(feature = "cli")]
pub(super) async fn pause(time: std::time::Duration) {
    let pauses = PAUSES.try_with(Arc::clone).unwrap_or_default();
    pauses.store(true, Ordering::Relaxed);
    tokio::time::sleep(time).await;
    pauses.store(false, Ordering::Relaxed);
}

/// What a load ends with; `None` if it was abandoned while it paused, or at any time if it ends
/// `anyway` then.
pub(super) async fn unless_abandoned<T>(
    load: impl Future<Output = T>,
    abandoned: impl Future<Output = ()>,
    anyway: bool,
) -> Option<T> {
    let pauses = Arc::new(AtomicBool::new(false));
    let mut load = pin!(PAUSES.scope(pauses.clone(), load));
    let mut abandoned = pin!(abandoned);
    poll_fn(|cx| {
        if let Poll::Ready(loaded) = load.as_mut().poll(cx) {
            return Poll::Ready(Some(loaded));
        }
        if anyway || pauses.load(Ordering::Relaxed) {
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

    #[tokio::test(start_paused = true)]
    async fn a_load_that_nobody_waits_for_ends_in_a_pause_and_never_in_an_attempt() {
        let load = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pause(Duration::from_secs(1)).await;
            "loaded"
        };
        let mut attempts = pin!(unless_abandoned(load, ready(()), false));
        assert!(poll!(attempts.as_mut()).is_pending(), "an attempt runs");
        assert_eq!(attempts.await, None);

        let runs = async {
            pause(Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            "loaded"
        };
        let late = tokio::time::sleep(Duration::from_millis(1500));
        let loaded = unless_abandoned(runs, late, false).await;
        assert_eq!(loaded, Some("loaded"), "abandoned after the pause");
        assert_eq!(
            unless_abandoned(pending::<()>(), ready(()), true).await,
            None
        );
    }
}
