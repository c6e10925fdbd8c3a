//! Delays between attempts. They double from the first to the last one, with jitter, and never end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// The shortest delay between sessions with etcd.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest delay between sessions with etcd, without jitter, which may double it: whoever can
/// reach etcd again has done so well within the lease's time to live.
pub(crate) fn last_pause(lease_ttl: Duration) -> Duration {
    Duration::from_secs(2).min(lease_ttl / 6)
}

/// The delays of one series of attempts.
pub(crate) struct Pauses {
    first: Duration,
    last: Duration,
    running: ExponentialBackoff,
}

impl Pauses {
    /// Delays from `first` to `last`.
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            running: Self::begin(first, last),
        }
    }

    /// How long to wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        self.running.next().unwrap_or(self.last)
    }

    /// Starts again with the first delay, after an attempt has succeeded.
    pub(crate) fn reset(&mut self) {
        self.running = Self::begin(self.first, self.last);
    }

    // As in `gaocache::backoff`, which this crate must not know, and which is built without it.
    fn begin(first: Duration, last: Duration) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(last)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

/// Resolves at `moment`, or never if there is none.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let (first, last) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut pauses = Pauses::new(first, last);
        let begun = pauses.next();
        assert!(begun >= first && begun <= first * 2, "{begun:?}");
        let all: Vec<Duration> = (0..100).map(|_| pauses.next()).collect();
        assert!(all.iter().all(|pause| *pause <= last * 2));
        assert!(all[99] >= last, "it never ends");
        pauses.reset();
        assert!(pauses.next() <= first * 2);
    }
}
